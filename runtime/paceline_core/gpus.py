"""What the makers' datasheets say of GPUs: memory, bandwidth, arithmetic without sparsity, the link between them.

Read by `roofline`, and by `paceline timing build` for the memory that a KV cache may use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20


class UnknownGpu(LookupError):
    """No datasheet figures of this GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    memory_bytes: int
    """The whole, as the driver reports it."""
    memory_bytes_per_s: float
    bf16_flops: float
    """Dense, per second, with 32 bit accumulation."""
    fp8_flops: float | None
    """None: no FP8 units; an engine then computes FP8 weights in 16 bit."""
    nvlink_bytes_per_s: float | None
    """One direction. None: the GPUs of a node meet over PCIe."""


GPUS: Final[Mapping[str, Gpu]] = {
    "a100": Gpu(
        memory_bytes=81920 * _MIB,
        memory_bytes_per_s=2.039e12,
        bf16_flops=312e12,
        fp8_flops=None,
        nvlink_bytes_per_s=300e9,
    ),
    "b200": Gpu(
        memory_bytes=183359 * _MIB,
        memory_bytes_per_s=8.0e12,
        bf16_flops=2250e12,
        fp8_flops=4500e12,
        nvlink_bytes_per_s=900e9,
    ),
    "h100": Gpu(
        memory_bytes=81559 * _MIB,
        memory_bytes_per_s=3.35e12,
        bf16_flops=989e12,
        fp8_flops=1979e12,
        nvlink_bytes_per_s=450e9,
    ),
    "h200": Gpu(
        memory_bytes=143771 * _MIB,
        memory_bytes_per_s=4.8e12,
        bf16_flops=989e12,
        fp8_flops=1979e12,
        nvlink_bytes_per_s=450e9,
    ),
    "l4": Gpu(
        memory_bytes=23034 * _MIB,
        memory_bytes_per_s=300e9,
        bf16_flops=121e12,
        fp8_flops=242e12,
        nvlink_bytes_per_s=None,
    ),
    "l40s": Gpu(
        memory_bytes=46068 * _MIB,
        memory_bytes_per_s=864e9,
        bf16_flops=362e12,
        fp8_flops=733e12,
        nvlink_bytes_per_s=None,
    ),
}
"""NVIDIA's datasheets: A100 SXM 80 GB, HGX B200, H100 SXM, H200 SXM, L4, L40S."""

KV_MEMORY_SHARE: Final = 0.90
"""Of a GPU's memory, for weights, activations and KV cache together."""
ENGINE_BYTES: Final = 5_000_000_000
"""Of that share, what is neither weights nor KV cache: activations, CUDA graphs, NCCL."""
LEAST_KV_TOKENS: Final = 12_000
"""Where a replica's cache holds less, the weights do not count as fitting: that is hardly one long request."""


def gpu_named(name: str) -> Gpu:
    """`h100_sxm` is another name of `h100`."""
    found = GPUS.get(name.removesuffix("_sxm"))
    if found is None:
        raise UnknownGpu(f"no datasheet figures of the GPU {name}: there is {', '.join(GPUS)}")
    return found


def kv_cache_tokens(
    gpu: Gpu, *, weights_bytes: float, kv_bytes_per_token: float, kv_heads: int, tensor_parallel_size: int
) -> int:
    """Of one replica, zero where the weights do not fit. `kv_bytes_per_token` is that of all KV heads together; more
    GPUs than KV heads hold copies."""
    left = KV_MEMORY_SHARE * gpu.memory_bytes - weights_bytes / tensor_parallel_size - ENGINE_BYTES
    return max(0, int(left / (kv_bytes_per_token / min(tensor_parallel_size, kv_heads))))
