"""A spec that cannot be read is refused by name, and everything that is known of the service stays."""

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from paceline.api import InferenceService, InferenceServiceStatus
from paceline.controller.refusal import invalid_spec_status

RAW: dict[str, Any] = {
    "apiVersion": "paceline.dev/v1alpha1",
    "kind": "InferenceService",
    "metadata": {"name": "chat", "namespace": "ns", "generation": 4},
    "spec": {
        "model": {"uri": "bundled://smollm2-135m-instruct"},
        "slo": {"preset": "Standard"},
        "scaling": {"mode": "Manual", "replicas": 1, "tensorParallelSize": 1},
        "router": {"replicas": "many"},
    },
    "status": {
        "url": "http://chat.ns.svc/v1",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "reason": "Serving",
            },
            {
                "type": "RouterReady",
                "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "reason": "R",
            },
        ],
    },
}


@pytest.fixture
def error() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        InferenceService.from_manifest({k: v for k, v in RAW.items() if k != "status"})
    return caught.value


def test_the_field_is_named_and_the_rest_of_the_status_stays(error: ValidationError) -> None:
    status, event = invalid_spec_status(RAW, error, now_s=1_800_000_000)
    read = InferenceServiceStatus.from_manifest(status)
    ready = read.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason, ready.observed_generation) == ("False", "InvalidSpec", 4)
    assert "spec.router.replicas" in ready.message
    assert ready.last_transition_time == "2027-01-15T08:00:00Z"
    assert read.url == "http://chat.ns.svc/v1"
    assert read.condition("RouterReady") is not None
    assert event is not None
    assert event.message == ready.message


def test_the_same_refusal_is_no_news_and_changes_nothing(error: ValidationError) -> None:
    status, _ = invalid_spec_status(RAW, error, now_s=1_800_000_000)
    again, event = invalid_spec_status({**copy.deepcopy(RAW), "status": status}, error, now_s=1_800_009_999)
    assert again == status
    assert event is None
