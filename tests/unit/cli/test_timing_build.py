"""Tables made of operation times: by the fit alone, and by the command with a stand-in for the other environment."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from paceline.cli.timing import timing
from paceline.cli.timing_catalogue import cells
from paceline.cli.timing_fit import CALIBRATED, UNCALIBRATED, fit_step_timing
from paceline.cli.timing_sampler import CHUNKS, CONTEXTS, PRIORS, SEQUENCES, TOKENS
from paceline_core.timing_tables import table_from_json


def made(tp: int = 1) -> dict[str, object]:
    """Operations whose law is known: f = 5 ms + 10 µs a token, a_d = 40 ns, a_p = 1 ns."""
    return {
        "tp": tp,
        "tokens": [[n, 4.0 + 0.010 * n, 0.0, 0.5] for n in TOKENS],
        "decode_attention": [[b, c, 0.5 + 40e-6 * b * c] for b in SEQUENCES for c in CONTEXTS],
        "prefill_attention": [[n, p, 0.5 + 1e-6 * n * (p + n / 2)] for n in CHUNKS for p in PRIORS],
    }


def test_the_fit_finds_the_law_that_made_the_samples() -> None:
    step = fit_step_timing(made(), kv_cache_tokens=1_000_000, calibration=UNCALIBRATED)
    assert step.overhead_s == 0.0015
    assert step.decode_attention_s == pytest.approx(40e-9, rel=1e-3)
    assert step.prefill_attention_s == pytest.approx(1e-9, rel=1e-3)
    assert step.step_s(decodes=64, decode_context_tokens=64 * 700) == pytest.approx(
        0.0015 + 0.005 + 64 * 10e-6 + 64 * 700 * 40e-9, rel=1e-3
    )
    assert step.step_s(prefills=[(5000, 1000)]) == pytest.approx(
        0.0015 + 0.005 + 5000 * 10e-6 + 5000 * 3500 * 1e-9, rel=1e-3
    )


def test_noise_never_makes_a_larger_step_faster() -> None:
    samples = made()
    samples["tokens"] = [[n, 4.0 + 0.010 * n + (3.0 if n == 192 else 0.0), 0.0, 0.5] for n in TOKENS]
    step = fit_step_timing(samples, kv_cache_tokens=1_000_000, calibration=UNCALIBRATED)
    assert list(step.knot_s) == sorted(step.knot_s)
    spiked, after = (step.knot_s[TOKENS.index(n)] for n in (192, 256))
    assert spiked == after
    assert 0.005 + 192 * 10e-6 < spiked < 0.005 + 192 * 10e-6 + 0.003


def test_the_calibration_counts_sequences_and_leaves_a_long_prefill_alone() -> None:
    plain = fit_step_timing(made(), kv_cache_tokens=1_000_000, calibration=UNCALIBRATED)
    step = fit_step_timing(made(), kv_cache_tokens=1_000_000, calibration=CALIBRATED)
    assert step.decode_attention_s == pytest.approx(1.13 * plain.decode_attention_s, rel=1e-3)
    assert step.tokens_s(64) - plain.tokens_s(64) == pytest.approx(64 * 21e-6, rel=0.01)
    assert step.tokens_s(2048) == pytest.approx(plain.tokens_s(2048), rel=1e-3)
    assert step.prefill_attention_s == plain.prefill_attention_s


def test_a_term_that_would_be_negative_is_left_out() -> None:
    samples = made()
    samples["decode_attention"] = [
        [b, c, 2.0 - 0.001 * b + 40e-6 * b * c] for b in SEQUENCES for c in CONTEXTS
    ]
    step = fit_step_timing(samples, kv_cache_tokens=1_000_000, calibration=UNCALIBRATED)
    assert step.decode_attention_s > 0


def test_every_cell_fits_and_names_itself_once() -> None:
    keys = [(cell.model, cell.format, cell.gpu, cell.tp) for cell in cells()]
    assert len(set(keys)) == len(keys)
    assert all(cell.kv_cache_tokens >= 12_000 for cell in cells())


def run(tmp_path: Path, script: str, *options: str) -> Result:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return CliRunner().invoke(timing, ["build", "--python", str(python), "--root", str(tmp_path), *options])


def test_build_writes_every_table_and_check_tells_a_stale_one(tmp_path: Path) -> None:
    sampled = {"version": "9.9", "samples": [made(cell.tp) for cell in cells()]}
    (tmp_path / "samples.json").write_text(json.dumps(sampled))
    script = f"cat > {tmp_path}/asked.json; cat {tmp_path}/samples.json"

    assert run(tmp_path, script, "--check").exit_code == 1
    done = run(tmp_path, script)
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "asked.json").read_text())) == len(cells())
    written = sorted((tmp_path / "runtime" / "paceline_core" / "tables").iterdir())
    assert len(written) == len({(cell.model, cell.format, cell.gpu) for cell in cells()})
    table = table_from_json(written[0].read_text())
    assert table.source == "Operations"
    assert "aiconfigurator-core 9.9 (NVIDIA, Apache-2.0" in table.provenance

    assert run(tmp_path, script, "--check").exit_code == 0
    written[0].write_text(written[0].read_text() + " ")
    stale = run(tmp_path, script, "--check")
    assert stale.exit_code == 1
    assert written[0].name in stale.output


def test_build_shows_what_the_other_environment_said(tmp_path: Path) -> None:
    failed = run(tmp_path, "echo No module named aiconfigurator_core >&2; exit 1")
    assert failed.exit_code == 1
    assert "No module named aiconfigurator_core" in failed.output


def test_build_without_an_environment_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    missing = CliRunner().invoke(timing, ["build", "--root", str(tmp_path)])
    assert missing.exit_code == 1
    assert "make timing-env" in missing.output
