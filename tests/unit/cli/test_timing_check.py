"""Rows made by the tables themselves, then bent: what is printed must say how they were bent."""

from collections.abc import Callable, Iterable
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from paceline.cli.timing import timing
from paceline.cli.timing_check import (
    COLUMNS,
    BadRows,
    Replayed,
    Row,
    best_size,
    concurrency_errors,
    errors_by_setting,
    read_rows,
    replay,
)
from paceline_core import load_table

MEASURED_H200 = Path(__file__).parents[3] / "benchmarks" / "measured" / "llama-3.1-8b_bf16_h200.csv"


def measured(tp: int, concurrency: int) -> Row:
    """What the shipped table says, as if it had been measured."""
    row = Row(
        model="llama-3.1-8b",
        format="bf16",
        gpu="h100",
        tp=tp,
        prompt_tokens=256,
        output_tokens=64,
        concurrency=concurrency,
        ttft_ms=1.0,
        tpot_ms=1.0,
    )
    step = load_table("llama-3.1-8b", "bf16", "h100").by_tensor_parallel_size[tp]
    said = replay(row, step, max_batched_tokens=8192)
    return replace(row, ttft_ms=said.ttft_ms, tpot_ms=said.tpot_ms)


ROWS = [measured(tp, concurrency) for tp in (1, 4) for concurrency in (4, 16, 64)]


def bent(rows: Iterable[Row], bend: Callable[[Row], Row]) -> list[Replayed]:
    """The replay says what ROWS say; what was measured is another thing."""
    return [Replayed(row=bend(row), ttft_ms=row.ttft_ms, tpot_ms=row.tpot_ms) for row in rows]


def test_rows_that_the_tables_made_have_no_error() -> None:
    replayed = bent(ROWS, lambda row: row)
    for errors in errors_by_setting(replayed):
        assert (errors.rows, errors.saturated) == (3, 0)
        assert (errors.tpot_bias, errors.ttft_bias, errors.concurrency_error) == pytest.approx((0, 0, 0))
    assert (best_size(replayed).right, best_size(replayed).asked) == (6, 6)


def test_bias_has_the_sign_of_the_replay() -> None:
    replayed = bent(ROWS, lambda row: replace(row, tpot_ms=row.tpot_ms / 1.1, ttft_ms=row.ttft_ms / 0.8))
    for errors in errors_by_setting(replayed):
        assert errors.tpot_bias == pytest.approx(0.1)
        assert errors.ttft_bias == pytest.approx(-0.2)
        assert errors.ttft_error == pytest.approx(0.2)


def test_a_slow_table_promises_less_concurrency_and_a_fast_one_more() -> None:
    slow = concurrency_errors(bent(ROWS, lambda row: replace(row, tpot_ms=row.tpot_ms / 1.1)))
    fast = concurrency_errors(bent(ROWS, lambda row: replace(row, tpot_ms=row.tpot_ms * 1.1)))
    assert all(error <= 0 for error in slow)
    assert min(slow) < -0.05
    assert all(error > 0 for error in fast)


def test_a_wrong_order_of_sizes_is_seen() -> None:
    """Four GPUs measured four times slower than one: the replay still prefers them for a low target."""
    turned = bent(ROWS, lambda row: replace(row, tpot_ms=row.tpot_ms * 8) if row.tp == 4 else row)
    assert best_size(turned).right < best_size(turned).asked


def test_a_saturated_row_is_counted_apart() -> None:
    replayed = bent(ROWS, lambda row: replace(row, ttft_ms=6000.0) if row.concurrency == 64 else row)
    for errors in errors_by_setting(replayed):
        assert (errors.rows, errors.saturated) == (2, 1)
        assert errors.ttft_bias == pytest.approx(0)


def test_a_file_without_its_columns_or_with_a_bad_line_is_refused() -> None:
    with pytest.raises(BadRows, match="missing: ttft_ms, tpot_ms"):
        read_rows(["model,format,gpu,tp,prompt_tokens,output_tokens,concurrency", "m,f,g,1,1,1,1"])
    with pytest.raises(BadRows, match="line 3"):
        read_rows([",".join(COLUMNS), "m,bf16,h100_sxm,1,2,3,4,5,6", "m,bf16,h100,one,2,3,4,5,6"])
    assert read_rows([",".join(COLUMNS), "m,bf16,h100_sxm,1,2,3,4,5,6"])[0].gpu == "h100"


def check(tmp_path: Path, rows: Iterable[Row], *options: str) -> Result:
    path = tmp_path / "rows.csv"
    lines = [",".join(map(str, astuple(row))) for row in rows]
    path.write_text("\n".join([",".join(COLUMNS), *lines]))
    return CliRunner().invoke(timing, ["check", "--measured", str(path), *options])


def test_the_command_prints_the_error_by_gpu_and_size_and_what_it_left_out(tmp_path: Path) -> None:
    unknown = replace(ROWS[0], gpu="mi300x")
    no_size = replace(ROWS[0], gpu="l40s", tp=2)
    done = check(tmp_path, [*ROWS, unknown, no_size], "--rows")
    assert done.exit_code == 0, done.output
    assert "llama-3.1-8b bf16 h100 TP4 256+64 ×16" in done.output
    lines = [line.split() for line in done.output.splitlines() if line.startswith("llama-3.1-8b   bf16")]
    assert [(line[2], line[3], line[4], line[5].lstrip("+-")) for line in lines] == [
        ("h100", "1", "3", "0.0%"),
        ("h100", "4", "3", "0.0%"),
    ]
    assert "best TP picked right: 6 of 6 rows (100%)" in done.output
    assert "left out, 1 rows: no timing table of llama-3.1-8b in bf16 on mi300x" in done.output
    assert "left out, 1 rows: no timing of llama-3.1-8b in bf16 on l40s at TP 2" in done.output


def test_the_command_fails_where_nothing_can_be_replayed(tmp_path: Path) -> None:
    assert check(tmp_path, [replace(ROWS[0], model="gpt-2")]).exit_code == 1


def test_rows_of_an_h200_that_nothing_was_fitted_to() -> None:
    """What docs/timing.md says of them: TPOT and concurrency as wanted, TTFT too low where many begin at once."""
    rows = read_rows(MEASURED_H200.read_text().splitlines())
    step = load_table("llama-3.1-8b", "bf16", "h200").by_tensor_parallel_size[1]
    (errors,) = errors_by_setting([replay(row, step, max_batched_tokens=8192) for row in rows])
    assert errors.rows == 7
    assert errors.tpot_bias == pytest.approx(0.067, abs=0.01)
    assert errors.concurrency_error == pytest.approx(0.045, abs=0.02)
    assert errors.ttft_bias == pytest.approx(-0.28, abs=0.03)
