"""`python -m e2e.load`: open-loop load on a service of this machine's test cluster, or on loopback."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click

from e2e.load.openloop import PROMPTS, Load, OpenLoop
from e2e.load.schedule import MAX_DURATION_S
from e2e.load.target import ForeignTarget


@click.command()
@click.option("--url", required=True, help="Base URL of the service, with or without /v1.")
@click.option("--model", required=True, help="Served name to ask for.")
@click.option("--rate", "rate_per_s", type=float, default=8.0, show_default=True, help="Requests a second.")
@click.option("--duration", "duration_s", type=click.FloatRange(0, MAX_DURATION_S), default=60.0)
@click.option("--process", type=click.Choice(("poisson", "constant")), default="poisson", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--streams/--no-streams", default=True, show_default=True)
@click.option("--max-tokens", default="16", show_default=True, help="N, or LEAST-MOST to draw from.")
@click.option("--prompt-file", type=click.Path(exists=True, path_type=Path), help="One prompt a line.")
@click.option(
    "--timeout", "timeout_s", type=float, default=300.0, show_default=True, help="Seconds a request."
)
@click.option("--api-key", envvar="PACELINE_API_KEY")
@click.option("--fresh-connections", is_flag=True, help="A connection for each request.")
@click.option("--ignore-eos", is_flag=True, help="Exactly --max-tokens tokens (vLLM).")
@click.option("--out", type=click.Path(path_type=Path), help="Write every request's record there, as JSON.")
def main(
    url: str,
    model: str,
    rate_per_s: float,
    duration_s: float,
    process: Any,
    seed: int,
    streams: bool,
    max_tokens: str,
    prompt_file: Path | None,
    timeout_s: float,
    api_key: str | None,
    fresh_connections: bool,
    ignore_eos: bool,
    out: Path | None,
) -> None:
    """Send by schedule, read every answer to its end, and say what failed. Exit code 1 if anything did."""
    least, _, most = max_tokens.partition("-")
    try:
        load = Load(
            rate_per_s=rate_per_s,
            process=process,
            seed=seed,
            stream=streams,
            max_tokens=(int(least), int(most or least)),
            timeout_s=timeout_s,
            reuse_connections=not fresh_connections,
            ignore_eos=ignore_eos,
            prompts=prompt_file.read_text().splitlines() if prompt_file else PROMPTS,
        )
        loop = OpenLoop(url, model=model, load=load, api_key=api_key)
    except (ValueError, ForeignTarget) as error:
        raise click.UsageError(str(error)) from error
    asyncio.run(_run(loop, duration_s=duration_s))
    summary = loop.summary()
    click.echo(summary.text())
    if out is not None:
        document = {
            "summary": summary.document(),
            "requests": [record.document() for record in loop.records],
        }
        out.write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(1 if summary.failed else 0)


async def _run(loop: OpenLoop, *, duration_s: float) -> None:
    async with loop.running():
        end_s = asyncio.get_running_loop().time() + duration_s
        while (left_s := end_s - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left_s, 5.0))
            live = loop.live()
            click.echo(f"{live.sent} sent, {live.in_flight} in flight, {live.failed} failed", err=True)


if __name__ == "__main__":
    main()
