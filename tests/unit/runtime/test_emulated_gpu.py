"""An emulated GPU takes the time that its table says: on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from paceline_core import Targets, load_table
from paceline_core.batch import Batch
from paceline_core.timing import StepTiming
from paceline_runtime.emulator.cache_config import cache_config_labels
from paceline_runtime.emulator.current import Current
from paceline_runtime.emulator.engine import Engine, QueueFull, QueueLimits
from paceline_runtime.emulator.engine_request import EngineRequest
from paceline_runtime.emulator.metrics import EngineMetrics
from paceline_runtime.emulator.pace import SLOW_FACTOR, Pace
from paceline_runtime.launch.buckets import histogram_buckets
from paceline_runtime.launch.emulation import Conditions
from tests.unit.runtime.pod import target

H200 = load_table("llama-3.1-70b", "fp8", "h200").by_tensor_parallel_size[4]


@dataclass
class Timed(EngineRequest):
    """A request that remembers when each of its tokens came."""

    at_s: list[float] = field(default_factory=list)

    def __hash__(self) -> int:
        return id(self)

    @property
    def ttft_s(self) -> float:
        return self.at_s[0] - self.arrived_s

    @property
    def gaps_s(self) -> list[float]:
        return [after - before for before, after in zip(self.at_s, self.at_s[1:], strict=False)]


def request(name: str = "a", *, prompt: int, output: int, arrives_s: float = 0.0, cached: int = 0) -> Timed:
    return Timed(
        request_id=name,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
        finish_reason="length",
        arrived_s=arrives_s,
    )


class Gpu:
    """An engine whose steps take no time but that of the clock."""

    def __init__(
        self,
        timing: StepTiming = H200,
        *,
        conditions: Conditions | None = None,
        seed: int = 0,
        max_sequences: int = 256,
        max_unfinished: int = 1000,
        max_queued_tokens: int = 1 << 30,
    ) -> None:
        self.now_s = 0.0
        self.registry = CollectorRegistry()
        metrics = EngineMetrics(
            model="m",
            buckets=histogram_buckets(
                Targets(classes=(target(),)), max_prompt_tokens=1000, max_model_tokens=2000
            ),
            cache_config=cache_config_labels(kv_cache_tokens=timing.kv_cache_tokens, prefix_caching=True),
            emulated={"gpu": "h200"},
            registry=self.registry,
        )
        self.current = Current(conditions or Conditions(), clock=lambda: self.now_s)
        self.engine = Engine(
            Batch(kv_cache_tokens=timing.kv_cache_tokens, max_sequences=max_sequences),
            Pace(timing, self.current, seed=seed),
            limits=QueueLimits(max_unfinished=max_unfinished, max_queued_tokens=max_queued_tokens),
            prefix_caching=True,
            metrics=metrics.ranks[0],
            on_work=lambda _: None,
        )

    def run(self, requests: Iterable[Timed], *, until_s: float = float("inf")) -> None:
        """Each is admitted at its time, between two steps."""
        coming = sorted(requests, key=lambda one: one.arrived_s)
        inside: list[Timed] = []
        while (coming or self.engine.unfinished()) and self.now_s < until_s:
            if not self.engine.unfinished():
                self.now_s = max(self.now_s, coming[0].arrived_s)
            while coming and coming[0].arrived_s <= self.now_s:
                inside.append(coming.pop(0))
                self.engine.admit(inside[-1])
            self.now_s += self.engine.begin_step(self.now_s)
            self.engine.end_step(self.now_s)
            for one in inside:
                if one.produced > len(one.at_s):
                    one.at_s.append(self.now_s)

    def metric(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, {"model_name": "m", "engine": "0", **labels})
        assert value is not None, name
        return value


def decode_s(timing: StepTiming, *, decodes: int, context: float) -> float:
    return timing.step_s(decodes=decodes, decode_context_tokens=context)


def test_a_lone_request_has_the_latencies_of_the_table() -> None:
    one = request(prompt=1000, output=50)
    Gpu().run([one])
    assert one.ttft_s == pytest.approx(H200.step_s(prefills=[(1000, 0)]))
    expected = [decode_s(H200, decodes=1, context=1000 + made) for made in range(1, 50)]
    assert one.gaps_s == pytest.approx(expected)


def test_a_higher_size_is_faster() -> None:
    sizes = load_table("llama-3.1-70b", "fp8", "h200").by_tensor_parallel_size
    ttfts = []
    for size in sorted(sizes):
        one = request(prompt=4000, output=2)
        Gpu(sizes[size]).run([one])
        ttfts.append(one.ttft_s)
    assert ttfts == sorted(ttfts, reverse=True)


def test_sequences_in_a_batch_slow_each_other_as_the_table_says() -> None:
    many = [request(f"r{number}", prompt=100, output=20) for number in range(32)]
    Gpu().run(many)
    assert many[0].ttft_s == pytest.approx(H200.step_s(prefills=[(100, 0)] * 32))
    assert many[0].gaps_s[0] == pytest.approx(decode_s(H200, decodes=32, context=32 * 101))
    assert all(one.at_s == many[0].at_s for one in many)


def test_a_long_prompt_is_cut_into_chunks_that_delay_the_decodes() -> None:
    talking = request("talking", prompt=100, output=200)
    long = request("long", prompt=20_000, output=2, arrives_s=0.5)
    Gpu().run([talking, long])
    slow = [gap_s for gap_s in talking.gaps_s if gap_s > 0.1]
    assert len(slow) == 3  # 20,000 tokens, at most 8192 in a step
    before = sum(at_s <= 0.5 + talking.gaps_s[0] for at_s in talking.at_s)
    first = H200.step_s(prefills=[(8191, 0)], decodes=1, decode_context_tokens=100 + before)
    assert slow[0] == pytest.approx(first, rel=0.001)
    assert long.ttft_s == pytest.approx(sum(slow), abs=2 * talking.gaps_s[0])


def test_a_full_kv_cache_makes_the_next_wait_for_one_to_finish() -> None:
    gpu = Gpu(replace(H200, kv_cache_tokens=4096))
    first, second = request("a", prompt=3000, output=50), request("b", prompt=3000, output=5)
    gpu.run([first, second])
    assert second.at_s[0] > first.at_s[-1]
    assert gpu.metric("vllm:request_queue_time_seconds_sum") == pytest.approx(first.at_s[-1])
    assert gpu.metric("vllm:num_preemptions_total") == 0


def test_a_sequence_that_loses_its_place_computes_again_and_is_counted() -> None:
    gpu = Gpu(replace(H200, kv_cache_tokens=2048))
    first, second = request("a", prompt=900, output=500), request("b", prompt=900, output=500)
    gpu.run([first, second])
    assert gpu.metric("vllm:num_preemptions_total") == 1
    assert (first.produced, second.produced) == (500, 500)
    assert max(second.gaps_s) > max(first.gaps_s)
    assert gpu.engine.kv_cache_usage == 0


def test_a_prefix_that_the_cache_holds_is_not_computed() -> None:
    gpu = Gpu()
    one = request(prompt=1600, output=2, cached=810)
    gpu.run([one])
    assert one.ttft_s == pytest.approx(H200.step_s(prefills=[(800, 800)]))  # whole blocks of 16
    assert gpu.metric("vllm:prefix_cache_queries_total") == 1600
    assert gpu.metric("vllm:prefix_cache_hits_total") == 800


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        pytest.param({"max_unfinished": 2}, "max_num_queued_reqs", id="requests"),
        pytest.param({"max_queued_tokens": 150}, "max_num_queued_tokens", id="tokens"),
    ],
)
def test_a_queue_limit_refuses(limits: dict[str, int], reason: str) -> None:
    engine = Gpu(H200, **limits).engine  # type: ignore[arg-type]
    engine.admit(request("a", prompt=100, output=1))
    engine.admit(request("b", prompt=100, output=1))
    with pytest.raises(QueueFull, match=reason):
        engine.admit(request("c", prompt=100, output=1))


def test_a_request_that_is_aborted_in_the_middle_of_a_step_leaves_nothing_behind() -> None:
    gpu = Gpu()
    one = request(prompt=100, output=10)
    gpu.engine.admit(one)
    gpu.engine.begin_step(0.0)
    gpu.engine.abort(one)
    gpu.engine.end_step(0.1)
    assert (gpu.engine.unfinished(), gpu.engine.kv_cache_usage, one.produced) == (0, 0, 0)
    assert gpu.metric("vllm:request_success_total", finished_reason="abort") == 1


def test_kappa_scales_the_gpu_and_delta_replaces_the_host() -> None:
    one = request(prompt=1000, output=2)
    Gpu(conditions=Conditions(kappa=1.2, delta_s=0.004)).run([one])
    gpu_s = H200.step_s(prefills=[(1000, 0)]) - H200.overhead_s
    assert one.ttft_s == pytest.approx(1.2 * gpu_s + 0.004)


def test_a_slow_gpu_takes_five_times_as_long_until_it_is_told_otherwise() -> None:
    gpu = Gpu(conditions=Conditions(fault="Slow"))
    slow, well = request("a", prompt=1000, output=1), request("b", prompt=1000, output=1)
    gpu.run([slow])
    gpu.current.change(Conditions())
    well.arrived_s = gpu.now_s
    gpu.run([well])
    assert SLOW_FACTOR == 5
    assert slow.ttft_s == pytest.approx(5 * well.ttft_s)


def test_drift_moves_kappa_from_when_it_was_set() -> None:
    gpu = Gpu(conditions=Conditions(kappa=2, drift_per_hour=0.1))
    gpu.now_s = 1800
    assert gpu.current.kappa == pytest.approx(2.1)
    gpu.current.change(Conditions(drift_per_hour=-0.5))
    assert gpu.current.kappa == pytest.approx(1)
    gpu.now_s += 3600 * 10
    assert gpu.current.kappa == 0


def test_noise_is_the_same_for_the_same_seed_and_one_in_the_mean() -> None:
    def gaps_s(**settings: Any) -> list[float]:
        one = request(prompt=16, output=2000)
        Gpu(**settings).run([one])
        return one.gaps_s

    quiet, noisy = gaps_s(), gaps_s(conditions=Conditions(noise=0.1), seed=7)
    assert noisy == gaps_s(conditions=Conditions(noise=0.1), seed=7)
    assert noisy != gaps_s(conditions=Conditions(noise=0.1), seed=8)
    ratios = [a / b for a, b in zip(noisy, quiet, strict=True)]
    assert fmean(ratios) == pytest.approx(1, abs=0.01)
    assert fmean((ratio - 1) ** 2 for ratio in ratios) ** 0.5 == pytest.approx(0.1, rel=0.1)


def test_the_metrics_tell_what_happened() -> None:
    gpu = Gpu()
    requests = [request(f"r{number}", prompt=100, output=11) for number in range(3)]
    gpu.run(requests)
    assert gpu.metric("vllm:prompt_tokens_total") == 300
    assert gpu.metric("vllm:generation_tokens_total") == 33
    assert gpu.metric("vllm:request_success_total", finished_reason="length") == 3
    assert gpu.metric("vllm:time_to_first_token_seconds_sum") == pytest.approx(3 * requests[0].ttft_s)
    assert gpu.metric("vllm:inter_token_latency_seconds_count") == 30
    assert gpu.metric("vllm:inter_token_latency_seconds_sum") == pytest.approx(3 * sum(requests[0].gaps_s))
    assert gpu.metric("vllm:iteration_tokens_total_sum") == 300 + 30
    assert gpu.metric("vllm:iteration_tokens_total_count") == 11
    assert gpu.metric("vllm:request_time_per_output_token_seconds_sum") == pytest.approx(
        3 * fmean(requests[0].gaps_s)
    )
    assert gpu.metric("vllm:e2e_request_latency_seconds_sum") == pytest.approx(3 * requests[0].at_s[-1])
