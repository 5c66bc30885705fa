"""`paceline-runtime serve`: the command of the engine container. Checks the arguments and starts one of two
engines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import click

from paceline_runtime.launch import options as opt
from paceline_runtime.launch.drain_command import ADMIN_SOCKET
from paceline_runtime.launch.emulation_flags import condition_flags, take_emulation
from paceline_runtime.logs import configure_logs


@click.command()
@click.option("--model-uri", required=True, help="hf://org/name@revision, pvc://…, s3://…, bundled://…")
@click.option("--served-model-name", "served_names", required=True, multiple=True, help="Repeatable.")
@click.option("--tensor-parallel-size", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--data-parallel-size", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--max-model-len", "max_model_tokens", type=click.IntRange(min=1), required=True)
@click.option("--weights", type=click.Choice(get_args(opt.WeightsFormat)), default="Auto", show_default=True)
@click.option(
    "--weights-source", type=click.Choice(get_args(opt.WeightsSource)), default="Auto", show_default=True
)
@click.option(
    "--kv-cache-dtype", type=click.Choice(get_args(opt.KvCacheDtype)), default="Auto", show_default=True
)
@click.option("--kv-cache-bytes", type=click.IntRange(min=1), required=True, help="Of each rank.")
@click.option(
    "--prefix-caching", type=click.Choice(get_args(opt.Switch)), default="Enabled", show_default=True
)
@click.option("--max-num-seqs", "max_sequences", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--max-num-batched-tokens", "max_batched_tokens", type=click.IntRange(min=1))
@click.option("--max-queued-requests", type=click.IntRange(min=0), default=64, show_default=True)
@click.option("--max-queued-tokens", type=click.IntRange(min=1), default=200_000, show_default=True)
@click.option("--max-prompt-tokens", type=click.IntRange(min=1), required=True)
@click.option("--max-output-tokens", type=click.IntRange(min=1), required=True)
@click.option("--max-request-seconds", "max_request_s", type=click.FloatRange(min=1), required=True)
@click.option("--device", type=click.Choice(get_args(opt.Device)), required=True)
@click.option("--service", required=True, help="Name of the InferenceService.")
@click.option(
    "--targets",
    "targets_path",
    type=click.Path(path_type=Path),
    default=Path("/etc/paceline/slo/targets.json"),
    show_default=True,
)
@click.option(
    "--canary-reference",
    type=click.Path(path_type=Path),
    default=Path("/etc/paceline/slo/canary.json"),
    show_default=True,
    help="What the pods before answered.",
)
@click.option("--routers", help="DNS name of the router pods.  [default: nobody routes to this process]")
@click.option("--host", default="0.0.0.0", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--live-port", type=click.IntRange(1, 65535), help="Liveness, also while no engine is there.")
@click.option(
    "--admin-socket",
    type=click.Path(path_type=Path),
    default=ADMIN_SOCKET,
    show_default=True,
    envvar="PACELINE_ADMIN_SOCKET",
)
@click.option(
    "--layout-file",
    type=click.Path(path_type=Path),
    help="Another layout, tp=4,dp=2, as soon as this file names one.  [default: none ever]",
)
@click.option("--trust-remote-code", is_flag=True)
@click.option("--eager", is_flag=True, help="Do not compile the model.")
@click.option(
    "--emulate", is_flag=True, help="Keep the pace of an engine and serve canned text, without a model."
)
@click.option("--emulate-gpu", help="h200: steps take what the timing table of this GPU says.")
@click.option("--emulate-model", help="llama-3.1-70b: the model of the table.")
@click.option("--emulate-format", help="fp8: the format of the table.")
@click.option(
    "--emulate-step-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="Without a table: the time of each step.  [default: 10]",
)
@click.option("--emulate-start-seconds", type=click.FloatRange(min=0), help="[default: 1]")
@condition_flags
@click.argument("extra_args", nargs=-1, type=click.UNPROCESSED)
def serve(**given: Any) -> None:
    """Serve one model on this pod's port. After `--`: further arguments of vLLM, each --flag or
    --flag=value."""
    configure_logs()
    emulation = take_emulation(given)
    options = opt.ServeOptions(emulation=emulation, **given)
    if emulation is not None:
        from paceline_runtime.emulator.process import run as run_engine
    else:
        from paceline_runtime.launch.launcher import run as run_engine
    sys.exit(run_engine(options))
