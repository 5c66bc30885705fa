"""How the models read manifests and what the rest of Paceline asks them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import paceline.api
from paceline.api import (
    InferenceService,
    InferenceServiceSpec,
    InferenceServiceStatus,
    Slo,
    TransitionStatus,
    bytes_of,
    quantity_value,
)
from paceline.api.slo import PRESETS


def spec(**parts: Any) -> dict[str, Any]:
    return {
        "model": {"uri": "bundled://smollm2-135m-instruct"},
        "scaling": {"replicas": 1, "tensorParallelSize": 1},
        **parts,
    }


def service(**metadata: Any) -> InferenceService:
    return InferenceService.from_manifest(
        {
            "apiVersion": "paceline.dev/v1alpha1",
            "kind": "InferenceService",
            "metadata": {"name": "chat", "managedFields": [{"manager": "kubectl"}], **metadata},
            "spec": spec(),
        }
    )


def test_every_public_name_exists_and_is_listed_in_order() -> None:
    names = paceline.api.__all__
    assert sorted(names, key=lambda n: (not n.isupper(), n[0].islower(), n)) == names
    assert all(hasattr(paceline.api, name) for name in names)


@pytest.mark.parametrize(
    "part",
    [
        {"replicas": 2},
        {"model": {"uri": "bundled://smollm2-135m-instruct", "max_model_tokens": 16}},
        {"scaling": {"replicas": 1, "tensor_parallel_size": 1}},
        {"runtime": {"emulation": {"stepMs": 1}}},
    ],
)
def test_an_unknown_or_wrongly_written_field_of_the_spec_is_an_error(part: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        InferenceServiceSpec.from_manifest(spec(**part))


def test_a_status_of_a_newer_operator_is_read_by_an_older_one() -> None:
    read = InferenceServiceStatus.from_manifest({"replicas": 2, "canary": {"passed": True}})
    assert read == InferenceServiceStatus(replicas=2)


def test_from_and_to_of_a_transition_keep_their_names_in_the_manifest() -> None:
    body = {"id": 7, "from": "tp1-aaaaaaaa", "to": "tp3-bbbbbbbb", "step": "Draining"}
    assert TransitionStatus.from_manifest(body).to_manifest() == body


def test_a_spec_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        service().spec.scaling.replicas = 2  # type: ignore[misc]


def test_metadata_that_paceline_does_not_read_is_left_out() -> None:
    assert service(labels={"a": "b"}).metadata.labels == {"a": "b"}


def test_the_served_name_is_the_name_of_the_service_unless_given() -> None:
    assert service().served_names == ("chat",)
    named = spec(model={"uri": "bundled://smollm2-135m-instruct", "servedNames": ["a", "b"]})
    assert InferenceServiceSpec.from_manifest(named).model.served_names == ("a", "b")


def test_the_longest_prompt_is_what_the_output_leaves_unless_given() -> None:
    assert InferenceServiceSpec.from_manifest(spec()).max_prompt_tokens == 8192 - 2048
    given_limit = spec(admission={"maxPromptTokens": 100})
    assert InferenceServiceSpec.from_manifest(given_limit).max_prompt_tokens == 100


def test_standard_targets_hold_where_none_are_given() -> None:
    assert Slo().targets().classes == (PRESETS["Standard"],)
    assert Slo(preset="Interactive").targets().classes == (PRESETS["Interactive"],)


def test_own_classes_become_targets_in_their_order() -> None:
    slo = Slo.from_manifest(
        {
            "latencyClasses": [
                {
                    "name": "short",
                    "maxPromptTokens": 8192,
                    "timeToFirstToken": {"thresholdMilliseconds": 500},
                    "timePerOutputToken": {"thresholdMilliseconds": 40},
                },
                {
                    "name": "long",
                    "timeToFirstToken": {
                        "thresholdMilliseconds": 600,
                        "perThousandPromptTokensMilliseconds": 80,
                    },
                    "timePerOutputToken": {"thresholdMilliseconds": 50},
                },
            ]
        }
    )
    short, long = slo.targets().classes
    assert (short.name, short.max_prompt_tokens, short.ttft_ms, short.tpot_ms) == ("short", 8192, 500, 40)
    assert (long.name, long.max_prompt_tokens, long.ttft_ms, long.tpot_ms) == ("long", None, 600, 50)
    assert long.ttft_per_thousand_prompt_tokens_ms == 80


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1Gi", 2**30),
        ("1G", 10**9),
        ("0.5Gi", 2**29),
        (".5Ki", 512),
        ("1e3", 1000),
        ("1E3", 1000),
        ("2E", 2 * 10**18),
        ("1Ei", 2**60),
        ("100m", 1),
        ("0", 0),
    ],
)
def test_a_quantity_counts_as_kubernetes_counts(text: str, count: int) -> None:
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "4 Gi", "4gi", "-1Gi", "1K", "Gi", "1e", "4GiB", "1Gi\n", "٣Gi"])
def test_what_is_no_quantity_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(ValueError, match="write a number with a unit"):
        bytes_of(text)


SUFFIXES = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "T": Decimal(10) ** 12,
}


@given(
    whole=st.integers(min_value=0, max_value=10**12),
    part=st.integers(min_value=0, max_value=10**9 - 1),
    suffix=st.sampled_from(sorted(SUFFIXES)),
)
def test_a_quantity_has_exactly_the_value_that_was_written(whole: int, part: int, suffix: str) -> None:
    text = f"{whole}.{part:09d}{suffix}"
    assert quantity_value(text) == Decimal(f"{whole}.{part:09d}") * SUFFIXES[suffix]
    assert 0 <= bytes_of(text) - quantity_value(text) < 1
