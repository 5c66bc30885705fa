"""What an emulated engine is told to be: a GPU of a timing table, or a steady pace.

Read from the arguments of `paceline-runtime serve`. Settings for tests alone have no field in an InferenceService:
they come as variables of the container (`spec.runtime.env`), see `emulation_flags`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal["None", "Slow", "Hang", "HangReadiness", "DieLoading", "Die", "WrongAnswers"]
"""Slow: each step takes five times as long. Hang: no step ends. HangReadiness: /ready is not answered.
DieLoading: the process ends while it loads. Die: it ends at its next step. WrongAnswers:
its canary is not what it would be without."""

STAGES = ("fetch", "import", "weights", "compile", "warmup")
"""Of a start, in order, as a real launcher exports them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantStep:
    """Each step takes the same time, whatever is in it."""

    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStep:
    """Steps take what the shipped timing table of this GPU says."""

    gpu: str
    """`h200`"""
    model: str
    """`llama-3.1-70b`"""
    format: str
    """`fp8`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How the GPU differs from its table. Changed at run time over the admin socket."""

    kappa: float = 1.0
    """κ: scales the GPU's part of each step."""
    delta_s: float | None = None
    """δ: the host's part of each step. None: the table's."""
    drift_per_hour: float = 0.0
    """κ grows by this share of itself in an hour, from when the conditions began."""
    noise: float = 0.0
    """Standard deviation of a step relative to its length, log-normal with mean 1."""
    fault: Fault = "None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulation:
    timing: ConstantStep | TableStep
    stages_s: Mapping[str, float]
    """Seconds of each stage of the start. Those that are not there are not reported."""
    conditions: Conditions = field(default_factory=Conditions)
    seed: int = 0
    """of the noise"""
    prefix_hit_share: float = 0.0
    """Of each prompt, how much the prefix cache is taken to hold."""
    kv_cache_tokens: int | None = None
    """None: the table's; at a constant step, room for every sequence."""
