"""What is known of a service's timing before it was measured: the shipped table of its model, format and GPU, else an
estimate from its config.json and the GPU's datasheet. Pure.

A prior, no more: the planner starts from it and corrects it from the service's own measurements, and the canary
takes from it how the speeds of two sizes compare. Where nothing is known of a model's timing there is no planner, the
shape is held, and the condition ScalingActive says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from paceline.api import EmulatedGpu
from paceline.fleet.feasibility import PRODUCT_LABEL, known_facts, may_take
from paceline.fleet.observed import Observed
from paceline_core import (
    CheckpointFacts,
    NoEstimate,
    StepTiming,
    TimingTable,
    UnknownGpu,
    UnknownTable,
    estimate_table,
    load_table,
    shipped_tables,
)
from paceline_core.gpus import GPUS

EMULATED_SIZES = (1, 2, 3, 4, 8)
"""An engine of constant step time is as fast at every size."""

CPU_SIZES = (1, 2, 3, 4)
_CPU_WEIGHTS_BYTES = 269_030_016
_CPU_KNOTS = ((1, 0.030), (16, 0.075), (512, 1.6))
"""Tokens of a step and its seconds: SmolLM2-135M in bf16 on two shared cores, vLLM 0.32, eager (212 tokens a
second at 16 streams). Scaled by the bytes of the weights for other models: a guess, to begin with."""

_UNBOUNDED_TOKENS = 1 << 40
_NO_OVERHEAD_S = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPrior:
    timing: Mapping[int, StepTiming]
    """By tensor-parallel size."""

    source: str
    """As a person reads it."""


def timing_prior(observed: Observed) -> TimingPrior | None:
    """None where nothing is known."""
    spec = observed.service.spec
    facts = known_facts(observed)
    emulation = spec.runtime.emulation
    if emulation is not None and emulation.constant_step_milliseconds is not None:
        return _constant(emulation.constant_step_milliseconds / 1000)
    if emulation is not None and emulation.timing is not None:
        return _emulated(emulation.timing)
    if spec.accelerator.is_cpu:
        return _on_cpu(observed, facts)
    table = _table(observed, facts)
    if table is None:
        return None
    timing = {
        size: _with_cache(observed, facts, step, size=size)
        for size, step in table.by_tensor_parallel_size.items()
    }
    return TimingPrior(timing=timing, source=f"{table.source}: {table.provenance}")


def _table(observed: Observed, facts: CheckpointFacts | None) -> TimingTable | None:
    uri, gpu = observed.service.spec.model.uri, _gpu(observed)
    if gpu is None:
        return None
    model, form = _shipped_model(uri), _format(observed, facts)
    if model is not None:
        with suppress(UnknownTable):
            return load_table(model, form, gpu)
    if facts is None:
        return None
    try:
        return estimate_table(facts, model=uri, format=form, gpu=gpu)
    except (NoEstimate, UnknownGpu):
        return None


def _emulated(asked: EmulatedGpu) -> TimingPrior | None:
    """The table that the engines start from too. They may be told to differ from it."""
    try:
        table = load_table(asked.model, asked.format, asked.gpu)
    except UnknownTable:
        return None
    return TimingPrior(
        timing=table.by_tensor_parallel_size, source=f"emulated: {table.source}: {table.provenance}"
    )


def _constant(step_s: float) -> TimingPrior:
    step = StepTiming(
        knot_tokens=(1, 1 << 20),
        # A microsecond for a thousand tokens: the planner divides by what a prompt costs.
        knot_s=(step_s, step_s + 0.001),
        prefill_attention_s=0.0,
        decode_attention_s=0.0,
        kv_cache_tokens=_UNBOUNDED_TOKENS,
        overhead_s=_NO_OVERHEAD_S,
    )
    return TimingPrior(timing=dict.fromkeys(EMULATED_SIZES, step), source="emulated: a constant step")


def _on_cpu(observed: Observed, facts: CheckpointFacts | None) -> TimingPrior | None:
    """More ranks share the same cores: no size is faster than one."""
    if facts is None or facts.weights_bytes is None:
        weights_bytes = (
            _CPU_WEIGHTS_BYTES if observed.service.spec.model.uri.startswith("bundled://") else None
        )
    else:
        weights_bytes = facts.weights_bytes
    if weights_bytes is None:
        return None
    factor = weights_bytes / _CPU_WEIGHTS_BYTES
    timing = {}
    for size in CPU_SIZES:
        step = StepTiming(
            knot_tokens=tuple(tokens for tokens, _ in _CPU_KNOTS),
            knot_s=tuple(seconds * factor for _, seconds in _CPU_KNOTS),
            prefill_attention_s=0.0,
            decode_attention_s=0.0,
            kv_cache_tokens=_UNBOUNDED_TOKENS,
        )
        timing[size] = _with_cache(observed, facts, step, size=size)
    return TimingPrior(timing=timing, source="measured once, on two cores")


def _shipped_model(uri: str) -> str | None:
    """The longest name of a shipped table that the uri holds: `hf://meta-llama/Llama-3.1-70B-Instruct@…`."""
    text = uri.lower()
    names = {model for model, _, _ in shipped_tables() if model in text}
    return max(names, key=len, default=None)


def _format(observed: Observed, facts: CheckpointFacts | None) -> str:
    wanted = observed.service.spec.model.quantization.weights
    has = facts.quantization if facts is not None else None
    if (has is not None and has.method == "mxfp4") or "gpt-oss" in observed.service.spec.model.uri.lower():
        return "mxfp4"
    return "fp8" if "FP8" in (wanted, has.weights if has is not None else None) else "bf16"


def _gpu(observed: Observed) -> str | None:
    """`NVIDIA-H100-80GB-HBM3` is `h100`. Of several kinds the one with most nodes; the planner corrects the
    rest."""
    labels = Counter(
        node.labels.get(PRODUCT_LABEL, "") for node in observed.nodes if may_take(node, observed.service)
    )
    products = [label for label, _ in labels.most_common() if label]
    for product in (*products, *observed.service.spec.accelerator.products):
        for word in product.lower().split("-"):
            if word in GPUS:
                return word
    return None


def _with_cache(
    observed: Observed, facts: CheckpointFacts | None, step: StepTiming, *, size: int
) -> StepTiming:
    """The KV cache that the spec gives each rank, where the bytes of a token are known."""
    cache = observed.service.spec.model.kv_cache
    if facts is None:
        return step
    per_token = facts.kv_bytes_per_token(
        tensor_parallel_size=size, bytes_per_value=1 if cache.dtype == "FP8" else None
    )
    if not per_token:
        return step
    return replace(step, kv_cache_tokens=max(1, cache.size_bytes // per_token))
