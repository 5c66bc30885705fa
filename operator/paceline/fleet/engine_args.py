"""The command line of `paceline-runtime serve`: the interface between the operator and the runtime.

Every argument is written out, also where it equals the runtime's default: a pod must serve what its
template says, whatever a later runtime image takes for granted.
"""

from __future__ import annotations

from paceline.api import Emulation, InferenceService
from paceline.fleet.names import ENGINE_PORT, LIVE_PORT
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.services import routers_host

LAYOUT_PATH = "/etc/paceline/pod/layout"
TARGETS_PATH = "/etc/paceline/slo/targets.json"


def engine_args(
    service: InferenceService, *, meta: ServiceMeta, tensor_parallel_size: int, model_uri: str
) -> list[str]:
    spec = service.spec
    model, admission, runtime = spec.model, spec.admission, spec.runtime
    args = ["serve", "--model-uri", model_uri]
    for name in service.served_names:
        args += ["--served-model-name", name]
    args += [
        *("--tensor-parallel-size", str(tensor_parallel_size)),
        *("--max-model-len", str(model.max_model_tokens)),
        *("--weights", model.quantization.weights),
        *("--weights-source", model.quantization.source),
        *("--kv-cache-dtype", model.kv_cache.dtype),
        *("--kv-cache-bytes", str(model.kv_cache.size_bytes)),
        *("--prefix-caching", model.kv_cache.prefix_caching),
        *("--max-num-seqs", str(runtime.max_sequences)),
    ]
    if runtime.max_batched_tokens is not None:
        args += ["--max-num-batched-tokens", str(runtime.max_batched_tokens)]
    args += [
        *("--max-queued-requests", str(admission.max_queued_requests_per_replica)),
        *("--max-queued-tokens", str(admission.max_queued_tokens_per_replica)),
        *("--max-prompt-tokens", str(spec.max_prompt_tokens)),
        *("--max-output-tokens", str(admission.max_output_tokens)),
        *("--max-request-seconds", str(admission.max_request_seconds)),
        *("--device", "cpu" if spec.accelerator.is_cpu else "cuda"),
        *("--service", meta.name),
        *("--targets", TARGETS_PATH),
        *("--routers", routers_host(meta)),
        *("--port", str(ENGINE_PORT)),
        *("--layout-file", LAYOUT_PATH),
    ]
    if model.trust_remote_code:
        args.append("--trust-remote-code")
    if runtime.emulation is not None:
        args += _emulation_args(runtime.emulation)
    else:
        args += ["--live-port", str(LIVE_PORT)]
        if spec.accelerator.is_cpu:
            # vLLM's CPU build compiles for most of a minute at every start and never reloads what it compiled.
            args.append("--eager")
    if runtime.extra_args:
        args += ["--", *runtime.extra_args]
    return args


def _emulation_args(emulation: Emulation) -> list[str]:
    """What only tests want (κ, δ, noise, faults) comes by `spec.runtime.env`, as EMULATE_KAPPA and so on."""
    timing = emulation.timing
    if timing is None:
        pace = ["--emulate-step-ms", str(emulation.constant_step_milliseconds)]
    else:
        pace = [
            *("--emulate-gpu", timing.gpu),
            *("--emulate-model", timing.model),
            *("--emulate-format", timing.format),
        ]
    return ["--emulate", *pace, "--emulate-start-seconds", str(emulation.start_seconds)]
