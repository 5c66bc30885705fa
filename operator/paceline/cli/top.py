"""`paceline top`: all services at a glance, from their status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from paceline.cli.cluster_reader import cluster_reader, options
from paceline.controller.resources import INFERENCE_SERVICE

COLUMNS = (
    "NAMESPACE",
    "NAME",
    "MODE",
    "SHAPE",
    "WANTED",
    "GPUS",
    "ATTAINED",
    "BUDGET",
    "BURN",
    "TTFT",
    "TPOT",
    "REASON",
)


@click.command("top")
@options
@click.option("-w", "--watch", "watch_s", type=click.FloatRange(min=1), help="Again every so many seconds.")
def top_command(
    *, kubeconfig: Path | None, context: str | None, namespace: str | None, watch_s: float | None
) -> None:
    """Every InferenceService with its shape, its objective and its latency. In all namespaces, unless one is
    given."""
    while True:
        services = asyncio.run(_read(namespace, kubeconfig=kubeconfig, context=context))
        if watch_s is not None:
            click.clear()
        for line in table(services):
            click.echo(line)
        if watch_s is None:
            return
        time.sleep(watch_s)


async def _read(
    namespace: str | None, *, kubeconfig: Path | None, context: str | None
) -> list[dict[str, Any]]:
    async with cluster_reader(kubeconfig=kubeconfig, context=context) as cluster:
        return await cluster.list(INFERENCE_SERVICE, namespace=namespace)


def table(services: list[dict[str, Any]]) -> Iterator[str]:
    rows = [COLUMNS, *(_row(one) for one in services)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _row(service: Mapping[str, Any]) -> tuple[str, ...]:
    meta, status = service["metadata"], service.get("status") or {}
    shapes, summary, slo = status.get("shape") or {}, status.get("summary") or {}, status.get("slo") or {}
    gpus = status.get("gpus") or {}
    burns = slo.get("burnRates") or ()
    held = sum(int(gpus.get(part) or 0) for part in ("serving", "starting", "draining"))
    budget = gpus.get("budget")
    return (
        meta["namespace"],
        meta["name"],
        str(service["spec"]["scaling"].get("mode", "Manual")),
        _shape(shapes.get("current")),
        _shape(shapes.get("desired")),
        str(held) if budget is None else f"{held}/{budget}",
        _percent(slo.get("attainmentPercent")),
        _percent(slo.get("budgetRemainingPercent")),
        str(burns[0]["value"]) if burns else "-",
        str(summary.get("timeToFirstToken", "-")),
        str(summary.get("timePerOutputToken", "-")),
        str(summary.get("reason", "-")),
    )


def _shape(shape: Mapping[str, Any] | None) -> str:
    return f"{shape['replicas']}xTP{shape['tensorParallelSize']}" if shape else "-"


def _percent(text: str | None) -> str:
    return f"{text}%" if text is not None else "-"
