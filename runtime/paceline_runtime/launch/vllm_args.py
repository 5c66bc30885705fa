"""From what the container was told to the command line and the environment of vLLM 0.32. Pure; golden tests
hold it.

Every choice that vLLM would make from the machine it finds is made here, so that two pods of a variant are
the same: the KV cache in bytes, the queue, the histogram edges. What vLLM would do to the outside (usage
statistics, asking the hub at every start) is switched off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from paceline_core.checkpoint import QuantizationFacts
from paceline_runtime.launch.failure import Refused
from paceline_runtime.launch.options import ServeOptions

MODULE = "vllm.entrypoints.openai.api_server"
MIDDLEWARE = "paceline_runtime.vllm_plugin.middleware.RequestLedger"
KEEP_ALIVE_S = 120
"""How long an idle connection stays open: longer than a router keeps one in its pool (90 s is the default of
the client library in vllm-router), so that it is never the engine that closes a connection on which a request
is just being sent."""

_GENERATION_CONFIG = "--override-generation-config"
_EXTRA_ARGS = "spec.runtime.extraArgs"

SWITCHES = frozenset(
    {
        "async-scheduling",
        "no-async-scheduling",
        "disable-cascade-attn",
        "enable-auto-tool-choice",
        "enable-expert-parallel",
        "enable-force-include-usage",
        "enable-prompt-tokens-details",
        "enforce-eager",
        "language-model-only",
    }
)
VALUES = frozenset(
    {
        "attention-backend",
        "chat-template",
        "chat-template-content-format",
        "default-chat-template-kwargs",
        "dtype",
        "generation-config",
        "limit-mm-per-prompt",
        "long-prefill-token-threshold",
        "max-logprobs",
        "moe-backend",
        "override-generation-config",
        "reasoning-parser",
        "seed",
        "tokenizer-mode",
        "tool-call-parser",
    }
)
"""What else of vLLM may be set: nothing that changes routes, memory or shape, which have fields of their
own. The API server refuses the rest already; this is for whoever starts without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFrom:
    """What vLLM is pointed at."""

    path: str
    """A folder, or an s3:// uri."""
    streamed: bool
    quantization: QuantizationFacts | None
    """None: unknown."""
    dtype: Literal["float32"] | None = None
    """What the engine computes in; None: the checkpoint's own."""


def vllm_args(
    options: ServeOptions, *, model: LoadedFrom, buckets: Mapping[str, Sequence[float]]
) -> list[str]:
    """After `python -m vllm.entrypoints.openai.api_server`."""
    prefix_caching = options.prefix_caching == "Enabled"
    args = [
        *("--host", options.host),
        *("--port", str(options.port)),
        *("--model", model.path),
        *("--served-model-name", *options.served_names),
        *("--tensor-parallel-size", str(options.tensor_parallel_size)),
        *(
            ("--data-parallel-size", str(options.data_parallel_size))
            if options.data_parallel_size > 1
            else ()
        ),
        *("--max-model-len", str(options.max_model_tokens)),
        *("--kv-cache-memory-bytes", str(options.kv_cache_bytes)),
        *("--kv-cache-dtype", "fp8" if options.kv_cache_dtype == "FP8" else "auto"),
        "--enable-prefix-caching" if prefix_caching else "--no-enable-prefix-caching",
        *("--max-num-seqs", str(options.max_sequences)),
        # Of the whole server, where all else is of one rank.
        *("--max-num-queued-reqs", str(options.max_unfinished * options.data_parallel_size)),
        *("--max-num-queued-tokens", str(options.max_queued_tokens * options.data_parallel_size)),
        *("--shutdown-timeout", str(math.ceil(options.max_request_s))),
        *("--custom-histogram-buckets", _json(buckets)),
        *("--middleware", MIDDLEWARE),
        "--disable-uvicorn-access-log",
    ]
    if options.max_batched_tokens is not None:
        args += ["--max-num-batched-tokens", str(options.max_batched_tokens)]
    if _quantizes_at_load(options, model.quantization):
        args += ["--quantization", "fp8"]
    if model.dtype is not None:
        args += ["--dtype", model.dtype]
    if model.streamed:
        args += ["--load-format", "runai_streamer"]
    if options.trust_remote_code:
        args.append("--trust-remote-code")
    if options.eager and "--enforce-eager" not in options.extra_args:
        args.append("--enforce-eager")
    generation: dict[str, Any] = {}
    for arg in options.extra_args:
        name, _, value = arg.partition("=")
        _check_extra(name, value=value if "=" in arg else None)
        if name == _GENERATION_CONFIG:
            generation = _object(value)
        else:
            args.append(arg)
    # vLLM has no argument for the longest answer but this one, which also bounds what a client asks for.
    wanted = generation.get("max_new_tokens", options.max_output_tokens)
    generation["max_new_tokens"] = min(wanted, options.max_output_tokens)
    return [*args, _GENERATION_CONFIG, _json(generation)]


def vllm_env(*, model: LoadedFrom, eager: bool) -> dict[str, str]:
    """What the container's environment cannot change."""
    environment = {
        # vLLM loads endpoint plugins only if they are named, and then no other plugin.
        "VLLM_PLUGINS": "paceline",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_S),
        "PYTHONUNBUFFERED": "1",
    }
    if eager:
        # Even then vLLM compiles a few functions (the masked embedding at TP > 1): the image has no C++
        # compiler.
        environment["TORCH_COMPILE_DISABLE"] = "1"
    if not model.streamed:
        # The files are here: a hub that is down must not keep a pod from starting.
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _quantizes_at_load(options: ServeOptions, checkpoint: QuantizationFacts | None) -> bool:
    """Whether vLLM makes FP8 of 16-bit weights. `fit` has refused what vLLM cannot make of the checkpoint."""
    if options.weights != "FP8" or options.weights_source == "Checkpoint":
        return False
    return options.weights_source == "Online" or (checkpoint is not None and checkpoint.method == "none")


def _check_extra(name: str, *, value: str | None) -> None:
    bare = name.removeprefix("--")
    if not name.startswith("--") or bare not in (SWITCHES | VALUES):
        raise Refused(
            f"{name} is not an argument that may be passed: leave it out, or use the field for it",
            field=_EXTRA_ARGS,
        )
    if bare in VALUES and not value:
        raise Refused(f"{name} needs a value: write {name}=…", field=_EXTRA_ARGS)
    if bare in SWITCHES and value is not None:
        raise Refused(f"{name} takes no value: write {name}", field=_EXTRA_ARGS)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("max_new_tokens", 1), int):
        raise Refused(f"{_GENERATION_CONFIG}: write a JSON object", field=_EXTRA_ARGS)
    return value


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
