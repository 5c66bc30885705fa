"""Forty real-time minutes of traffic on the real cluster, and whether they went as the simulator had said.

Emulated: Llama 3.1 70B in FP8 on H200s, with fake GPUs; API server, kubelet, scheduler, router, gate and Prometheus are
real. The machine must do nothing else: where the emulated engines' steps lag, the run is void.

    PACELINE_REPLAY_REQUESTS    a file of requests (arrival_s,prompt_tokens,output_tokens); absent: made-up traffic
    PACELINE_REPLAY_FOLDER      where the run's files go (build/replay)
    PACELINE_REPLAY_PLOT        where its picture goes (docs/replay.png)
    PACELINE_REPLAY_MINUTES     a trial: only the first so many, nothing recorded and nothing compared
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from e2e.kubectl import wait_for
from e2e.replay.played import Played, judged
from e2e.replay.plot import draw
from e2e.replay.prediction import Prediction, is_committed
from e2e.replay.scene import SCENE
from e2e.replay.traffic import Source, described, fingerprint, replay_of, traffic_of
from e2e.scenarios.conftest import ROOT
from e2e.scenarios.fleet_watch import FleetWatch
from e2e.scenarios.load import Background
from e2e.scenarios.tenant import Manifest, Tenant
from paceline.simulator.core.traffic import Traffic

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("closed_loop_as_shipped")]

START_S: Final = 120
LOOK_S: Final = 10.0

MOST_LAG_S: Final = 0.003
"""p99 over all steps of all engines."""
ATTAINMENT_MARGIN: Final = 0.005
GPU_MARGIN: Final = 0.10
LEAST_SIZE_CHANGES: Final = 2


def test_forty_minutes_go_as_predicted(
    tenant: Tenant, emulated: Callable[..., Manifest], record_scenario: Callable[..., None]
) -> None:
    requests = os.environ.get("PACELINE_REPLAY_REQUESTS")
    source = Source.of(Path(requests) if requests else None)
    prediction = Prediction.read(source.name)
    traffic = traffic_of(source, prediction.recipe)
    prediction.check(fingerprint=fingerprint(traffic), scene=SCENE)
    print(described(source, traffic, prediction.recipe))
    if trial := os.environ.get("PACELINE_REPLAY_MINUTES"):
        traffic = traffic.between(0.0, 60 * float(trial))
    else:
        assert is_committed(source.name), "commit the prediction before the run"

    played, watch = _play(tenant, service(emulated), traffic, source=source.name)
    folder = Path(os.environ.get("PACELINE_REPLAY_FOLDER", ROOT / "build" / "replay"))
    played.write(folder)
    lag_s = watch.lag.percentile_s(0.99)
    figures = _figures(played, watch, prediction, lag_s=lag_s)
    if trial:
        print(figures)
        draw(folder / "trial.png", played=played, prediction=prediction)
    else:
        record_scenario(**figures)
        plot = Path(os.environ.get("PACELINE_REPLAY_PLOT", ROOT / "docs" / "replay.png"))
        draw(plot, played=played, prediction=prediction)

    if lag_s is None or lag_s > MOST_LAG_S:
        pytest.fail(f"the run is void: the step lag at p99 is {lag_s} s, more than {MOST_LAG_S} s")
    assert played.failed == 0
    if not trial:
        _compare(played, prediction)


def service(emulated: Callable[..., Manifest]) -> Manifest:
    """The scene as a manifest."""
    return emulated(replicas=SCENE.first_replicas, **SCENE.spec())


def _play(tenant: Tenant, manifest: Manifest, traffic: Traffic, *, source: str) -> tuple[Played, FleetWatch]:
    tenant.apply(manifest)
    wait_for("Ready and measured", lambda: tenant.holds("Ready", "MetricsAvailable"), timeout_s=START_S)
    load = Background(tenant.base_url(), model=tenant.name, load=replay_of(traffic))
    watch = FleetWatch(tenant)
    by_hand = True
    with load.running():
        while (at_s := load.now_s()) < traffic.end_s:
            if by_hand and at_s >= SCENE.by_hand_s:
                tenant.change({"scaling": {"mode": "Auto"}})
                by_hand = False
            watch.look(at_s)
            time.sleep(max(0.0, min(at_s + LOOK_S, traffic.end_s) - load.now_s()))
    watch.hear(tenant.engines())
    answers = judged(load.outcome().records, traffic, SCENE.targets)
    return Played(source=source, duration_s=traffic.end_s, answers=answers, looks=watch.looks), watch


def _figures(
    played: Played, watch: FleetWatch, prediction: Prediction, *, lag_s: float | None
) -> dict[str, Any]:
    return {
        "source": played.source,
        "seed": prediction.recipe.seed,
        "predicted_at": prediction.commit,
        "requests": len(played.answers),
        "failed": played.failed,
        "first": "; ".join(sorted({one.failure[:80] for one in played.answers if one.failure}))[:300],
        "attainment_percent": _percent(played.attainment),
        "predicted_attainment_percent": _percent(prediction.attainment),
        "gpus": round(played.gpus, 3),
        "predicted_gpus": round(prediction.gpus, 3),
        "sizes": _words(played.tensor_parallel_sizes),
        "predicted_sizes": _words(prediction.tensor_parallel_sizes),
        "transitions": len(played.size_changes),
        "size_changes": [f"{one.at_s:.0f} s: TP{one.before} to TP{one.after}" for one in played.size_changes],
        "reasons": [watch.size_reasons[at] for at in sorted(watch.size_reasons)],
        "step_lag_p99_ms": None if lag_s is None else round(1000 * lag_s, 2),
        "void": lag_s is None or lag_s > MOST_LAG_S,
        "start_s_median": round(statistics.median(watch.starts_s.values()), 1) if watch.starts_s else None,
        "looks_missed": watch.missed,
    }


def _compare(played: Played, prediction: Prediction) -> None:
    assert played.attainment is not None
    assert played.attainment >= prediction.attainment - ATTAINMENT_MARGIN
    assert played.gpus == pytest.approx(prediction.gpus, rel=GPU_MARGIN)
    assert played.tensor_parallel_sizes == prediction.tensor_parallel_sizes
    assert len(played.size_changes) >= LEAST_SIZE_CHANGES
    # Because the mix shifted: to another size while it had, and back after it.
    first, *_, last = played.size_changes
    shift = prediction.recipe.shift
    assert shift.from_s <= first.at_s < shift.until_s <= last.at_s


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _words(sizes: tuple[int, ...]) -> str:
    return " → ".join(f"TP{size}" for size in sizes)
