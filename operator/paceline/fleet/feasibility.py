"""Whether the checkpoint can be served as the spec wants it, as far as the operator knows before anything
is made.

The rules are `paceline_core.fit`'s, the same that the launcher asks in the pod. What is not known refuses
nothing.
"""

from __future__ import annotations

from dataclasses import replace

from paceline.api import InferenceService, Refused, bytes_of
from paceline.fleet.observed import Node, Observed
from paceline.fleet.situation import INFEASIBLE
from paceline_core import (
    BUNDLED_FACTS,
    BundledUri,
    CheckpointFacts,
    EngineSetup,
    HubUri,
    UriError,
    parse_uri,
    refusals,
)

PRODUCT_LABEL = "nvidia.com/gpu.product"


def refusal_before_start(observed: Observed, *, tensor_parallel_size: int) -> Refused | None:
    """All that is known to speak against the spec, under the first field at fault."""
    service = observed.service
    facts = known_facts(observed)
    if facts is None or service.spec.runtime.emulation is not None:
        return None
    model = service.spec.model
    found = refusals(
        facts,
        EngineSetup(
            tensor_parallel_size=tensor_parallel_size,
            max_model_tokens=model.max_model_tokens,
            kv_cache_bytes=model.kv_cache.size_bytes,
            kv_cache_dtype=model.kv_cache.dtype,
            weights=model.quantization.weights,
            weights_source=model.quantization.source,
            rank_memory_bytes=rank_memory_bytes(observed, tensor_parallel_size=tensor_parallel_size),
            expert_parallel="--enable-expert-parallel" in service.spec.runtime.extra_args,
        ),
    )
    if not found:
        return None
    message = "; ".join(f"{one.field}: {one.message}" for one in found)
    return Refused(
        generation=observed.meta.generation, field=found[0].field, reason=INFEASIBLE, message=message[:1024]
    )


def known_facts(observed: Observed) -> CheckpointFacts | None:
    model = observed.service.spec.model
    try:
        uri = parse_uri(model.uri)
    except UriError:
        return observed.facts
    if not isinstance(uri, BundledUri):
        return observed.facts
    facts = BUNDLED_FACTS.get(uri.name, observed.facts)
    if facts is not None and model.quantization.weights == "INT8":
        # The image holds an INT8 copy of its own, of another size and format than the facts describe.
        return replace(facts, quantization=None, weights_bytes=None)
    return facts


def rank_memory_bytes(observed: Observed, *, tensor_parallel_size: int) -> int | None:
    """Of the largest device that the pods may get: nothing is refused that would fit on one of them.

    On a CPU, a process's part of the memory limit, if there is one.
    """
    spec = observed.service.spec
    if spec.accelerator.is_cpu:
        limit = spec.runtime.resources.limits.get("memory")
        return bytes_of(limit) // tensor_parallel_size if limit is not None else None
    label = f"{spec.accelerator.resource_name}.memory"
    sizes = [node.labels.get(label, "") for node in observed.nodes if may_take(node, observed.service)]
    if not sizes or not all(size.isdigit() for size in sizes):
        return None
    return max(int(size) for size in sizes) * 1024**2


def model_uri_to_serve(observed: Observed, *, serving_uri: str | None) -> str:
    """The uri of the spec with its branch pinned to a commit, if one is known.

    `serving_uri` is what the variant that serves was made from: as long as it is the same, so is the
    commit. A change of the tensor-parallel size must not bring other weights with it.
    """
    text = observed.service.spec.model.uri
    try:
        uri = parse_uri(text)
    except UriError:
        return text
    if not isinstance(uri, HubUri) or uri.is_pinned:
        return text
    model = observed.status.model if observed.status is not None else None
    pinned = model.revision if model is not None and serving_uri == text else None
    commit = pinned or observed.model_revision
    found = uri.pinned(commit) if commit is not None else uri
    return str(found) if found.is_pinned else text


def may_take(node: Node, service: InferenceService) -> bool:
    """Whether the node has the device, the product and the labels that the spec asks for."""
    accelerator = service.spec.accelerator
    wanted = accelerator.node_selector.items()
    return (
        node.allocatable.get(accelerator.resource_name, "0") != "0"
        and (not accelerator.products or node.labels.get(PRODUCT_LABEL) in accelerator.products)
        and all(node.labels.get(key) == value for key, value in wanted)
    )
