"""From `spec.model.uri` to what vLLM is pointed at, refusing first what cannot be served.

Called once by the launcher, before any process of the engine exists. A uri or a file that is not there
fails the start (it may be there the next time); a checkpoint that contradicts the spec refuses it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from paceline_core import (
    BUNDLED_FACTS,
    BundledUri,
    CheckpointFacts,
    ClaimUri,
    EngineSetup,
    HubUri,
    ModelUri,
    S3Uri,
    UriError,
    parse_uri,
    refusals,
)
from paceline_runtime.launch import machine
from paceline_runtime.launch.checkpoint_files import read_facts
from paceline_runtime.launch.failure import Refused, StartFailure
from paceline_runtime.launch.options import ServeOptions
from paceline_runtime.launch.vllm_args import LoadedFrom
from paceline_runtime.vllm_plugin.settings import ModelFacts

log = structlog.get_logger(__name__)

CLAIM_MOUNT = Path("/models/pvc")
BUNDLED_ROOT = Path("/opt/paceline/models")


@dataclass(frozen=True, slots=True)
class Model:
    loaded_from: LoadedFrom
    facts: ModelFacts


def resolve(options: ServeOptions) -> Model:
    """Raises Refused or StartFailure."""
    match _parse(options):
        case HubUri() as uri:
            from paceline_runtime.launch import hub

            memory_bytes = _rank_memory_bytes(options)
            fetched = hub.fetch(
                uri, check=lambda facts: _refuse_misfit(facts, options, memory_bytes=memory_bytes)
            )
            return _in_folder(fetched.folder, options, revision=fetched.commit)
        case ClaimUri() as uri:
            return _in_folder(CLAIM_MOUNT / uri.path, options, revision=None)
        case BundledUri() as uri:
            root = Path(os.environ.get("PACELINE_BUNDLED_MODELS", BUNDLED_ROOT))
            # The image holds each format of a bundled model beside the others.
            name = f"{uri.name}-int8" if options.weights == "INT8" else uri.name
            return _in_folder(root / name, options, revision=None)
        case S3Uri() as uri:
            # vLLM streams it; its files are not looked at here.
            loaded_from = LoadedFrom(path=str(uri), streamed=True, quantization=None)
            return Model(loaded_from, _model_facts(CheckpointFacts(), options, revision=None))


def resolve_unloaded(options: ServeOptions) -> ModelFacts:
    """For an engine that loads nothing: refuses what is known without any file. Raises Refused."""
    uri = _parse(options)
    facts = CheckpointFacts()
    # Known are the 16-bit files alone.
    if isinstance(uri, BundledUri) and options.weights != "INT8":
        facts = BUNDLED_FACTS[uri.name]
        _refuse_misfit(facts, options, memory_bytes=None)
    return _model_facts(facts, options, revision=None)


def _parse(options: ServeOptions) -> ModelUri:
    try:
        return parse_uri(options.model_uri)
    except UriError as error:
        raise Refused(str(error), field="spec.model.uri") from error


def _model_facts(facts: CheckpointFacts, options: ServeOptions, *, revision: str | None) -> ModelFacts:
    return ModelFacts(
        uri=options.model_uri,
        revision=revision,
        attention_heads=facts.attention_heads,
        kv_heads=facts.kv_heads,
        weights_bytes=facts.weights_bytes,
    )


def _in_folder(folder: Path, options: ServeOptions, *, revision: str | None) -> Model:
    if not folder.is_dir():
        raise StartFailure(f"{options.model_uri}: there is no folder {folder}", stage="fetch")
    facts = read_facts(folder)
    if facts.file_format is None:
        raise StartFailure(f"{options.model_uri}: {folder} holds no weights", stage="fetch")
    _refuse_misfit(facts, options, memory_bytes=_rank_memory_bytes(options))
    return Model(
        LoadedFrom(
            path=str(folder),
            streamed=False,
            quantization=facts.quantization,
            dtype="float32" if _widens(facts, options) else None,
        ),
        _model_facts(facts, options, revision=revision),
    )


def _widens(facts: CheckpointFacts, options: ServeOptions) -> bool:
    """Whether 16-bit weights are computed in 32 bits: on a CPU without instructions for 16-bit floats.

    There a layer of SmolLM2 took 3.4 ms in bf16 and 0.6 ms in float32 (16×576×1536, one thread, AVX2).
    """
    if options.device != "cpu" or any(arg.startswith("--dtype=") for arg in options.extra_args):
        return False
    plain = facts.quantization is not None and facts.quantization.method == "none"
    return plain and facts.dtype in ("bfloat16", "float16") and not machine.computes_bf16()


def _refuse_misfit(facts: CheckpointFacts, options: ServeOptions, *, memory_bytes: int | None) -> None:
    """`memory_bytes` is that of one rank; None: unknown, and no rule about memory speaks."""
    setup = EngineSetup(
        tensor_parallel_size=options.tensor_parallel_size,
        max_model_tokens=options.max_model_tokens,
        kv_cache_bytes=options.kv_cache_bytes,
        kv_cache_dtype=options.kv_cache_dtype,
        weights=options.weights,
        weights_source=options.weights_source,
        rank_memory_bytes=memory_bytes,
        expert_parallel="--enable-expert-parallel" in options.extra_args,
        device=options.device,
        widened=options.emulation is None and _widens(facts, options),
    )
    found = refusals(facts, setup)
    for refusal in found:
        log.error("refused", field=refusal.field, reason=refusal.message)
    if found:
        raise Refused(found[0].message, field=found[0].field)


def _rank_memory_bytes(options: ServeOptions) -> int | None:
    if options.device == "cuda":
        return machine.gpu_memory_bytes()
    limit = machine.memory_limit_bytes()
    return None if limit is None else limit // options.layout.gpus
