"""Every rival as it runs: what it does when it sees nothing, everything, or a service that sleeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from paceline.simulator.policies.catalog import RIVALS, Engine
from paceline.simulator.policies.sight import ReplicaSample, Rival
from paceline_core.timing import StepTiming

NAMES = (
    "aibrix-apa",
    "dynamo-load",
    "dynamo-sla",
    "hpa-concurrency",
    "hpa-kv",
    "hpa-queue",
    "keda",
    "knative",
    "llmd-slo",
    "ray-ongoing",
    "ray-ttft",
    "wva-queue",
    "wva-v1",
    "wva-v2",
)

ENGINE = Engine(
    timing=StepTiming(
        knot_tokens=(1, 8192),
        knot_s=(0.008, 0.4),
        prefill_attention_s=1e-9,
        decode_attention_s=2e-8,
        kv_cache_tokens=400_000,
    ),
    ttft_target_s=1.0,
    tpot_target_s=0.05,
    max_replicas=12,
    max_sequences=256,
    max_batched_tokens=8192,
)


@dataclass
class Look:
    """A sight whose every figure is written down."""

    now_s: float = 0.0
    asked: int = 2
    ready: int = 2
    held: float = 0.0
    sample: ReplicaSample | None = None
    rate: float | None = None
    lengths: tuple[float, float] | None = None
    latency_s: tuple[float, float] | None = None

    def samples(self) -> Sequence[ReplicaSample]:
        return [self.sample] * self.ready if self.sample else []

    def requests_per_s(self, window_s: float) -> float | None:
        return self.rate

    def prompt_tokens(self, window_s: float) -> float | None:
        return self.lengths and self.lengths[0]

    def output_tokens(self, window_s: float) -> float | None:
        return self.lengths and self.lengths[1]

    def ttft_s(self, quantile: float, window_s: float) -> float | None:
        return self.latency_s and self.latency_s[0]

    def tpot_s(self, quantile: float, window_s: float) -> float | None:
        return self.latency_s and self.latency_s[1]

    def mean_ttft_s(self, window_s: float) -> float | None:
        return self.latency_s and self.latency_s[0]

    def mean_tpot_s(self, window_s: float) -> float | None:
        return self.latency_s and self.latency_s[1]

    def mean_request_s(self, window_s: float) -> float | None:
        return self.latency_s and self.latency_s[0] + 200 * self.latency_s[1]


OVERLOADED = Look(
    sample=ReplicaSample(running=256, waiting=80, kv_usage=0.99),
    rate=60.0,
    lengths=(1200.0, 200.0),
    latency_s=(9.0, 0.12),
)

IDLE = Look(
    sample=ReplicaSample(running=0.2, waiting=0, kv_usage=0.001),
    rate=0.05,
    lengths=(1200.0, 200.0),
    latency_s=(0.1, 0.01),
)


def _run(rival: Rival, look: Look, *, seconds: float) -> list[int]:
    asked = []
    for tick in range(int(seconds / rival.period_s) + 1):
        look.now_s = tick * rival.period_s
        look.asked = min(max(rival.replicas(look), 1), ENGINE.max_replicas)
        look.ready = look.asked
        asked.append(look.asked)
    return asked


def _rival(name: str) -> Rival:
    entry = RIVALS[name]
    return entry.build(ENGINE, {knob.name: knob.default for knob in entry.knobs})


def test_the_catalog_holds_the_names_of_the_command_line() -> None:
    assert tuple(sorted(RIVALS)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_rival_that_sees_nothing_does_nothing(name: str) -> None:
    assert set(_run(_rival(name), Look(), seconds=1800)) == {2}


@pytest.mark.parametrize("name", NAMES)
def test_a_rival_adds_replicas_under_overload(name: str) -> None:
    asked = _run(_rival(name), Look(**vars(OVERLOADED)), seconds=900)
    assert asked[-1] > 2
    assert asked == sorted(asked)


@pytest.mark.parametrize("name", NAMES)
def test_a_rival_gives_replicas_back_when_idle(name: str) -> None:
    asked = _run(
        _rival(name),
        Look(
            **vars(IDLE),
        ),
        seconds=3600,
    )
    assert asked[-1] == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_rung_of_every_ladder_builds(name: str) -> None:
    entry = RIVALS[name]
    defaults = {knob.name: knob.default for knob in entry.knobs}
    for knob in entry.knobs:
        for rung in knob.ladder:
            rival = entry.build(ENGINE, {**defaults, knob.name: rung})
            assert rival.replicas(Look(**vars(OVERLOADED))) >= 1
