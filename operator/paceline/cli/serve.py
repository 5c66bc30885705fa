"""`paceline serve -f FILE`: the manifest that you would apply, served by one process on this machine.

For trying a model and a manifest without Kubernetes. It listens on loopback only, and does nothing that only
a cluster can do: no router, no second replica, no scaling. What the manifest says of those, it names and
leaves out.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from paceline.cli.local_process import EngineFailed, LocalProcess, interpreter
from paceline.cli.local_service import CannotServeHere, LocalRun, local_run, read_manifest

LOOPBACK = "127.0.0.1"
TEARDOWN_S = 15.0
"""vLLM's own, after the last request."""

NVIDIA_DEVICE = Path("/dev/nvidiactl")


@click.command("serve")
@click.option(
    "-f",
    "--filename",
    "manifest",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with one InferenceService.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help=f"Port on {LOOPBACK}."
)
def serve_command(*, manifest: Path, port: int) -> None:
    """Serve one InferenceService on this machine, without Kubernetes, until Ctrl-C."""
    cache = Path(os.environ.get("PACELINE_CACHE") or Path.home() / ".cache" / "paceline")
    try:
        service = read_manifest(manifest.read_text(encoding="utf-8"))
        state = cache / "serve" / service.metadata.name
        run = local_run(service, host=LOOPBACK, port=port, state=state, environ=os.environ)
        if run.needs_gpu and not NVIDIA_DEVICE.exists():
            raise CannotServeHere(
                f"spec.accelerator.resourceName: {service.spec.accelerator.resource_name}, and this machine has no "
                "GPU: write cpu, or serve examples/smollm2.yaml"
            )
        python = interpreter(cache=cache, needs_vllm=run.needs_vllm, needs_gpu=run.needs_gpu)
        sys.exit(_serve(run, python=python, state=state, cache=cache, url=f"http://{LOOPBACK}:{port}"))
    except (CannotServeHere, EngineFailed) as error:
        raise click.ClickException(str(error)) from error


def _serve(run: LocalRun, *, python: Path, state: Path, cache: Path, url: str) -> int:
    for sentence in run.left_out:
        click.echo(f"left out here: {sentence}")
    state.mkdir(parents=True, exist_ok=True)
    run.targets_path.write_text(run.targets_json, encoding="utf-8")
    models = os.environ.get("PACELINE_BUNDLED_MODELS") or str(cache / "models")
    engine = LocalProcess.start(
        [str(python), "-m", "paceline_runtime.cli", *run.args],
        url=url,
        env={**run.env, "PACELINE_BUNDLED_MODELS": models},
        log=state / "engine.log",
        verdict=state / "verdict.json",
    )
    with _sigterm_is_ctrl_c():
        try:
            click.echo(f"starting {run.name}; its log is {engine.log}")
            took_s = engine.wait_ready(within_s=run.start_within_s, tell=click.echo)
            _introduce(run, url=url, took_s=took_s)
            code = engine.wait()
            raise EngineFailed(f"the engine ended by itself with {code}\n{engine.explain()}")
        except KeyboardInterrupt:
            click.echo("\nending: what it answers now may finish (Ctrl-C again ends it at once)")
            return 0
        finally:
            engine.end(within_s=run.request_within_s + TEARDOWN_S)


def _introduce(run: LocalRun, *, url: str, took_s: float) -> None:
    click.secho(f"{run.name} is ready after {took_s:.0f} s: {url}/v1", bold=True)
    click.echo(
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{run.served_name}", "temperature": 0, "messages": '
        '[{"role": "user", "content": "What is the capital of France?"}]}\''
    )
    click.echo("Ctrl-C ends it.")


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """A supervisor's way to ask for the end takes the way of a person's."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
