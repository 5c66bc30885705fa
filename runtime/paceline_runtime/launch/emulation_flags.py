"""The flags of an emulated engine, shared by `serve` and `emulate`.

Those that only tests want can be given as a variable too, EMULATE_KAPPA for --emulate-kappa: so a test sets
through `spec.runtime.env` what has no place in an InferenceService.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

import click

from paceline_runtime.launch.emulation import (
    STAGES,
    Conditions,
    ConstantStep,
    Emulation,
    Fault,
    TableStep,
)

Command = TypeVar("Command", bound=Callable[..., Any])

_STEP_MS = 10.0
_START_S = 1.0


def _stage_times(ctx: click.Context, param: click.Parameter, value: str | None) -> Mapping[str, float] | None:
    """`fetch=1,weights=20`"""
    if value is None:
        return None
    stages: dict[str, float] = {}
    for part in value.split(","):
        stage, _, seconds = part.partition("=")
        if stage not in STAGES or not seconds.replace(".", "", 1).isdigit():
            raise click.BadParameter(
                f"{part!r}: write stage=seconds; the stages are {', '.join(STAGES)}", ctx=ctx, param=param
            )
        stages[stage] = float(seconds)
    return {stage: stages[stage] for stage in STAGES if stage in stages}


def condition_flags(command: Command) -> Command:
    """How the GPU differs from its table, and everything else that only tests want."""
    for flag in reversed(_CONDITION_FLAGS):
        command = flag(command)
    return command


def _flag(name: str, **settings: Any) -> Callable[[Command], Command]:
    return click.option(name, envvar=name.strip("-").replace("-", "_").upper(), **settings)


_CONDITION_FLAGS = (
    _flag(
        "--emulate-stages",
        callback=_stage_times,
        help="fetch=1,weights=20: seconds of each stage of the start.",
    ),
    _flag("--emulate-kappa", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True),
    _flag("--emulate-delta-ms", type=click.FloatRange(min=0), help="[default: the table's]"),
    _flag("--emulate-drift-per-hour", type=float, default=0.0, show_default=True, help="Share of kappa."),
    _flag("--emulate-noise", type=click.FloatRange(min=0, max=1), default=0.0, show_default=True),
    _flag("--emulate-fault", type=click.Choice(get_args(Fault)), default="None", show_default=True),
    _flag("--emulate-seed", type=int, default=0, show_default=True),
    _flag("--emulate-prefix-hits", type=click.FloatRange(0, 1), default=0.0, show_default=True),
    _flag("--emulate-kv-tokens", type=click.IntRange(min=1), help="[default: the table's]"),
)


def take_emulation(given: dict[str, Any]) -> Emulation | None:
    """Take the flags of the emulated engine out of a command's arguments. None where it is not asked for."""
    flags = {name: given.pop(name) for name in list(given) if name.startswith("emulate")}
    if not flags["emulate"]:
        return None
    table = (flags["emulate_gpu"], flags["emulate_model"], flags["emulate_format"])
    if all(table) and flags["emulate_step_ms"] is not None:
        raise click.UsageError("--emulate-step-ms and --emulate-gpu are two kinds of timing: write one")
    if any(table) and not all(table):
        raise click.UsageError("a timing table needs --emulate-gpu, --emulate-model and --emulate-format")
    stages_s, start_s = flags["emulate_stages"], flags["emulate_start_seconds"]
    delta_ms = flags["emulate_delta_ms"]
    step_ms = _STEP_MS if flags["emulate_step_ms"] is None else flags["emulate_step_ms"]
    return Emulation(
        timing=TableStep(gpu=table[0], model=table[1], format=table[2])
        if all(table)
        else ConstantStep(step_s=step_ms / 1000),
        stages_s={"weights": _START_S if start_s is None else start_s} if stages_s is None else stages_s,
        conditions=Conditions(
            kappa=flags["emulate_kappa"],
            delta_s=None if delta_ms is None else delta_ms / 1000,
            drift_per_hour=flags["emulate_drift_per_hour"],
            noise=flags["emulate_noise"],
            fault=flags["emulate_fault"],
        ),
        seed=flags["emulate_seed"],
        prefix_hit_share=flags["emulate_prefix_hits"],
        kv_cache_tokens=flags["emulate_kv_tokens"],
    )
