"""Verify what engines that come are held against: the answers and the speed of those that serve, and which of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paceline_core import Canary, Reference, Speed, load_table
from tests.unit.fleet.services import CPU_DEMO, EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster

FIRST = Canary(of="a model", log_probabilities=(-1.0, -2.0))
CLOSE = Canary(of="a model", log_probabilities=(-1.01, -2.02))
OTHER = Canary(of="another model", log_probabilities=(-1.0, -2.0))


def told(cluster: Cluster, pod: str, canary: Canary | None) -> None:
    cluster.pods[pod]["info"] = {"canary": None if canary is None else canary.to_json()}


def kept(cluster: Cluster) -> Canary | None:
    found = reference(cluster)
    return None if found is None else found.canary


def reference(cluster: Cluster) -> Reference | None:
    """What the next look applies: a key that is left out is removed by the API server."""
    (config,) = (one for one in cluster.reconcile().apply if one.kind == "ConfigMap")
    data: Any = config.object["data"]
    assert json.loads(data["targets.json"])
    return Reference.parse(data["canary.json"]) if "canary.json" in data else None


@pytest.fixture
def two() -> Cluster:
    cluster = Cluster(merged(EMULATED, {"scaling": {"replicas": 2}}))
    cluster.settle()
    return cluster


def test_nothing_is_compared_before_a_pod_has_told(two: Cluster) -> None:
    assert kept(two) is None


def test_the_first_that_was_told_stays_the_reference(two: Cluster) -> None:
    one, other = sorted(two.serving())
    told(two, other, FIRST)
    assert kept(two) == FIRST
    told(two, one, CLOSE)
    assert kept(two) == FIRST
    told(two, other, CLOSE)
    assert kept(two) == FIRST


def test_a_reference_outlives_the_pods_that_told_it(two: Cluster) -> None:
    for pod in two.serving():
        told(two, pod, FIRST)
    assert kept(two) == FIRST
    for pod in two.serving():
        told(two, pod, None)
    assert kept(two) == FIRST


def test_another_model_has_another_reference(two: Cluster) -> None:
    for pod in two.serving():
        told(two, pod, FIRST)
    assert kept(two) == FIRST
    for pod in two.serving():
        told(two, pod, OTHER)
    assert kept(two) == OTHER


def test_a_pod_that_does_not_serve_is_not_believed(two: Cluster) -> None:
    one, _ = sorted(two.serving())
    told(two, one, FIRST)
    two.make_ready(one, ready=False)
    assert kept(two) is None


def test_disabled_nothing_is_compared(two: Cluster) -> None:
    for pod in two.serving():
        told(two, pod, FIRST)
    assert kept(two) == FIRST
    two.edit({"transition": {"canary": {"mode": "Disabled"}}})
    assert kept(two) is None


def at(size: int, token_s: float) -> Canary:
    return Canary(
        of="a model",
        log_probabilities=(-1.0, -2.0),
        speed=Speed(tensor_parallel_size=size, token_s=token_s),
    )


def serving(manifest: Any, canary: Canary) -> Cluster:
    cluster = Cluster(manifest)
    cluster.settle()
    for pod in cluster.serving():
        told(cluster, pod, canary)
    return cluster


H200 = {"gpu": "h200", "model": "llama-3.1-70b", "format": "fp8"}


def test_what_other_sizes_take_follows_from_the_tables() -> None:
    """A service that is a tenth slower than its table is a tenth slower at every size."""
    spec = {"runtime": {"emulation": {"stepMilliseconds": None, "timing": H200}}}
    table = load_table(H200["model"], H200["format"], H200["gpu"]).by_tensor_parallel_size
    alone_s = {size: one.step_s(decodes=1) for size, one in table.items()}
    found = reference(serving(merged(EMULATED, spec), at(2, 1.1 * alone_s[2])))
    assert found is not None
    assert found.expected_token_s == pytest.approx(
        {size: 1.1 * each for size, each in alone_s.items()}, abs=1e-5
    )


def test_the_margin_is_the_services_own() -> None:
    cluster = serving(EMULATED, at(1, 0.02))
    found = reference(cluster)
    assert found is not None
    assert found.margin == 0.5
    cluster.edit({"transition": {"canary": {"latencyMarginPercent": 20}}})
    again = reference(cluster)
    assert again is not None
    assert again.margin == 0.2
    assert again.expected_token_s == found.expected_token_s


def test_on_shared_cores_and_without_a_speed_nothing_is_expected() -> None:
    for manifest, canary in ((CPU_DEMO, at(1, 0.05)), (EMULATED, FIRST)):
        found = reference(serving(manifest, canary))
        assert found is not None
        assert found.expected_token_s == {}
