"""The simulated service by the names of the command line: model, format, GPU, sizes, targets; and who can run it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paceline.planner import Goal, Shape
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.policies.catalog import Engine
from paceline.simulator.policies.dynamo_profile import EngineProfile
from paceline.simulator.written_values import Slo, WrittenWrong
from paceline_core.timing import StepTiming
from paceline_core.timing_tables import UnknownTable, load_table

MODELS = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-32b", "gpt-oss-120b")
FORMATS = ("bf16", "fp8", "mxfp4")
GPUS = ("h100", "h200", "a100", "l40s")
GPU_SUFFIX = "_sxm"

FIRST_MINUTES_S = 300.0
FIRST_HEADROOM = 1.3
LONG_PROMPT_QUANTILE = 0.95
TESTED_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    timing: Mapping[int, StepTiming]
    """Of the sizes that are allowed and that the model fits."""
    slo: Slo
    max_gpus: int
    max_sequences: int = 256
    max_batched_tokens: int = 8192
    min_dwell_s: float = 3600.0
    cached_share: float = 0.0
    """Of a prompt, found in the prefix cache of a warm replica."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(sorted(self.timing))

    @property
    def goal(self) -> Goal:
        return Goal(
            targets=self.slo.targets,
            objective=self.slo.objective,
            allowed_tensor_parallel_sizes=self.sizes,
            min_replicas=1,
            max_replicas=max(self.max_gpus // min(self.sizes), 1),
            max_gpus=self.max_gpus,
            max_sequences=self.max_sequences,
            max_batched_tokens=self.max_batched_tokens,
            min_dwell_s=self.min_dwell_s,
        )

    def engine(self, size: int) -> Engine:
        """For the rivals, which know one pair of targets: that of the first class."""
        target = self.slo.targets.classes[0]
        return Engine(
            timing=self.timing[size],
            ttft_target_s=target.ttft_target_s(0),
            tpot_target_s=target.tpot_target_s,
            max_replicas=self.most_replicas(size),
            max_sequences=self.max_sequences,
            max_batched_tokens=self.max_batched_tokens,
        )

    def most_replicas(self, size: int) -> int:
        """A replica stays on one node of 8 GPUs."""
        whole, rest = divmod(self.max_gpus, 8)
        return whole * (8 // size) + rest // size

    def profile(self, size: int) -> EngineProfile:
        return self.engine(size).profile

    def careful_size(self, traffic: Traffic) -> int:
        """What a careful user deploys with: the size that carries the most requests per GPU in a load test of one
        replica, with long prompts (p95) and a fifth of each target left over. None passes: the largest."""
        if not len(traffic):
            return min(self.sizes)
        prompt = float(np.quantile(traffic.prompt_tokens, LONG_PROMPT_QUANTILE))
        target = self.slo.targets.classify(round(prompt))
        per_gpu = {
            size: self.profile(size).tested_requests_per_s(
                isl=float(traffic.prompt_tokens.mean()),
                osl=float(traffic.output_tokens.mean()),
                long_prompt=prompt,
                ttft_target_s=TESTED_SHARE * target.ttft_target_s(round(prompt)),
                itl_target_s=TESTED_SHARE * target.tpot_target_s,
            )
            / size
            for size in self.sizes
        }
        best = max(self.sizes, key=lambda size: (per_gpu[size], -size))
        return best if per_gpu[best] > 0 else max(self.sizes)

    def first_shape(self, traffic: Traffic, size: int) -> Shape:
        """What stands when the run begins, the same for every policy of this size: enough for the first minutes."""
        early = int((traffic.arrival_s < FIRST_MINUTES_S).sum()) / min(FIRST_MINUTES_S, traffic.end_s)
        if not len(traffic):
            return Shape(tensor_parallel_size=size, replicas=1)
        target = self.slo.targets.classes[0]
        each = self.profile(size).requests_per_s(
            isl=float(traffic.prompt_tokens.mean()),
            osl=float(traffic.output_tokens.mean()),
            ttft_target_s=target.ttft_target_s(0),
            itl_target_s=target.tpot_target_s,
        )
        wanted = math.ceil(FIRST_HEADROOM * early / each)
        return Shape(tensor_parallel_size=size, replicas=min(max(wanted, 1), self.most_replicas(size)))


def service_of(
    *, model: str, format: str, gpu: str, sizes: tuple[int, ...], max_gpus: int, slo: Slo
) -> Service:
    """From written names. WrittenWrong names the option that has to change."""
    for option, value, known in (
        ("--model", model, MODELS),
        ("--format", format, FORMATS),
        ("--gpu", gpu.removesuffix(GPU_SUFFIX), GPUS),
    ):
        if value not in known:
            raise WrittenWrong(option, f"{value!r} is not known: write one of {', '.join(known)}")
    try:
        table = load_table(model, format, gpu.removesuffix(GPU_SUFFIX))
    except UnknownTable as error:
        raise WrittenWrong("--model, --format, --gpu", str(error)) from error
    there = table.by_tensor_parallel_size
    timing = {size: there[size] for size in sizes if size in there and size <= max_gpus}
    if max_gpus < 1:
        raise WrittenWrong("--max-gpus", f"{max_gpus}: write at least 1")
    if not timing:
        fits = ",".join(str(size) for size in sorted(there))
        raise WrittenWrong(
            "--tp",
            f"none of {','.join(map(str, sizes))} can run {model} in {format} on {gpu} within {max_gpus} GPUs: "
            f"write some of {fits}, or raise --max-gpus",
        )
    return Service(timing=timing, slo=slo, max_gpus=max_gpus)
