"""What `paceline timing check` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paceline.cli.timing_check import SATURATED_TTFT_MS, Replayed, best_size, errors_by_setting

_HEAD = (
    f"{'model':<14} {'format':<6} {'gpu':<5} {'tp':>2} {'rows':>5} {'TPOT bias':>10} {'TPOT error':>11} "
    f"{'concurrency':>12} {'TTFT bias':>10} {'TTFT error':>11} {'saturated':>10}"
)


def report(replayed: Sequence[Replayed], *, show_rows: bool) -> Iterator[str]:
    if show_rows:
        yield from _rows(replayed)
        yield ""
    yield _HEAD
    for one in sorted(errors_by_setting(replayed), key=lambda e: e.setting):
        model, format, gpu, tp = one.setting
        yield (
            f"{model:<14} {format:<6} {gpu:<5} {tp:>2} {one.rows:>5} {_signed(one.tpot_bias):>10} "
            f"{_share(one.tpot_error):>11} {_share(one.concurrency_error):>12} {_signed(one.ttft_bias):>10} "
            f"{_share(one.ttft_error):>11} {one.saturated:>10}"
        )
    best = best_size(replayed)
    if best.asked:
        yield f"best TP picked right: {best.right} of {best.asked} rows ({best.right / best.asked:.0%})"
    yield (
        "TPOT and TTFT: means over rows. concurrency: median error of the highest that keeps a row's TPOT. "
        f"saturated: rows above {SATURATED_TTFT_MS / 1000:.0f} s of TTFT, in no figure."
    )


def _rows(replayed: Sequence[Replayed]) -> Iterator[str]:
    for one in sorted(replayed, key=lambda r: (r.row.setting, r.row.workload, r.row.concurrency)):
        row = one.row
        yield (
            f"{row.model} {row.format} {row.gpu} TP{row.tp} {row.prompt_tokens}+{row.output_tokens} "
            f"×{row.concurrency}: TTFT {one.ttft_ms:.0f} for {row.ttft_ms:.0f} ms ({one.ttft_error:+.0%}), "
            f"TPOT {one.tpot_ms:.2f} for {row.tpot_ms:.2f} ms ({one.tpot_error:+.1%})"
            + (", saturated" if row.saturated else "")
        )


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
