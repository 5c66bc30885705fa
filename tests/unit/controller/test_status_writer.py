"""Only what differs is written, and the patch leads from the old status to the new one."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.controller.status_writer import merge_patch

Json = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
Objects = st.dictionaries(st.sampled_from("abcd"), Json, max_size=4)


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7396, as the API server applies a merge patch."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = _merged(out.get(key), value)
    return out


@settings(deadline=None)
@given(before=Objects, after=Objects)
def test_the_patch_leads_from_the_old_status_to_the_new_one(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert _merged(before, merge_patch(before, after)) == after


@settings(deadline=None)
@given(status=Objects)
def test_the_same_status_is_no_patch(status: dict[str, Any]) -> None:
    assert merge_patch(status, status) == {}


def test_a_field_that_went_is_removed() -> None:
    assert merge_patch({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 2}}) == {"a": None, "b": {"d": None}}
