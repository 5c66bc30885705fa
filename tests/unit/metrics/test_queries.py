"""The queries: scoped, escaped, and as few for a thousand services as for one."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.metrics import promql
from paceline.metrics.queries import query_set, scope


class Key(NamedTuple):
    namespace: str
    name: str


def unquoted(literal: str) -> str:
    """As Prometheus reads a string in double quotes."""
    assert literal[0] == literal[-1] == '"'
    found = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), literal[1:-1], flags=re.DOTALL)
    assert re.fullmatch(r'(?:[^"\\\n]|\\[\\"n])*', literal[1:-1]), "ends early, or holds a line break"
    return found


@settings(deadline=None)
@given(st.text())
def test_no_value_ends_its_string(text: str) -> None:
    assert unquoted(promql.quoted(text)) == text


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.text())
def test_a_matcher_for_several_values_takes_them_literally(values: list[str], other: str) -> None:
    pattern = unquoted(promql.one_of("label", values).removeprefix("label=~"))
    for value in (*values, other):
        assert (re.fullmatch(pattern, value) is not None) == (value in values)


def test_few_services_are_named_and_many_are_not() -> None:
    few = scope([Key("team-a", "chat"), Key("team-b", "code")], matchers={"cluster": 'eu"1'})
    assert few == (
        'cluster="eu\\"1"',
        r'namespace=~"team\\-a|team\\-b"',
        'paceline_dev_service=~"chat|code"',
    )
    many = scope([Key(f"team-{n}", f"chat-{n}") for n in range(1000)], matchers={})
    assert many == ('paceline_dev_service!=""',)


def test_a_thousand_services_cost_four_queries() -> None:
    many = query_set(scope([Key(f"t{n}", f"s{n}") for n in range(1000)], matchers={}), window_s=60)
    one = query_set(scope([Key("t", "s")], matchers={}), window_s=60)
    for queries in (many, one):
        texts = (queries.pods, queries.rates, queries.latencies, queries.lengths)
        assert sum(map(len, texts)) < 20_000


def test_every_selector_is_scoped() -> None:
    where = scope([Key("team-a", "chat")], matchers={"cluster": "eu"})
    queries = query_set(where, window_s=60)
    for text in (queries.pods, queries.rates, queries.latencies, queries.lengths):
        selectors = re.findall(r"[a-z_:]+\{[^}]*\}", text)
        assert selectors
        assert all(",".join(where) in one for one in selectors)


@pytest.mark.parametrize(("seconds", "text"), [(60.0, "60000ms"), (0.5, "500ms"), (7.25, "7250ms")])
def test_durations_are_whole_milliseconds(seconds: float, text: str) -> None:
    assert promql.duration(seconds) == text
