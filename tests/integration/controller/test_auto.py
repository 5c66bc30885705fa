"""Auto on a real API server, with a real operator process and a real Prometheus: the loop closes, and what is
unknown moves nothing. Pods are not run; what their metrics pages say is made here (`load_page`)."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from paceline.cli import main
from tests.integration.controller.cluster import Cluster, Raw, eventually, service
from tests.integration.controller.kubelet import kubelet
from tests.integration.controller.load_page import LoadPage, load_page
from tests.integration.controller.operators import Operator, Operators, bury
from tests.integration.metrics.prometheus_server import PrometheusServer

pytestmark = pytest.mark.apiserver

PERIOD_S, WINDOW_S = 1, 12
WITHIN_S = 300
"""What takes seconds on an idle machine may take minutes on a busy one; only a test that fails waits for so long."""

CALM_S = 3.0
"""How long what stays is watched: three looks of the operator."""

ONE, MANY = 2.0, 16.0
"""Requests a second that one replica carries, and that it does not: 8 at a time, 1.3 s each."""


def chat(mode: str, *, node: str, **scaling: Any) -> Raw:
    made = service(
        "chat",
        accelerator={"resourceName": "nvidia.com/gpu", "nodeSelector": {"test": node}},
        runtime={"maxSequences": 8, "emulation": {"stepMilliseconds": 20, "startSeconds": 0}},
        admission={"maxRequestSeconds": 60, "maxOutputTokens": 300},
    )
    made["spec"]["scaling"] |= {
        "mode": mode,
        "replicaBounds": {"min": 1, "max": 6},
        "allowedTensorParallelSizes": [1],
        "scaleDown": {"stabilizationSeconds": 5},
        **scaling,
    }
    return made


def start(operators: Operators, prometheus: PrometheusServer, *options: str) -> Operator:
    return operators.start(
        f"--prometheus-url={prometheus.url}",
        f"--decision-period-seconds={PERIOD_S}",
        f"--metrics-window-seconds={WINDOW_S}",
        *options,
        lease_s=20,
    ).await_leading()


def status(cluster: Cluster) -> Raw:
    return (cluster.get("InferenceService", "chat") or {}).get("status") or {}


def replicas(cluster: Cluster) -> int:
    return sum(one["spec"]["replicas"] for one in cluster.engines("chat").values())


def metrics_available(cluster: Cluster, service: str = "chat") -> str | None:
    return cluster.condition(service, "MetricsAvailable").get("status")


def settled(cluster: Cluster, *, at_least: int) -> int:
    """The replicas, once they are so many and stay the same for longer than a rise pauses."""
    before, since_s = 0, time.monotonic()

    def calm(count: int) -> bool:
        nonlocal before, since_s
        if count != before:
            before, since_s = count, time.monotonic()
        return count >= at_least and time.monotonic() - since_s > 4 * CALM_S

    return eventually(lambda: replicas(cluster), within_s=WITHIN_S, holds=calm)


def measured(cluster: Cluster, load: LoadPage, *, rate_per_s: float = ONE) -> None:
    """One Ready replica under a load that it carries, and its metrics are known."""
    load.rate_per_s = rate_per_s
    eventually(lambda: metrics_available(cluster) == "True", within_s=WITHIN_S)


def test_auto_goes_up_with_the_load_and_down_with_it(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str, tmp_path: Path
) -> None:
    operator = start(operators, prometheus)
    cluster.create("InferenceService", chat("Auto", node=node))
    with kubelet(cluster), load_page(cluster, prometheus, service="chat") as load:
        measured(cluster, load)
        assert replicas(cluster) == 1
        load.rate_per_s = MANY
        eventually(lambda: replicas(cluster), within_s=WITHIN_S, holds=lambda n: n >= 3)
        eventually(
            lambda: status(cluster)["shape"]["current"]["replicas"],
            within_s=WITHIN_S,
            holds=lambda n: n >= 3,
        )
        load.rate_per_s = ONE
        eventually(lambda: replicas(cluster), within_s=WITHIN_S, holds=lambda n: n == 1)
        eventually(lambda: len(cluster.engines("chat")) == 1, within_s=WITHIN_S)
        decisions = status(cluster)["decisions"]
        shapes = [one["shape"]["replicas"] for one in decisions]
        assert max(shapes) >= 3
        assert shapes[0] == 1
        assert {one["mode"] for one in decisions} == {"Auto"}
        scaled = [one["reason"] for one in cluster.events("chat")]
        assert "ScaledUp" in scaled
        assert "ScaledDown" in scaled
        assert cluster.condition("chat", "ScalingActive")["status"] == "True"
        assert cluster.condition("chat", "SLOMet")["status"] == "True"
        assert status(cluster)["summary"]["timeToFirstToken"].startswith("50/") or (
            "/2000ms" in status(cluster)["summary"]["timeToFirstToken"]
        )
        page = operator.scrape()
        assert any(name.startswith("paceline_decision_looks_total") for name in page)
        _explain(cluster)
        _plan_record_replay(cluster, prometheus, tmp_path, node=node)


def _explain(cluster: Cluster) -> None:
    """The commands that a person would type next."""
    where = ["--kubeconfig", str(cluster.plane.kubeconfig), "-n", cluster.namespace]
    explained = CliRunner().invoke(main, ["explain", "chat", *where, "--last", "10"])
    assert explained.exit_code == 0, explained.output
    assert "requests/s" in explained.output
    assert "candidate" in explained.output
    raw = CliRunner().invoke(main, ["explain", "chat", *where, "--json"])
    assert json.loads(raw.output)[0]["shape"]["replicas"] == 1
    top = CliRunner().invoke(main, ["top", *where])
    assert top.exit_code == 0, top.output
    assert "1xTP1" in top.output


def _plan_record_replay(cluster: Cluster, prometheus: PrometheusServer, folder: Path, *, node: str) -> None:
    """They see what the operator sees, and write nothing."""
    where = ["--kubeconfig", str(cluster.plane.kubeconfig), "-n", cluster.namespace]
    before = (cluster.get("InferenceService", "chat") or {})["metadata"]["generation"]
    file, seen = folder / "chat.yaml", folder / "seen.jsonl"
    edited = chat("Auto", node=node)
    # Whatever load the command's own window still holds.
    edited["spec"]["scaling"]["replicaBounds"] = {"min": 2, "max": 2}
    file.write_text(json.dumps(edited))
    planned = CliRunner().invoke(main, ["plan", "-f", str(file), *where, "--prometheus-url", prometheus.url])
    assert planned.exit_code == 0, planned.output
    assert "the planner: 2×TP1" in planned.output
    assert "1 to 2 replicas" in planned.output
    recorded = CliRunner().invoke(
        main,
        ["record", "chat", *where, "-o", str(seen), "--prometheus-url", prometheus.url, "--seconds", "2",
         "--period-seconds", "1"],
    )  # fmt: skip
    assert recorded.exit_code == 0, recorded.output
    replayed = CliRunner().invoke(main, ["replay", str(seen), "--all"])
    assert replayed.exit_code == 0, replayed.output
    assert replayed.output.count("1xTP1") >= 2
    assert (cluster.get("InferenceService", "chat") or {})["metadata"]["generation"] == before
    assert replicas(cluster) == 1


def test_advisory_says_what_it_would_do_and_changes_nothing(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str
) -> None:
    start(operators, prometheus)
    cluster.create("InferenceService", chat("Advisory", node=node))
    with kubelet(cluster), load_page(cluster, prometheus, service="chat") as load:
        measured(cluster, load, rate_per_s=MANY)
        eventually(
            lambda: [one["shape"]["replicas"] for one in status(cluster).get("decisions", [])],
            within_s=WITHIN_S,
            holds=lambda found: bool(found) and found[0] >= 3,
        )
        before = {name: one["metadata"]["generation"] for name, one in cluster.engines("chat").items()}
        time.sleep(CALM_S)
        assert replicas(cluster) == 1
        assert {
            name: one["metadata"]["generation"] for name, one in cluster.engines("chat").items()
        } == before
        # Handed over, the same decision is followed.
        cluster.patch("InferenceService", "chat", {"spec": {"scaling": {"mode": "Auto"}}})
        eventually(lambda: replicas(cluster), within_s=WITHIN_S, holds=lambda n: n >= 3)
        # And back by hand, with the numbers that the condition names, without a jump.
        held = settled(cluster, at_least=3)
        generation = next(iter(cluster.engines("chat").values()))["metadata"]["generation"]
        manual = {"mode": "Manual", "replicas": held, "tensorParallelSize": 1}
        cluster.patch("InferenceService", "chat", {"spec": {"scaling": manual}})
        load.rate_per_s = ONE
        time.sleep(CALM_S)
        assert next(iter(cluster.engines("chat").values()))["metadata"]["generation"] == generation


def test_without_prometheus_the_shape_is_held_and_the_condition_says_why(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str
) -> None:
    start(operators, prometheus)
    cluster.create("InferenceService", chat("Auto", node=node))
    with kubelet(cluster), load_page(cluster, prometheus, service="chat") as load:
        measured(cluster, load)
        asyncio.run(prometheus.end())
        load.rate_per_s = MANY
        eventually(
            lambda: cluster.condition("chat", "MetricsAvailable").get("reason"),
            within_s=WITHIN_S,
            holds=lambda reason: reason == "PrometheusUnreachable",
        )
        time.sleep(CALM_S)
        assert replicas(cluster) == 1
        assert status(cluster)["summary"]["timeToFirstToken"].startswith("-/")
        prometheus.start()
        eventually(lambda: replicas(cluster), within_s=WITHIN_S, holds=lambda n: n >= 3)
        eventually(lambda: metrics_available(cluster) == "True", within_s=WITHIN_S)


def test_an_operator_that_is_killed_again_and_again_ends_at_the_same_shape(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str
) -> None:
    operator = start(operators, prometheus)
    cluster.create("InferenceService", chat("Auto", node=node))
    with kubelet(cluster), load_page(cluster, prometheus, service="chat") as load:
        measured(cluster, load)
        load.rate_per_s = MANY
        for life_s in (1.0, 1.7, 2.4, 3.1, 3.8):
            time.sleep(life_s)
            bury(cluster, operator)
            operator = start(operators, prometheus)
        settled(cluster, at_least=3)
        assert len(cluster.engines("chat")) == 1
        # What the first one learned is known to the last.
        kept = cluster.get("ConfigMap", "chat-decisions")
        assert kept is not None
        assert json.loads(kept["data"]["state.json"])["startSeconds"]["1"]


def test_an_override_holds_until_it_expires(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str
) -> None:
    start(operators, prometheus)
    override = {
        "replicas": 2,
        "tensorParallelSize": 1,
        "expiresAt": in_future(3600),
        "reason": "a launch",
    }
    cluster.create("InferenceService", chat("Auto", node=node, override=override))
    with kubelet(cluster), load_page(cluster, prometheus, service="chat") as load:
        measured(cluster, load, rate_per_s=MANY)
        eventually(lambda: replicas(cluster) == 2, within_s=WITHIN_S)
        assert cluster.condition("chat", "ScalingActive")["reason"] == "Override"
        until = in_future(5)
        cluster.patch("InferenceService", "chat", {"spec": {"scaling": {"override": {"expiresAt": until}}}})
        eventually(lambda: replicas(cluster), within_s=WITHIN_S, holds=lambda n: n >= 3)
        assert in_future(0) >= until


def in_future(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
