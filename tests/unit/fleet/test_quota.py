"""What the ResourceQuotas of a namespace leave to engine pods, by the API server's own rules of scope."""

from __future__ import annotations

from typing import Any

import pytest

from paceline.fleet.quota import gpus_left
from tests.unit.fleet.services import EMULATED, merged, service

NAME = "requests.nvidia.com/gpu"


def quota(hard: str, used: str = "0", *, name: str = NAME, **spec: Any) -> dict[str, Any]:
    return {"spec": {"hard": {name: hard}, **spec}, "status": {"hard": {name: hard}, "used": {name: used}}}


def priority(operator: str, *values: str) -> dict[str, Any]:
    found = {"scopeName": "PriorityClass", "operator": operator}
    return {"matchExpressions": [found | ({"values": list(values)} if values else {})]}


def test_the_tightest_quota_counts() -> None:
    assert gpus_left(service(EMULATED), [quota("16", "4"), quota("10", "7")]) == 3


def test_more_used_than_allowed_leaves_nothing() -> None:
    assert gpus_left(service(EMULATED), [quota("4", "6")]) == 0


@pytest.mark.parametrize(
    "quotas",
    [
        pytest.param([], id="none"),
        pytest.param([quota("10", name="requests.cpu")], id="of the CPU"),
        pytest.param([quota("10", name="requests.amd.com/gpu")], id="of other GPUs"),
    ],
)
def test_no_quota_of_these_gpus_is_no_limit(quotas: list[dict[str, Any]]) -> None:
    assert gpus_left(service(EMULATED), quotas) is None


def test_a_quota_without_a_status_yet_leaves_all_of_it() -> None:
    assert gpus_left(service(EMULATED), [{"spec": {"hard": {NAME: "8"}}}]) == 8


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        pytest.param({"scopes": ["NotTerminating", "NotBestEffort"]}, True, id="as engines are"),
        pytest.param({"scopes": ["NotTerminating", "BestEffort"]}, False, id="one scope does not match"),
        pytest.param({"scopes": ["Terminating"]}, False, id="of jobs"),
        pytest.param({"scopes": ["SomethingNew"]}, True, id="unknown: taken to count"),
        pytest.param({"scopes": ["PriorityClass"]}, True, id="any priority class"),
        pytest.param({"scopeSelector": priority("In", "batch")}, False, id="another priority class"),
        pytest.param({"scopeSelector": priority("In", "batch", "online")}, True, id="ours"),
        pytest.param({"scopeSelector": priority("NotIn", "online")}, False, id="not ours"),
        pytest.param({"scopeSelector": priority("DoesNotExist")}, False, id="of pods without one"),
    ],
)
def test_a_quota_counts_for_the_pods_in_its_scope(spec: dict[str, Any], counts: bool) -> None:
    ours = service(merged(EMULATED, {"placement": {"priorityClassName": "online"}}))
    assert gpus_left(ours, [quota("8", "6", **spec)]) == (2 if counts else None)
