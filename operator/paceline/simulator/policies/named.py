"""Policies by the names of the command line: `paceline`, its rivals, and shapes that stand still."""

from __future__ import annotations

from collections.abc import Mapping

from paceline.planner import Shape
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.policies.catalog import RIVALS
from paceline.simulator.policies.knob import Knob, Settings
from paceline.simulator.policies.shapes import OneSize, Paceline, Still
from paceline.simulator.service import Service
from paceline.simulator.simulation import Policy
from paceline_core.timing import StepTiming

OURS = "paceline"
OURS_FIXED = "paceline-fixed-tp"
STATIC_PEAK = "static-peak"
STATIC_BEST = "static-best"
STANDING = (STATIC_PEAK, STATIC_BEST)
"""One shape for the whole run, found on the very traffic that is judged; they have no dials."""

NAMES = (
    OURS, OURS_FIXED, STATIC_PEAK, STATIC_BEST, "hpa-queue", "hpa-kv", "hpa-concurrency", "keda", "knative",
    "aibrix-apa", "ray-ongoing", "ray-ttft", "llmd-slo", "wva-v1", "wva-v2", "wva-queue", "dynamo-sla",
    "dynamo-load",
)  # fmt: skip

SIZE_KNOB = "tp"

_BUDGET = Knob(name="budget_share", ladder=(2.0, 1.5, 1.25, 1.1, 1.0, 0.85, 0.7, 0.5, 0.35, 0.2), default=1.0)
"""The share of the error budget that the planner is told it may use: what we ask it is 1 − share·(1 − objective)."""


def knobs_of(name: str, service: Service, traffic: Traffic) -> tuple[Knob, ...]:
    """The first one draws the frontier. Rivals' tensor-parallel size is tuned like any other dial."""
    if name in (OURS, OURS_FIXED):
        return (_BUDGET,)
    size = Knob(
        name=SIZE_KNOB,
        ladder=tuple(float(one) for one in service.sizes),
        default=float(service.careful_size(traffic)),
    )
    return (*RIVALS[name].knobs, size)


def policy_of(
    name: str,
    service: Service,
    settings: Settings,
    *,
    prior: Mapping[int, StepTiming] | None = None,
    sizes: tuple[int, ...] | None = None,
) -> Policy:
    """`prior`: what our planner believes of the engines, if that is not the truth. `sizes`: of those it may use."""
    if name in (OURS, OURS_FIXED):
        share = settings["budget_share"]
        asked = max(1 - share * (1 - service.slo.objective), 0.5)
        return Paceline(timing=prior or service.timing, sizes=sizes, objective=asked)
    size = int(settings[SIZE_KNOB])
    rival = RIVALS[name].build(service.engine(size), settings)
    return OneSize(rival, size=size, max_gpus=service.max_gpus)


def still(shape: Shape) -> Policy:
    return Still(shape)
