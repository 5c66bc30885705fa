import itertools
import tomllib
from pathlib import Path

import pytest

import paceline_core
from paceline_core import UnknownTable, load_table, shipped_tables
from paceline_core.timing_tables import table_from_json, table_to_json

TABLES = [pytest.param(key, id="-".join(key)) for key in shipped_tables()]


@pytest.mark.parametrize(
    ("model", "format", "tp", "one_ms", "many_ms", "prefill_ms"),
    [
        ("llama-3.1-70b", "fp8", 1, 21.1, 33.6, 222),
        ("llama-3.1-70b", "fp8", 2, 13.3, 20.9, 142),
        ("llama-3.1-70b", "fp8", 4, 8.7, 14.7, 97),
        ("llama-3.1-70b", "fp8", 8, 6.8, 10.9, 71),
        ("llama-3.1-8b", "bf16", 1, 4.9, None, 43),
        ("llama-3.1-8b", "bf16", 2, 3.4, None, 28),
        ("llama-3.1-8b", "bf16", 4, 2.5, None, 18),
        ("llama-3.1-8b", "bf16", 8, 2.0, None, 14),
    ],
)
def test_the_tables_for_h200_agree_with_figures_computed_apart(
    model: str, format: str, tp: int, one_ms: float, many_ms: float | None, prefill_ms: float
) -> None:
    """Steps before δ; the 128 sequences have 1,024 tokens each. Those figures were computed with an FP8 KV cache and
    uncalibrated: ours is 16 bit, as vLLM's default, counts the engine's work for each sequence, and less all-reduce."""
    step = load_table(model, format, "h200").by_tensor_parallel_size[tp].corrected(scale=1, overhead_s=0)
    assert 1e3 * step.step_s(decodes=1, decode_context_tokens=1024) == pytest.approx(one_ms, rel=0.03)
    assert 1e3 * step.step_s(prefills=[(2048, 0)]) == pytest.approx(prefill_ms, rel=0.08)
    if many_ms is not None:
        many = 1e3 * step.step_s(decodes=128, decode_context_tokens=128 * 1024)
        assert many_ms <= many <= 1.1 * many_ms + 128 * 0.021 + 1


def test_the_kv_cache_is_what_the_weights_leave() -> None:
    """0.90 of the memory, less the weights, less 5 GB; at TP 8 each GPU holds one of the eight KV heads."""
    for tp, step in load_table("llama-3.1-70b", "fp8", "h100").by_tensor_parallel_size.items():
        tokens = (0.90 * 81559 * 1024**2 - 72.66e9 / tp - 5e9) / (327_680 / tp)
        assert step.kv_cache_tokens == pytest.approx(tokens, rel=1e-3)


def test_every_table_that_is_promised_is_shipped() -> None:
    dense = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-32b")
    promised = {
        (model, format, gpu) for model in dense for format in ("bf16", "fp8") for gpu in ("h100", "h200")
    }
    promised |= {(model, "bf16", "a100") for model in dense}
    promised |= {("gpt-oss-120b", "mxfp4", gpu) for gpu in ("h100", "h200")}
    promised |= {("llama-3.1-8b", format, "l40s") for format in ("bf16", "fp8")} | {
        ("qwen3-32b", "fp8", "l40s")
    }
    assert set(shipped_tables()) == promised


def test_no_table_claims_tensor_parallelism_over_pcie() -> None:
    for model, format, gpu in shipped_tables():
        if gpu == "l40s":
            assert set(load_table(model, format, gpu).by_tensor_parallel_size) == {1}


@pytest.mark.parametrize("key", TABLES)
def test_every_step_costs_more_with_more_tokens(key: tuple[str, str, str]) -> None:
    for step in load_table(*key).by_tensor_parallel_size.values():
        assert list(step.knot_s) == sorted(step.knot_s)
        assert step.knot_s[0] > 0
        assert step.prefill_attention_s > 0
        assert step.decode_attention_s > 0
        assert step.tokens_s(2 * step.knot_tokens[-1]) > step.knot_s[-1]


@pytest.mark.parametrize("key", TABLES)
def test_more_gpus_are_not_slower_and_hold_more(key: tuple[str, str, str]) -> None:
    """Decoding steps of a small model gain nothing from the last doubling, and may lose a little to all-reduce."""
    by_size = load_table(*key).by_tensor_parallel_size
    sizes = sorted(by_size)
    assert sizes
    assert set(sizes) <= {1, 2, 4, 8}
    for small, large in itertools.pairwise(sizes):
        few, many = by_size[small], by_size[large]
        decoding = [one.step_s(decodes=32, decode_context_tokens=32 * 1024) for one in (few, many)]
        assert decoding[1] < 1.05 * decoding[0]
        assert many.step_s(prefills=[(2048, 0)]) < few.step_s(prefills=[(2048, 0)])
        assert many.kv_cache_tokens > large / small * few.kv_cache_tokens


@pytest.mark.parametrize("key", TABLES)
def test_a_table_says_what_it_is_and_comes_back_from_json(key: tuple[str, str, str]) -> None:
    table = load_table(*key)
    assert (table.model, table.format, table.gpu) == key
    assert table.source == "Operations"
    assert "aiconfigurator-core" in table.provenance
    assert "Apache-2.0" in table.provenance
    assert table_from_json(table_to_json(table)) == table


def test_the_gpu_may_be_named_with_its_board() -> None:
    assert load_table("llama-3.1-8b", "bf16", "h100_sxm") is not None
    assert load_table("llama-3.1-8b", "bf16", "h100_sxm") == load_table("llama-3.1-8b", "bf16", "h100")


def test_a_missing_table_is_an_error_that_lists_what_exists() -> None:
    with pytest.raises(UnknownTable, match=r"llama-3\.1-8b in fp4 on h100: there is bf16 on"):
        load_table("llama-3.1-8b", "fp4", "h100")
    with pytest.raises(UnknownTable, match=r"the model gpt-2: there is .*llama-3\.1-70b, llama-3\.1-8b"):
        load_table("gpt-2", "bf16", "h100")


@pytest.mark.parametrize("text", ["{}", "[]", '{"by_tensor_parallel_size": {"1": {}}}'])
def test_what_is_not_a_table_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a timing table"):
        table_from_json(text)


def test_a_wheel_brings_the_tables() -> None:
    settings = tomllib.loads((Path(paceline_core.__file__).parent / "pyproject.toml").read_text())
    assert "tables/*.json" in settings["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]
