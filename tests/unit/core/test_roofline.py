import pytest

from paceline_core import CheckpointFacts, StepTiming, load_table, shipped_tables
from paceline_core.gpus import GPUS, UnknownGpu, gpu_named
from paceline_core.roofline import NoEstimate, estimate_table
from paceline_core.timing_tables import table_from_json, table_to_json


def dense(
    layers: int, hidden: int, inner: int, heads: int, vocabulary: int, *, head_dim: int = 128
) -> CheckpointFacts:
    return CheckpointFacts.parse(
        {
            "num_hidden_layers": layers,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_attention_heads": heads,
            "num_key_value_heads": 8,
            "head_dim": head_dim,
            "vocab_size": vocabulary,
        }
    )


FACTS = {
    "llama-3.1-8b": dense(32, 4096, 14336, 32, 128256),
    "llama-3.1-70b": dense(80, 8192, 28672, 64, 128256),
    "qwen3-32b": dense(64, 5120, 25600, 64, 151936),
    "gpt-oss-120b": CheckpointFacts.parse(
        {
            "num_hidden_layers": 36,
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "vocab_size": 201088,
            "num_local_experts": 128,
            "experts_per_token": 4,
            "sliding_window": 128,
            "layer_types": ["sliding_attention", "full_attention"] * 18,
        }
    ),
}


def decode_s(step: StepTiming, sequences: int) -> float:
    return step.step_s(decodes=sequences, decode_context_tokens=1024 * sequences)


@pytest.mark.parametrize("key", [pytest.param(key, id="-".join(key)) for key in shipped_tables()])
def test_an_estimate_lies_near_what_was_measured(key: tuple[str, str, str]) -> None:
    """Within a third, and more for a mixture of experts."""
    model, format, gpu = key
    measured = load_table(*key).by_tensor_parallel_size
    table = estimate_table(FACTS[model], model=model, format=format, gpu=gpu)
    assert set(table.by_tensor_parallel_size) == set(measured)
    low, high = (0.6, 1.6) if model == "gpt-oss-120b" else (0.7, 1.33)
    for size, estimated in table.by_tensor_parallel_size.items():
        for sequences in (1, 32, 128):
            assert low < decode_s(estimated, sequences) / decode_s(measured[size], sequences) < high
        for chunk in (512, 2048, 8192):
            ratio = estimated.step_s(prefills=[(chunk, 0)]) / measured[size].step_s(prefills=[(chunk, 0)])
            assert low < ratio < high


def test_an_estimate_says_that_it_is_one() -> None:
    table = estimate_table(FACTS["llama-3.1-8b"], model="llama-3.1-8b", format="bf16", gpu="b200_sxm")
    assert table.source == "Roofline"
    assert table.gpu == "b200"
    assert "not measured" in table.provenance
    assert table_from_json(table_to_json(table)) == table


def test_a_cache_that_is_not_plain_is_counted_whole_and_said_so() -> None:
    table = estimate_table(FACTS["gpt-oss-120b"], model="gpt-oss-120b", format="mxfp4", gpu="h200")
    assert "as if every layer kept every token" in table.provenance
    shipped = load_table("gpt-oss-120b", "mxfp4", "h200").by_tensor_parallel_size[2]
    assert table.by_tensor_parallel_size[2].kv_cache_tokens < shipped.kv_cache_tokens


@pytest.mark.parametrize("gpu", GPUS)
def test_more_tokens_and_fewer_gpus_never_take_less(gpu: str) -> None:
    table = estimate_table(FACTS["llama-3.1-8b"], model="llama-3.1-8b", format="fp8", gpu=gpu)
    sizes = sorted(table.by_tensor_parallel_size)
    for size in sizes:
        step = table.by_tensor_parallel_size[size]
        assert list(step.knot_s) == sorted(step.knot_s)
        assert step.kv_cache_tokens <= table.by_tensor_parallel_size[sizes[-1]].kv_cache_tokens
        assert step.step_s(prefills=[(8192, 0)]) >= table.by_tensor_parallel_size[sizes[-1]].step_s(
            prefills=[(8192, 0)]
        )


def test_nothing_is_estimated_for_tensor_parallelism_over_pcie() -> None:
    one = estimate_table(FACTS["llama-3.1-8b"], model="llama-3.1-8b", format="bf16", gpu="l40s")
    assert set(one.by_tensor_parallel_size) == {1}
    with pytest.raises(NoEstimate, match=r"llama-3\.1-70b in fp8 \(73 GB\) fits no .*over PCIe.*measure it"):
        estimate_table(FACTS["llama-3.1-70b"], model="llama-3.1-70b", format="fp8", gpu="l40s")


def test_what_cannot_be_estimated_is_named() -> None:
    with pytest.raises(NoEstimate, match="intermediate_size"):
        estimate_table(
            CheckpointFacts.parse({"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2}),
            model="m",
            format="bf16",
            gpu="h100",
        )
    with pytest.raises(NoEstimate, match="the format int3: there is bf16, fp8, mxfp4"):
        estimate_table(FACTS["qwen3-32b"], model="qwen3-32b", format="int3", gpu="h100")
    with pytest.raises(UnknownGpu, match="the GPU v100: there is a100, "):
        gpu_named("v100")
