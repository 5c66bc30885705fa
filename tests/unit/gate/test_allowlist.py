"""The allow-list compares bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paceline_runtime.gate import allowlist


def test_the_list_is_these_routes() -> None:
    assert [(route.method, route.path) for route in allowlist.ROUTES] == [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/responses"),
    ]


def test_a_query_is_no_part_of_the_route() -> None:
    assert allowlist.match("GET", target="/v1/models?limit=1") == allowlist.ROUTES[0]


@given(method=st.sampled_from(["GET", "POST", "get", "PUT"]), target=st.text())
def test_nothing_else_matches(method: str, target: str) -> None:
    route = allowlist.match(method, target=target)
    assert route is None or (route.method, route.path) == (method, target.split("?")[0])


@given(path=st.sampled_from([route.path for route in allowlist.ROUTES]), data=st.data())
def test_one_changed_character_is_another_route(path: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(path)))
    character = data.draw(st.characters(exclude_characters="?"))
    changed = path[:at] + character + path[at + data.draw(st.integers(0, 1)) :]
    known = {route.path for route in allowlist.ROUTES}
    for method in ("GET", "POST"):
        assert changed in known or allowlist.match(method, target=changed) is None
