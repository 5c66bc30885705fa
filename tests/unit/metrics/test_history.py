"""The pods' own pages: what a line means, and rates between two looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from paceline.metrics.history import PodHistory
from paceline.metrics.page import values
from paceline.metrics.readings import Readings


def page(**changes: str) -> str:
    lines = {
        "paceline_gate_arrivals_total": "10",
        "paceline_gate_held_requests": "2",
        'paceline_requests_total{latency_class="all",outcome="good"}': "5",
        'paceline_requests_total{latency_class="all",outcome="late_ttft"}': "1",
        'paceline_requests_total{latency_class="all",outcome="client_error"}': "1",
        "paceline_requests_in_flight": "3",
        'vllm:num_requests_running{engine="0",model_name="m"}': "4",
        'vllm:num_requests_running{engine="1",model_name="m"}': "2",
        'vllm:kv_cache_usage_perc{engine="0",model_name="m"}': "0.5",
        'vllm:gpu_cache_usage_perc{engine="0",model_name="m"}': "0.9",
        'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"}': "1",
        'vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"}': "1",
        'vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"}': "2",
        'vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"}': "0.3",
        "process_cpu_seconds_total": "7",
    } | changes
    return "# HELP something\n" + "\n".join(f"{name} {value}" for name, value in lines.items()) + "\n"


@dataclass
class Looks:
    history: PodHistory
    now_s: float = 0.0

    def add(self, at_s: float, **changes: str) -> None:
        self.now_s = at_s
        self.history.add(at_s, values(page(**changes)))

    def read(self, *, size: int | None = 2) -> Readings:
        readings = Readings()
        self.history.add_to(readings, pod="p", size=size, now_s=self.now_s + 1)
        return readings


@pytest.fixture
def looks() -> Looks:
    return Looks(PodHistory(window_s=60))


def test_gauges_are_known_at_the_first_look_and_rates_at_the_second(looks: Looks) -> None:
    looks.add(100)
    first = looks.read()
    assert first.pods["p"] == {
        "age_s": 1.0,
        "held": 2.0,
        "running": 6.0,
        "kv_cache_usage": 0.5,
        "kv_cache_tokens": 16_000.0,
    }
    assert first.rates == {}
    looks.add(110, paceline_gate_arrivals_total="30")
    assert looks.read().rates["arrivals", 2] == 2.0


def test_each_outcome_counts_where_it_belongs(looks: Looks) -> None:
    looks.add(100)
    looks.add(
        110,
        **{
            'paceline_requests_total{latency_class="all",outcome="good"}': "25",
            'paceline_requests_total{latency_class="all",outcome="late_ttft"}': "11",
            'paceline_requests_total{latency_class="all",outcome="client_error"}': "11",
            "paceline_requests_in_flight": "1",
        },
    )
    rates = looks.read().rates
    assert (rates["good", 2], rates["judged", 2], rates["counted", 2]) == (2.0, 3.0, 4.0)
    assert rates["in_flight_change", 2] == pytest.approx(-0.2)


def test_a_counter_that_began_anew_counts_from_zero(looks: Looks) -> None:
    looks.add(100, paceline_gate_arrivals_total="1000")
    looks.add(110, paceline_gate_arrivals_total="1010")
    looks.add(120, paceline_gate_arrivals_total="5")
    looks.add(130, paceline_gate_arrivals_total="15")
    assert looks.read().rates["arrivals", 2] == pytest.approx(25 / 30)


def test_only_the_window_counts(looks: Looks) -> None:
    for step in range(20):
        looks.add(100 + 10 * step, paceline_gate_arrivals_total=str(10 * min(step, 13)))
    # From 230 to 290 nothing came.
    assert looks.read().rates["arrivals", 2] == 0.0


def test_buckets_and_their_sum_become_rates(looks: Looks) -> None:
    bucket = 'vllm:time_to_first_token_seconds_bucket{engine="0",le="%s",model_name="m"}'
    looks.add(100)
    looks.add(
        110,
        **{
            bucket % "0.1": "11",
            bucket % "+Inf": "22",
            'vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"}': "2.3",
        },
    )
    readings = looks.read()
    assert readings.histograms["ttft", 2] == {0.1: 1.0, math.inf: 2.0}
    assert readings.rates["ttft_sum", 2] == pytest.approx(0.2)


def test_an_older_name_counts_where_the_newer_is_not(looks: Looks) -> None:
    """With both on a page, as `page()` has them, the newer counts alone: the first test says so."""
    looks.history.add(100, values('vllm:gpu_cache_usage_perc{engine="0"} 0.9\n'))
    assert looks.read().pods["p"]["kv_cache_usage"] == 0.9


@pytest.mark.parametrize(
    "broken", ["", "\x00\x01", "paceline_gate_arrivals_total", "paceline_gate_arrivals_total x"]
)
def test_a_broken_page_is_no_number(broken: str) -> None:
    found = values(broken)
    assert not found or math.isnan(found["paceline_gate_arrivals_total"])
