"""`paceline timing`: makes the shipped timing tables, and holds tables against measured rows."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from paceline.cli import timing_sampler
from paceline.cli.timing_catalogue import PLATFORMS, Cell, cells
from paceline.cli.timing_fit import CALIBRATED, fit_step_timing
from paceline.cli.written import root_option, write_or_check
from paceline_core.timing import TimingTable
from paceline_core.timing_tables import table_file_name, table_to_json

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
