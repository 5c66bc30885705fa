"""Steps are counted over all engines, those that are gone included, and nothing heard is unknown."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from e2e.load.step_lag import StepLag
from paceline_core.latency import LatencyTarget, Targets
from paceline_runtime.emulator.metrics import EngineMetrics
from paceline_runtime.launch.buckets import histogram_buckets

TARGETS = Targets(
    classes=(
        LatencyTarget(
            name="all", max_prompt_tokens=None, ttft_ms=500, ttft_per_thousand_prompt_tokens_ms=0, tpot_ms=50
        ),
    )
)


def page(*lags_s: float) -> str:
    """As an emulated engine writes it."""
    registry = CollectorRegistry()
    metrics = EngineMetrics(
        model="m",
        buckets=histogram_buckets(TARGETS, max_prompt_tokens=1000, max_model_tokens=2000),
        cache_config={"engine": "0"},
        emulated={"gpu": "h200"},
        registry=registry,
    )
    for lag_s in lags_s:
        metrics.lagged(lag_s)
    return generate_latest(registry).decode()


def test_the_page_heard_last_of_each_engine_counts() -> None:
    lag = StepLag()
    lag.hear("a", page(0.0002))
    lag.hear("a", page(*[0.0002] * 98, 0.004, 0.004))
    lag.hear("b", page(*[0.0002] * 100))
    lag.hear("b", "nothing of it")
    assert lag.steps == 200
    assert lag.share_within(0.003) == 0.99
    assert lag.percentile_s(0.99) == pytest.approx(0.0005)
    # Of the two steps beyond, half lies in the middle of their bucket.
    assert lag.percentile_s(0.995) == pytest.approx((0.003 + 0.005) / 2)


def test_nothing_heard_is_unknown() -> None:
    assert StepLag().percentile_s(0.99) is None
    assert StepLag().share_within(0.002) is None
    silent = StepLag()
    silent.hear("a", page())
    assert silent.percentile_s(0.99) is None
