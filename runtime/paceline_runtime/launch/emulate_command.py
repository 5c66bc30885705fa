"""`paceline-runtime emulate h200 --model llama-3.1-70b --format fp8 --tp 4`: an emulated GPU without a service.

For a person at a terminal: what an InferenceService would say is filled in. A pod runs `serve --emulate`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from paceline_core import LatencyTarget, Targets
from paceline_runtime.launch import options as opt
from paceline_runtime.launch.emulation_flags import condition_flags, take_emulation
from paceline_runtime.logs import configure_logs

_TARGETS = Targets(
    classes=(
        LatencyTarget(
            name="all",
            max_prompt_tokens=None,
            ttft_ms=2000,
            ttft_per_thousand_prompt_tokens_ms=0,
            tpot_ms=100,
        ),
    )
)
_MAX_REQUEST_S = 600.0


@click.command()
@click.argument("gpu")
@click.option("--model", required=True, help="llama-3.1-70b")
@click.option("--format", "form", required=True, help="fp8")
@click.option("--tp", "tensor_parallel_size", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--dp", "data_parallel_size", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--max-model-len", "max_model_tokens", type=click.IntRange(min=2), default=32768, show_default=True
)
@click.option("--max-num-seqs", "max_sequences", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--start-seconds", type=click.FloatRange(min=0), default=0.0, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--admin-socket", type=click.Path(path_type=Path), help="[default: in a folder of its own]")
@condition_flags
def emulate(
    *,
    gpu: str,
    model: str,
    form: str,
    max_model_tokens: int,
    start_seconds: float,
    admin_socket: Path | None,
    **given: Any,
) -> None:
    """Serve canned text at the pace of this GPU, by its timing table."""
    configure_logs()
    from paceline_runtime.emulator.process import run

    given |= {
        "emulate": True,
        "emulate_gpu": gpu,
        "emulate_model": model,
        "emulate_format": form,
        "emulate_step_ms": None,
        "emulate_start_seconds": start_seconds,
    }
    emulation = take_emulation(given)
    with tempfile.TemporaryDirectory(prefix="paceline-emulated-") as folder:
        targets = Path(folder) / "targets.json"
        targets.write_text(_TARGETS.to_json())
        options = opt.ServeOptions(
            model_uri=f"hf://emulated/{model}@{form}",
            served_names=(model,),
            max_model_tokens=max_model_tokens,
            canary_reference=Path(folder) / "canary.json",
            layout_file=None,
            live_port=None,
            weights="Auto",
            weights_source="Auto",
            kv_cache_dtype="Auto",
            kv_cache_bytes=1,
            prefix_caching="Enabled",
            max_batched_tokens=None,
            max_queued_requests=1024,
            max_queued_tokens=1 << 30,
            max_prompt_tokens=max_model_tokens - 1,
            max_output_tokens=max_model_tokens,
            max_request_s=_MAX_REQUEST_S,
            device="cuda",
            service="emulated",
            targets_path=targets,
            routers=None,
            admin_socket=admin_socket or Path(folder) / "admin.sock",
            trust_remote_code=False,
            eager=False,
            emulation=emulation,
            extra_args=(),
            **given,
        )
        code = run(options)
    sys.exit(code)
