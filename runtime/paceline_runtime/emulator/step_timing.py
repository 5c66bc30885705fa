"""From what was asked for to the timing of each step and the size of the KV cache. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from paceline_core import UnknownTable, load_table
from paceline_core.timing import StepTiming
from paceline_runtime.launch.emulation import ConstantStep, Emulation
from paceline_runtime.launch.failure import Refused

MAX_BATCHED_TOKENS: Final = 8192
"""vLLM's default for a server on H100 and H200."""

_FIELD = "spec.runtime.emulation"


def step_timing(
    emulation: Emulation, *, tensor_parallel_size: int, max_sequences: int, max_model_tokens: int
) -> StepTiming:
    """Raises Refused where there is no such table, or its KV cache cannot hold the longest sequence."""
    asked = emulation.timing
    if isinstance(asked, ConstantStep):
        timing = _constant(asked.step_s, kv_cache_tokens=max_sequences * max_model_tokens)
    else:
        try:
            table = load_table(asked.model, asked.format, asked.gpu)
        except UnknownTable as error:
            raise Refused(str(error), field=_FIELD) from error
        sizes = table.by_tensor_parallel_size
        if tensor_parallel_size not in sizes:
            raise Refused(
                f"{asked.model} in {asked.format} on {asked.gpu} has a timing at tensor-parallel size "
                f"{', '.join(map(str, sorted(sizes)))}, not {tensor_parallel_size}",
                field="spec.scaling.tensorParallelSize",
            )
        timing = sizes[tensor_parallel_size]
    if emulation.kv_cache_tokens is not None:
        timing = replace(timing, kv_cache_tokens=emulation.kv_cache_tokens)
    if timing.kv_cache_tokens < max_model_tokens:
        raise Refused(
            f"the KV cache holds {timing.kv_cache_tokens} tokens and a sequence may have {max_model_tokens}: "
            "write a smaller one",
            field="spec.model.maxModelTokens",
        )
    return timing


def _constant(step_s: float, *, kv_cache_tokens: int) -> StepTiming:
    return StepTiming(
        knot_tokens=(1, 2),
        knot_s=(step_s, step_s),
        prefill_attention_s=0.0,
        decode_attention_s=0.0,
        kv_cache_tokens=kv_cache_tokens,
        overhead_s=0.0,
    )


def described(emulation: Emulation, *, tensor_parallel_size: int) -> dict[str, str]:
    """What is emulated, as a person and a program read it."""
    asked = emulation.timing
    if isinstance(asked, ConstantStep):
        what = {
            "gpu": "none",
            "model": "none",
            "format": "none",
            "timing": f"constant {asked.step_s * 1000:g} ms",
        }
    else:
        what = {"gpu": asked.gpu, "model": asked.model, "format": asked.format, "timing": "table"}
    return what | {"tensor_parallel_size": str(tensor_parallel_size)}
