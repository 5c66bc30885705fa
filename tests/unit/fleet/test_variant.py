"""Verify what makes another variant, and that nothing else ever changes the template of one that exists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from paceline.fleet import Images
from paceline.fleet.names import ANNOTATION_INPUTS, ANNOTATION_TEMPLATE
from paceline.fleet.variant import canonical, read_inputs, template_inputs, variant_name
from tests.unit.fleet.services import EMULATED, ONE_GPU, SETTINGS, SEVENTY_B, merged, service
from tests.unit.fleet.simulated_cluster import Cluster

NEWER = replace(
    SETTINGS,
    operator_version="9.9.9",
    images=Images(runtime_gpu="new:1", runtime_cpu="new:2", emulator="new:3", router="new:4"),
    image_pull_policy="Always",
)


def name_of(spec: Mapping[str, Any], *, tensor_parallel_size: int = 1) -> str:
    return variant_name(template_inputs(service(spec), tensor_parallel_size=tensor_parallel_size))


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"scaling": {"replicas": 5}}, id="replicas"),
        pytest.param({"scaling": {"mode": "Auto", "replicaBounds": {"max": 9}}}, id="mode"),
        pytest.param({"slo": {"preset": "Interactive"}}, id="slo"),
        pytest.param({"router": {"replicas": 4, "policy": "RoundRobin"}}, id="router"),
        pytest.param({"endpoint": {"networkPolicy": "None"}}, id="endpoint"),
        pytest.param({"observability": {"scrapeIntervalSeconds": 30}}, id="observability"),
        pytest.param({"disruption": {"maxUnavailable": 3}}, id="disruption"),
        pytest.param(
            {"transition": {"readyDeadlineSeconds": 60, "pendingDeadlineSeconds": 30}}, id="transition"
        ),
        pytest.param({"paused": True}, id="paused"),
    ],
)
def test_what_does_not_shape_a_pod_does_not_change_the_variant(patch: Mapping[str, Any]) -> None:
    assert name_of(merged(EMULATED, patch)) == name_of(EMULATED)


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"model": {"uri": "pvc://weights/other"}}, id="model"),
        pytest.param({"model": {"servedNames": ["other"]}}, id="served-names"),
        pytest.param({"model": {"quantization": {"weights": "INT8"}}}, id="weights"),
        pytest.param({"model": {"kvCache": {"size": "8Gi"}}}, id="kv-cache"),
        pytest.param({"admission": {"maxOutputTokens": 64}}, id="admission"),
        pytest.param({"accelerator": {"products": ["NVIDIA-H200"]}}, id="accelerator"),
        pytest.param({"placement": {"priorityClassName": "high"}}, id="placement"),
        pytest.param({"runtime": {"image": "other:1"}}, id="image"),
        pytest.param({"runtime": {"env": [{"name": "A", "value": "b"}]}}, id="env"),
        pytest.param({"runtime": {"resources": {"limits": {"memory": "9Gi"}}}}, id="resources"),
        pytest.param({"runtime": {"emulation": {"stepMilliseconds": 20}}}, id="emulation"),
    ],
)
def test_what_shapes_a_pod_makes_another_variant(patch: Mapping[str, Any]) -> None:
    assert name_of(merged(EMULATED, patch)) != name_of(EMULATED)


def test_the_tensor_parallel_size_is_in_the_name() -> None:
    assert name_of(SEVENTY_B, tensor_parallel_size=4).startswith("tp4-")
    assert name_of(SEVENTY_B, tensor_parallel_size=8).startswith("tp8-")


def test_a_field_that_a_later_operator_brings_makes_no_other_variant() -> None:
    """The stored inputs lack it; read today, it counts as its default."""
    inputs = template_inputs(service(ONE_GPU), tensor_parallel_size=1)
    stored = json.loads(canonical(inputs))
    del stored["model"]["trustRemoteCode"]
    del stored["runtime"]["sharedMemorySize"]
    assert read_inputs(json.dumps(stored)) == inputs


@pytest.mark.parametrize("text", ["", "nonsense", "{}", '{"tensorParallelSize":1,"model":{"uri":7}}', None])
def test_inputs_that_cannot_be_read_are_nobodys(text: str | None) -> None:
    assert read_inputs(text) is None


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(EMULATED)
    made.settle()
    return made


def template(cluster: Cluster) -> Any:
    (variant,) = cluster.variants()
    return cluster.engine(variant)["spec"]["template"]


def test_an_upgrade_of_the_operator_restarts_no_engine(cluster: Cluster) -> None:
    before, pods = template(cluster), set(cluster.engine_pods())
    cluster.settings = NEWER
    cluster.settle()
    assert template(cluster) == before
    assert set(cluster.engine_pods()) == pods


def test_an_upgrade_of_the_operator_rolls_the_routers(cluster: Cluster) -> None:
    cluster.settings = NEWER
    cluster.settle()
    router = cluster.children["Deployment", "chat-router"]["spec"]["template"]["spec"]
    assert router["containers"][0]["image"] == "new:4"


def test_the_new_default_image_comes_with_the_next_change_of_the_spec(cluster: Cluster) -> None:
    cluster.settings = NEWER
    cluster.edit({"admission": {"maxOutputTokens": 64}})
    cluster.settle()
    assert template(cluster)["spec"]["containers"][0]["image"] == "new:3"


def test_scaling_after_an_upgrade_keeps_the_old_template(cluster: Cluster) -> None:
    before = template(cluster)
    cluster.settings = NEWER
    cluster.edit({"scaling": {"replicas": 3}})
    cluster.settle()
    assert template(cluster) == before
    assert len(cluster.serving()) == 3


def test_a_change_of_targets_reaches_the_pods_without_a_restart(cluster: Cluster) -> None:
    pods = set(cluster.engine_pods())
    cluster.edit({"slo": {"preset": "Interactive"}})
    cluster.settle()
    assert set(cluster.engine_pods()) == pods
    targets = json.loads(cluster.children["ConfigMap", "chat-slo"]["data"]["targets.json"])
    assert targets["latencyClasses"][0]["timeToFirstTokenMilliseconds"] == 500


def test_a_lost_template_annotation_restarts_no_engine(cluster: Cluster) -> None:
    (variant,) = cluster.variants()
    before = template(cluster)
    del cluster.engine(variant)["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    cluster.settings = NEWER
    cluster.settle()
    assert template(cluster) == before


def test_a_variant_of_another_name_with_the_same_inputs_is_the_same(cluster: Cluster) -> None:
    """An earlier operator may have made names in another way."""
    (variant,) = cluster.variants()
    inputs = cluster.engine(variant)["metadata"]["annotations"][ANNOTATION_INPUTS]
    child = cluster.children.pop(("Deployment", f"chat-{variant}"))
    old = json.loads(json.dumps(child).replace(variant, "tp1-00000000"))
    assert old["metadata"]["annotations"][ANNOTATION_INPUTS] == inputs
    cluster.children["Deployment", "chat-tp1-00000000"] = old
    for pod in cluster.pods.values():
        labels = pod["metadata"]["labels"]
        labels |= {"paceline.dev/variant": "tp1-00000000"} if "paceline.dev/variant" in labels else {}
    cluster.settle()
    assert cluster.variants() == {"tp1-00000000": 2}


def test_the_template_is_written_down_as_it_was_first_applied(cluster: Cluster) -> None:
    (variant,) = cluster.variants()
    engine = cluster.engine(variant)
    assert json.loads(engine["metadata"]["annotations"][ANNOTATION_TEMPLATE]) == engine["spec"]["template"]
