"""The command line becomes settings, by flag and by variable, without reaching out for anything."""

from typing import Any

import pytest
from click.testing import CliRunner

from paceline.cli.operator import operator_command
from paceline.controller import process
from paceline.controller.settings import OperatorSettings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[OperatorSettings]:
    seen: list[OperatorSettings] = []

    class Recorded:
        def __init__(self, settings: OperatorSettings) -> None:
            seen.append(settings)

        async def run(self) -> int:
            return 0

    monkeypatch.setattr(process, "OperatorProcess", Recorded)
    return seen


def _run(*arguments: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(operator_command, arguments, env=env, catch_exceptions=False)


def test_flags_and_variables_say_the_same(started: list[OperatorSettings]) -> None:
    _run(
        "--lease-namespace=sys", "--namespace=a", "--namespace=b", "--router-image=r:1", "--metrics-port=9",
        "--foreign-writer-grace-seconds=7", "--pod-monitor-label=release=prom", "--cluster-gpu-budget=16",
    )  # fmt: skip
    _run(
        env={
            "PACELINE_LEASE_NAMESPACE": "sys",
            "PACELINE_NAMESPACE": "a b",
            "PACELINE_ROUTER_IMAGE": "r:1",
            "PACELINE_METRICS_PORT": "9",
            "PACELINE_FOREIGN_WRITER_GRACE_SECONDS": "7",
            "PACELINE_POD_MONITOR_LABELS": "release=prom",
            "PACELINE_CLUSTER_GPU_BUDGET": "16",
        }
    )
    first, second = started
    assert first.namespaces == second.namespaces == ("a", "b")
    assert first.fleet == second.fleet
    assert first.fleet.images.emulator == "r:1"
    assert first.fleet.foreign_writer_grace_s == 7
    assert first.fleet.pod_monitor_labels == {"release": "prom"}
    assert first.fleet.prometheus_pod_labels == {"app.kubernetes.io/name": "prometheus"}
    assert (first.metrics_port, second.metrics_port) == (9, 9)
    assert (first.cluster_gpu_budget, second.cluster_gpu_budget) == (16, 16)


def test_the_namespace_of_the_pod_holds_the_lease(started: list[OperatorSettings]) -> None:
    _run(env={"POD_NAMESPACE": "mine", "POD_NAME": "operator-0"})
    assert started[0].lease.namespace == started[0].fleet.operator_namespace == "mine"
    assert started[0].lease.identity.startswith("operator-0_")


def test_two_processes_of_one_pod_are_not_the_same_holder(started: list[OperatorSettings]) -> None:
    _run(env={"POD_NAMESPACE": "mine", "POD_NAME": "operator-0"})
    _run(env={"POD_NAMESPACE": "mine", "POD_NAME": "operator-0"})
    assert started[0].lease.identity != started[1].lease.identity


def test_outside_a_pod_the_lease_namespace_is_asked_for(started: list[OperatorSettings]) -> None:
    answer = _run()
    assert answer.exit_code == 2
    assert "--lease-namespace" in answer.output


def test_a_label_that_is_none_is_refused_with_its_form(started: list[OperatorSettings]) -> None:
    answer = _run("--lease-namespace=sys", "--pod-monitor-label=release")
    assert answer.exit_code == 2
    assert "KEY=VALUE" in answer.output
