"""`paceline benchmark`: a matrix of simulations in parallel, resumable, and a report."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import click

from paceline.cli.simulator_extra import needs_simulator


@click.command("benchmark")
@click.option(
    "--suite",
    "suite_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML, such as benchmarks/suites/quick.yaml.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for results and report. What is finished there is not run again.",
)
@click.option(
    "--traces",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the trace files that the suite names. Not given: made-up traffic.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=os.cpu_count() or 1,
    show_default=True,
    help="Processes.",
)
@click.option("--report-only", is_flag=True, help="Run nothing: write the report of what is there.")
def benchmark_command(
    *, suite_file: Path, out: Path, traces: Path | None, workers: int, report_only: bool
) -> None:
    """Compare policies on a suite of simulated services, and write a report."""
    with needs_simulator():
        from paceline.simulator.benchmark.report import write_report
        from paceline.simulator.benchmark.suite import UnreadableSuite, read_suite
        from paceline.simulator.benchmark.work import Place, do, jobs_of
        from paceline.simulator.written_values import WrittenWrong
    try:
        suite = read_suite(suite_file)
    except UnreadableSuite as error:
        raise click.ClickException(f"--suite: {error}") from error
    place = Place(out=out, traces=traces)
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        for stage in (0, 1) if not report_only else ():
            left = [job for job in jobs_of(suite) if job.stage == stage and not job.path(place).is_file()]
            if not left:
                continue
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                running = [pool.submit(do, job, suite, place) for job in left]
                try:
                    for n, done in enumerate(as_completed(running), start=1):
                        click.echo(f"{time.monotonic() - began:7.0f} s  {n}/{len(left)}  {done.result()}")
                except KeyboardInterrupt:
                    pool.shutdown(cancel_futures=True)
                    raise click.ClickException("stopped: the same command goes on from here") from None
    except WrittenWrong as error:
        raise click.ClickException(f"--suite: {error}") from error
    report = write_report(suite, place)
    click.echo(f"wrote {report}")
