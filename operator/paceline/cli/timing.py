"""`paceline timing`: makes the shipped timing tables, and holds tables against measured rows."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import click

from paceline.cli import timing_sampler
from paceline.cli.timing_catalogue import PLATFORMS, Cell, cells
from paceline.cli.timing_check import COLUMNS, REQUESTS_PER_CLIENT, BadRows, Row, read_rows, replay
from paceline.cli.timing_check_report import report
from paceline.cli.timing_closed_loop import NeverFits
from paceline.cli.timing_fit import CALIBRATED, fit_step_timing
from paceline.cli.timing_measure import NotMeasured, measure, served_model
from paceline.cli.written import root_option, write_or_check
from paceline_core.timing import StepTiming, TimingTable
from paceline_core.timing_tables import UnknownTable, load_table, table_file_name, table_to_json

_DEFAULT_BUDGET: Final = {"h100": 8192, "h200": 8192, "b200": 8192}
_SMALL_BUDGET: Final = 2048
"""vLLM's max_num_batched_tokens for its server: the larger where a GPU has 70 GiB and is no A100."""

_TABLES = Path("runtime", "paceline_core", "tables")


@click.group("timing")
def timing() -> None:
    """GPU timing tables: made from measured operations, held against measured services."""


@timing.command("build")
@root_option
@click.option(
    "--python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"A Python that has {timing_sampler.PACKAGE}; else that of `make timing-env`.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is not what would be written.")
def build(root: Path, python: Path | None, check: bool) -> None:
    """Write the tables that ship with the package, from the operation times in aiconfigurator-core."""
    wanted = cells()
    sampled = _sample(python or _cached_python(), wanted)
    tables = _tables(wanted, sampled["samples"], version=sampled["version"])
    write_or_check(
        {
            root / _TABLES / table_file_name(table.model, table.format, table.gpu): table_to_json(table)
            for table in tables
        },
        check=check,
        command="paceline timing build",
    )


@timing.command("check")
@click.option(
    "--measured",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"CSV with {','.join(COLUMNS)}.",
)
@click.option(
    "--max-batched-tokens",
    type=click.IntRange(1),
    help="Of a step. Else vLLM's default: 8192 on H100 and larger, 2048 on others.",
)
@click.option("--rows", "show_rows", is_flag=True, help="Every row too, not only the errors.")
def check(measured: Path, max_batched_tokens: int | None, show_rows: bool) -> None:
    """Replay measured closed-loop rows with the shipped tables, and print the error by GPU and TP."""
    try:
        rows = read_rows(measured.read_text(encoding="utf-8").splitlines())
    except BadRows as error:
        raise click.ClickException(f"{measured}: {error}") from error
    replayed, left_out = [], Counter[str]()
    with click.progressbar(rows, label="replaying", file=sys.stderr) as bar:
        for row in bar:
            step = _step_of(row, left_out)
            if step is None:
                continue
            budget = max_batched_tokens or _DEFAULT_BUDGET.get(row.gpu, _SMALL_BUDGET)
            try:
                replayed.append(replay(row, step, max_batched_tokens=budget))
            except NeverFits as error:
                left_out[str(error)] += 1
    for line in report(replayed, show_rows=show_rows):
        click.echo(line)
    for reason, count in left_out.items():
        click.echo(f"left out, {count} rows: {reason}")
    if not replayed:
        raise click.ClickException("no row could be replayed")


@timing.command("measure")
@click.option("--url", required=True, help="Of the engine, such as http://127.0.0.1:8000.")
@click.option("--model", required=True, help="As the tables name it, such as llama-3.1-8b.")
@click.option("--format", "number_format", required=True, help="Of the weights, such as bf16.")
@click.option("--gpu", required=True, help="As the tables name it, such as h200.")
@click.option("--tp", required=True, type=click.IntRange(1), help="Tensor-parallel size that the engine has.")
@click.option("--prompt-tokens", required=True, type=click.IntRange(1))
@click.option("--output-tokens", required=True, type=click.IntRange(2))
@click.option(
    "--concurrency", required=True, type=click.IntRange(1), multiple=True, help="Clients; once for each row."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Rows are added to this CSV.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of lengths and prompts.")
def measure_rows(
    *,
    url: str,
    model: str,
    number_format: str,
    gpu: str,
    tp: int,
    prompt_tokens: int,
    output_tokens: int,
    concurrency: tuple[int, ...],
    out: Path,
    seed: int,
) -> None:
    """Measure a running engine that has no other load, in closed loops: the rows that `check` asks for.

    Ten requests per client, lengths drawn evenly from [0.8, 1] of what is asked.
    """
    workload = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}
    url = url.rstrip("/")
    try:
        served = asyncio.run(served_model(url))
        for clients in concurrency:
            requests = REQUESTS_PER_CLIENT * clients
            measured = asyncio.run(
                measure(url, model=served, concurrency=clients, requests=requests, seed=seed, **workload)
            )
            row = {"model": model, "format": number_format, "gpu": gpu, "tp": tp, **workload}
            row |= {"concurrency": clients, "ttft_ms": measured.ttft_ms, "tpot_ms": measured.tpot_ms}
            _add_row(out, row)
            click.echo(
                f"{prompt_tokens}+{output_tokens} ×{clients}: TTFT {measured.ttft_ms:.1f} ms, TPOT "
                f"{measured.tpot_ms:.2f} ms, {requests} requests in {measured.wall_s:.1f} s"
            )
    except NotMeasured as error:
        raise click.ClickException(str(error)) from error


def _add_row(out: Path, row: dict[str, object]) -> None:
    new = not out.exists()
    with out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def _step_of(row: Row, left_out: Counter[str]) -> StepTiming | None:
    try:
        table = load_table(row.model, row.format, row.gpu)
    except UnknownTable as error:
        left_out[str(error)] += 1
        return None
    step = table.by_tensor_parallel_size.get(row.tp)
    if step is None:
        left_out[f"no timing of {row.model} in {row.format} on {row.gpu} at TP {row.tp}"] += 1
    return step


def _cached_python() -> Path:
    cache = Path(os.environ.get("PACELINE_CACHE") or Path.home() / ".cache" / "paceline")
    python = cache / "venvs" / "timing" / "bin" / "python"
    if not python.exists():
        raise click.ClickException(
            f"there is no environment with {timing_sampler.PACKAGE} ({python}): run `make timing-env`, or name one "
            "with --python"
        )
    return python


def _sample(python: Path, wanted: Sequence[Cell]) -> dict[str, Any]:
    # -P: the sampler's folder holds an operator.py, which must not hide Python's own.
    done = subprocess.run(
        [python, "-P", timing_sampler.__file__],
        input=json.dumps([cell.wanted for cell in wanted]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise click.ClickException(f"{python} could not sample the operations:\n{done.stderr[-2000:]}")
    sampled: dict[str, Any] = json.loads(done.stdout)
    return sampled


def _tables(
    wanted: Sequence[Cell], samples: Sequence[dict[str, Any]], *, version: str
) -> tuple[TimingTable, ...]:
    pairs = zip(wanted, samples, strict=True)
    return tuple(
        TimingTable(
            model=model,
            format=format,
            gpu=gpu,
            source="Operations",
            provenance=(
                f"Summed from measured operation times in {timing_sampler.PACKAGE} {version} (NVIDIA, Apache-2.0; "
                f"{PLATFORMS[gpu].system}, {PLATFORMS[gpu].engine}), calibrated on closed-loop rows of "
                "Llama-3.1-70B FP8 on H100"
            ),
            by_tensor_parallel_size={
                cell.tp: fit_step_timing(sample, kv_cache_tokens=cell.kv_cache_tokens, calibration=CALIBRATED)
                for cell, sample in group
            },
        )
        for (model, gpu, format), group in groupby(pairs, key=lambda p: (p[0].model, p[0].gpu, p[0].format))
    )
