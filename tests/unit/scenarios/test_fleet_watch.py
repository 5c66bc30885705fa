"""GPUs count while a pod holds them, replicas while they serve, and a look that fails leaves the last one standing."""

from __future__ import annotations

from typing import Any, cast

from e2e.cluster.errors import ClusterError
from e2e.kubectl import KubectlError
from e2e.scenarios.fleet_watch import FleetWatch, look_of
from e2e.scenarios.tenant import Tenant

STATUS: dict[str, Any] = {
    "shape": {"desired": {"tensorParallelSize": 2, "replicas": 1}},
    "decisions": [
        {"at": "2026-11-27T12:00:00Z", "shape": {"tensorParallelSize": 1, "replicas": 1}, "reason": "FirstShape"},
        {
            "at": "2026-11-27T12:10:00Z",
            "before": {"tensorParallelSize": 1, "replicas": 2},
            "shape": {"tensorParallelSize": 2, "replicas": 1},
            "reason": "FloorAboveTarget",
        },
    ],
}  # fmt: skip


def pod(
    uid: str, *, size: int, ready: bool = True, leaving: bool = False, placed: bool = True
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "metadata": {
            "uid": uid,
            "labels": {"paceline.dev/tensor-parallel-size": str(size)},
            "creationTimestamp": "2026-11-27T12:00:00Z",
        },
        "spec": {"nodeName": "a"} if placed else {},
        "status": {
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if ready else "False",
                    "lastTransitionTime": "2026-11-27T12:00:14Z",
                }
            ]
        },
    }
    if leaving:
        made["metadata"]["deletionTimestamp"] = "2026-11-27T12:11:00Z"
    return made


def test_gpus_are_held_by_pods_that_start_and_drain_and_not_by_those_without_a_node() -> None:
    look = look_of(
        7.0,
        status=STATUS,
        pods=[
            pod("old", size=1, leaving=True),
            pod("new", size=2),
            pod("starts", size=2, ready=False),
            pod("waits", size=2, ready=False, placed=False),
        ],
    )
    assert look.gpus == 1 + 2 + 2
    assert look.ready == {2: 1}
    assert (look.tensor_parallel_size, look.replicas) == (2, 1)


class Silent:
    """A tenant whose API server answers now and then."""

    def __init__(self, *answers: list[dict[str, Any]] | None, without_processes: int = 0) -> None:
        self._answers = list(answers)
        self._without_processes = without_processes
        self.cluster = self
        self.favoured: list[str] = []

    def favour_pod(self, uid: str) -> None:
        if self._without_processes:
            self._without_processes -= 1
            raise ClusterError(f"no living node runs a pod {uid}")
        self.favoured.append(uid)

    def observe(self) -> dict[str, Any]:
        if self._answers[0] is None:
            self._answers.pop(0)
            raise KubectlError("no answer")
        return {"status": STATUS}

    def engines(self) -> list[dict[str, Any]]:
        return self._answers.pop(0) or []


def test_a_look_without_an_answer_is_counted_and_adds_nothing() -> None:
    watch = FleetWatch(cast(Tenant, Silent([pod("a", size=1)], None, [pod("a", size=1), pod("b", size=2)])))
    for at_s in (0.0, 5.0, 10.0):
        watch.look(at_s)
    assert [one.at_s for one in watch.looks] == [0.0, 10.0]
    assert watch.missed == 1
    assert watch.starts_s == {"a": 14.0, "b": 14.0}


def test_it_is_told_why_the_size_changed() -> None:
    watch = FleetWatch(cast(Tenant, Silent([])))
    watch.look(0.0)
    assert watch.size_reasons == {"2026-11-27T12:10:00Z": "FloorAboveTarget"}


def test_each_engine_goes_before_everything_else_as_soon_as_it_runs() -> None:
    tenant = Silent([pod("a", size=1)], [pod("a", size=1)], [pod("a", size=1)], without_processes=1)
    watch = FleetWatch(cast(Tenant, tenant))
    for at_s in (0.0, 10.0, 20.0):
        watch.look(at_s)
    assert tenant.favoured == ["a"]
