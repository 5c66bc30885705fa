"""The labels of vllm:cache_config_info: each field of vLLM 0.32's CacheConfig is one, so none may be missing.

Those that say something of an emulated engine have a value of its own; the rest stand as vLLM leaves them by
default.
"""

from __future__ import annotations

from typing import Final

from paceline_core.batch import KV_BLOCK_TOKENS

_AS_BY_DEFAULT: Final = {
    "user_specified_block_size": "False",
    "prefix_match_unit": "None",
    "kv_cache_layout": "None",
    "gpu_memory_utilization": "0.92",
    "cache_dtype": "auto",
    "is_attention_free": "False",
    "num_gpu_blocks_override": "None",
    "sliding_window": "None",
    "prefix_caching_hash_algo": "sha256",
    "prefix_cache_retention_interval": "0",
    "kv_cache_dtype_skip_layers": "[]",
    "mamba_page_size_padded": "None",
    "skip_page_size_padded": "None",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "mamba_ssm_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "enable_mamba_shared_prefix_checkpoint": "False",
    "replayssm_buffer_len": "16",
    "use_replayssm": "False",
    "use_kda_recoverssm": "False",
    "num_cpu_blocks": "None",
    "effective_attention_block_size": "None",
    "kv_cache_max_concurrency": "None",
    "hash_block_size": "None",
    "cache_hit_alignment_tokens": "None",
    "kv_sharing_fast_prefill": "False",
    "swa_bounded_replay": "True",
    "kv_cache_memory_bytes": "None",
    "kv_offloading_size": "None",
    "kv_offloading_backend": "native",
    "_block_size_resolved": "True",
}


def cache_config_labels(*, kv_cache_tokens: int, prefix_caching: bool) -> dict[str, str]:
    return {
        "engine": "0",
        "block_size": str(KV_BLOCK_TOKENS),
        "enable_prefix_caching": str(prefix_caching),
        "num_gpu_blocks": str(kv_cache_tokens // KV_BLOCK_TOKENS),
        "kv_cache_size_tokens": str(kv_cache_tokens),
        **_AS_BY_DEFAULT,
    }
