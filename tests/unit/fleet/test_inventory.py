"""What a service may still take of each node: nothing that others hold, nothing where its pods may not go."""

from __future__ import annotations

from typing import Any

import pytest

from paceline.fleet import Node
from paceline.fleet.inventory import NodeNeeds, Room, requests_of, rooms
from tests.unit.fleet.services import CPU_DEMO, EMULATED, merged, service

GPU = "nvidia.com/gpu"


def node(name: str, *, gpus: int = 8, spec: dict[str, Any] | None = None, ready: bool = True) -> Node:
    return Node.parse(
        {
            "metadata": {"name": name, "labels": {"pool": "llm", "nvidia.com/gpu.product": "NVIDIA-H200"}},
            "spec": spec or {},
            "status": {
                "allocatable": {GPU: str(gpus), "cpu": "4", "memory": "16Gi"},
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        }
    )


def test_free_is_what_nobody_requested() -> None:
    found = rooms(service(EMULATED), nodes=(node("a"), node("b")), requested={"a": {GPU: 5.0, "cpu": 3.0}})
    assert found == (Room(node="a", total=8, free=3), Room(node="b", total=8, free=8))


@pytest.mark.parametrize(
    ("change", "spec", "names"),
    [
        pytest.param({"nodeSelector": {"pool": "llm"}}, {}, ["a"], id="selected"),
        pytest.param({"nodeSelector": {"pool": "web"}}, {}, [], id="not selected"),
        pytest.param({"products": ["NVIDIA-H100"]}, {}, [], id="another product"),
        pytest.param({}, {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}, [], id="tainted"),
        pytest.param({}, {"taints": [{"key": "gpu", "effect": "PreferNoSchedule"}]}, ["a"], id="preferred"),
        pytest.param(
            {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
            {"taints": [{"key": "gpu", "value": "x", "effect": "NoSchedule"}]},
            ["a"],
            id="tolerated",
        ),
        pytest.param(
            {"tolerations": [{"key": "gpu", "operator": "Equal", "value": "y"}]},
            {"taints": [{"key": "gpu", "value": "x", "effect": "NoSchedule"}]},
            [],
            id="another value",
        ),
    ],
)
def test_only_nodes_that_the_pods_may_go_to_count(
    change: dict[str, Any], spec: dict[str, Any], names: list[str]
) -> None:
    found = rooms(
        service(merged(EMULATED, {"accelerator": change})), nodes=(node("a", spec=spec),), requested={}
    )
    assert [one.node for one in found] == names


def test_a_node_that_leaves_or_is_not_ready_has_nothing_free() -> None:
    nodes = (node("a", spec={"unschedulable": True}), node("b", ready=False))
    assert [(one.total, one.free) for one in rooms(service(EMULATED), nodes=nodes, requested={})] == [
        (8, 0),
        (8, 0),
    ]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"accelerator": {"nodeSelector": {"pool": "llm"}}}, id="nodeSelector"),
        pytest.param({"accelerator": {"products": ["NVIDIA-H100"]}}, id="products"),
        pytest.param({"accelerator": {"tolerations": [{"operator": "Exists"}]}}, id="tolerations"),
        pytest.param({"accelerator": {"resourceName": "nvidia.com/mig-1g.10gb"}}, id="resource"),
    ],
)
def test_whoever_wants_something_else_of_a_node_has_other_terms(change: dict[str, Any]) -> None:
    plain = NodeNeeds.of(service(EMULATED))
    assert NodeNeeds.of(service(merged(EMULATED, {"scaling": {"priority": 3}}), name="other")) == plain
    assert NodeNeeds.of(service(merged(EMULATED, change))) != plain


def test_on_a_cpu_the_terms_have_what_a_rank_requests() -> None:
    larger = merged(CPU_DEMO, {"runtime": {"resources": {"requests": {"memory": "9Gi"}}}})
    assert NodeNeeds.of(service(CPU_DEMO)) != NodeNeeds.of(service(larger))


def test_nodes_that_are_alike_are_counted() -> None:
    nodes = tuple(node(name) for name in "abc")
    found = rooms(service(EMULATED), nodes=nodes, requested={"b": {GPU: 5.0}})
    assert found.alike == {(8, 8): 2, (8, 3): 1}
    assert found.nodes == {"a", "b", "c"}


def test_on_a_cpu_a_rank_takes_cores_and_memory() -> None:
    # One rank: half a core, 2 GiB, and the volumes in memory.
    (found,) = rooms(service(CPU_DEMO), nodes=(node("a"),), requested={"a": {"cpu": 1.0, "memory": 2.0**32}})
    assert (found.total, found.free) == (5, 3)


def test_requests_are_those_the_scheduler_counts() -> None:
    def container(amounts: dict[str, str], **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": amounts}, **more}

    pod = {
        "spec": {
            "containers": [container({GPU: "2", "cpu": "500m"}), container({"memory": "1Gi"}), {}],
            "initContainers": [
                container({"cpu": "2"}),
                container({"cpu": "250m"}, restartPolicy="Always"),
            ],
            "overhead": {"memory": "1Mi"},
        }
    }
    assert requests_of(pod) == {GPU: 2.0, "cpu": 2.0, "memory": 2.0**30 + 2.0**20}
