"""The four forms of a model uri, there and back; everything else says what to write."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline_core import BUNDLED_NAMES, BundledUri, ClaimUri, HubUri, ModelUri, S3Uri, UriError, parse_uri

WORD = st.from_regex(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,20}", fullmatch=True)
LOWER = st.from_regex(r"[a-z0-9]([-a-z0-9]{1,20}[a-z0-9])", fullmatch=True)
PATH = st.lists(st.from_regex(r"[A-Za-z0-9][-A-Za-z0-9_]{0,10}", fullmatch=True), min_size=1, max_size=4).map(
    "/".join
)

URIS = st.one_of(
    st.builds(lambda org, name, rev: HubUri(repo=f"{org}/{name}", revision=rev), WORD, WORD, WORD),
    st.builds(ClaimUri, LOWER, PATH),
    st.builds(S3Uri, LOWER, PATH),
    st.sampled_from([BundledUri(name) for name in BUNDLED_NAMES]),
).filter(lambda uri: "gguf" not in str(uri).lower())


@given(URIS)
def test_a_uri_comes_back_from_its_text_as_it_was(uri: ModelUri) -> None:
    assert parse_uri(str(uri)) == uri


@given(st.text(max_size=80))
def test_any_text_is_a_uri_or_an_error_that_says_what_to_write(text: str) -> None:
    with suppress(UriError):
        assert str(parse_uri(text)) == text
        return
    with pytest.raises(UriError, match="write "):
        parse_uri(text)


@pytest.mark.parametrize(
    ("revision", "pinned"),
    [
        ("main", False),
        ("v1.0", False),
        ("0e9e39f249a16976918f6564b8830bc894c89659", True),
        ("0e9e39f", False),
    ],
)
def test_only_a_whole_commit_is_pinned(revision: str, pinned: bool) -> None:
    assert HubUri(repo="org/name", revision=revision).is_pinned is pinned


def test_a_resolved_commit_takes_the_place_of_the_branch() -> None:
    uri = parse_uri("hf://org/name@main")
    assert isinstance(uri, HubUri)
    assert str(uri.pinned("a" * 40)) == f"hf://org/name@{'a' * 40}"


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("hf://org/name", r"write hf://org/name@main"),
        ("hf://name@main", r"write hf://org/name@revision"),
        ("pvc://claim", r"write pvc://claim/path"),
        ("pvc://claim/a/../../b", r"write pvc://claim/path"),
        ("s3://bucket", r"write s3://bucket/path"),
        ("bundled://other", r"write bundled://smollm2-135m-instruct"),
        ("org/name", r"unknown scheme: write hf://org/name@revision"),
        ("hf", r"unknown scheme: write hf://org/name@revision"),
        ("http://host/model", r"unknown scheme: write hf://org/name@revision"),
        ("pvc://claim/model-Q4.GGUF", r"write the uri of the safetensors"),
        ("hf://org/name-GGUF@main", r"write the uri of the safetensors"),
    ],
)
def test_a_mistake_says_what_to_write(text: str, way_out: str) -> None:
    with pytest.raises(UriError, match=way_out):
        parse_uri(text)
