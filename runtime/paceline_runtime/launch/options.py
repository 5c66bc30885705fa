"""The arguments of `paceline-runtime serve`, as one value: what the container was told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from paceline_core import Layout
from paceline_runtime.launch.emulation import Emulation

WeightsFormat = Literal["Auto", "None", "FP8", "INT8", "INT4"]
WeightsSource = Literal["Auto", "Checkpoint", "Online"]
KvCacheDtype = Literal["Auto", "FP8"]
Switch = Literal["Enabled", "Disabled"]
Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    model_uri: str
    served_names: tuple[str, ...]
    tensor_parallel_size: int
    data_parallel_size: int
    """Ranks of that size, each an engine of its own behind the one port."""
    max_model_tokens: int
    weights: WeightsFormat
    weights_source: WeightsSource
    kv_cache_dtype: KvCacheDtype
    kv_cache_bytes: int
    """of one rank"""
    prefix_caching: Switch
    max_sequences: int
    max_batched_tokens: int | None
    """None: vLLM's own choice."""
    max_queued_requests: int
    max_queued_tokens: int
    max_prompt_tokens: int
    max_output_tokens: int
    max_request_s: float
    device: Device
    service: str
    targets_path: Path
    routers: str | None
    host: str
    port: int
    live_port: int | None
    """Where the launcher answers the liveness probe; None: the engine does, on its own port."""
    admin_socket: Path
    canary_reference: Path
    """What the pods before answered; the file is not there before any has served."""
    layout_file: Path | None
    """Where the pod is told another layout; None where nobody tells it one."""
    trust_remote_code: bool
    eager: bool
    emulation: Emulation | None
    extra_args: tuple[str, ...]
    """Passed on to vLLM: --flag or --flag=value, each on the allow-list."""

    @property
    def layout(self) -> Layout:
        return Layout(self.tensor_parallel_size, self.data_parallel_size)

    def laid_out(self, layout: Layout) -> ServeOptions:
        return replace(
            self,
            tensor_parallel_size=layout.tensor_parallel_size,
            data_parallel_size=layout.data_parallel_size,
        )

    @property
    def max_unfinished(self) -> int:
        """Of one rank. vLLM's queue limit counts running requests with the waiting ones."""
        return self.max_sequences + self.max_queued_requests

    @property
    def checked_prompt_tokens(self) -> int | None:
        """The prompt limit that needs a check of its own; None where the model's length is reached first."""
        return self.max_prompt_tokens if self.max_prompt_tokens < self.max_model_tokens - 1 else None
