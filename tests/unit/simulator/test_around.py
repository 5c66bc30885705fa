"""What our operator sees when Prometheus answers late: the gates themselves, and the engines once the load rises."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from paceline.simulator.core.generators import generate
from paceline.simulator.policies.shapes import Paceline
from paceline.simulator.service import service_of
from paceline.simulator.simulation import Faults, Setting, simulate
from paceline.simulator.written_values import parse_slo


@dataclass(frozen=True, kw_only=True)
class Seen:
    attainment: float
    gpu_hours: float
    shape_changes: int


def ramped(faults: Faults) -> Seen:
    service = service_of(
        model="llama-3.1-70b",
        format="fp8",
        gpu="h200",
        sizes=(1, 2, 4, 8),
        max_gpus=32,
        slo=parse_slo("ttft=500ms,tpot=50ms,objective=99", option="--slo"),
    )
    traffic = generate("ramp", {"low": 2, "high": 24, "hours": 0.75}, seed=0)
    setting = Setting(
        timing=service.timing, goal=service.goal, max_gpus=service.max_gpus, start_s=60.0, faults=faults
    )
    first = service.first_shape(traffic, service.careful_size(traffic))
    run = simulate(traffic, setting, Paceline(timing=service.timing), first=first, seed=0)
    summary = run.summary(objective=0.99)
    assert summary.attainment is not None
    return Seen(
        attainment=summary.attainment, gpu_hours=summary.gpu_hours, shape_changes=summary.shape_changes
    )


@pytest.fixture(scope="module")
def undisturbed() -> Seen:
    return ramped(Faults())


def test_metrics_that_come_late_are_gone_around(undisturbed: Seen) -> None:
    late = ramped(Faults(lag_s=60.0))
    assert late.attainment > undisturbed.attainment - 0.02
    assert late.gpu_hours < 1.1 * undisturbed.gpu_hours


def test_pods_that_do_not_answer_cannot_be_gone_around(undisturbed: Seen) -> None:
    """Scrapes that fail for good: the first shape is held."""
    blind = ramped(Faults(metrics_gone=((0.0, 1e9),)))
    assert blind.shape_changes == 0
    assert blind.attainment < undisturbed.attainment
