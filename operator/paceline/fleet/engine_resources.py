"""CPU, memory and devices of the engine container.

/dev/shm and the other memory volumes are charged to the container that writes them, so they are added to
the memory that the user gives for the engine itself: without that, NCCL's buffers would get a pod killed at
its limit.
"""

from __future__ import annotations

from typing import Any

from paceline.api import InferenceService, bytes_of

RUN_DIRECTORY_BYTES = 16 * 1024**2
"""/run/paceline: one socket and room to spare."""

_GIB = 1024**3
_MIB = 1024**2


def engine_resources(service: InferenceService, *, tensor_parallel_size: int) -> dict[str, Any]:
    """Requests and limits.

    No limit is invented: a guessed memory limit kills pods, and a guessed CPU limit throttles them. Where
    the user names neither a request nor a limit of a resource, a modest request keeps the pod from being
    the first to go."""
    given = service.spec.runtime.resources
    limits = _with_memory_volumes(service, dict(given.limits))
    requests = {
        resource: amount
        for resource, amount in _default_requests(service, tensor_parallel_size).items()
        if resource not in given.limits
    }
    requests |= _with_memory_volumes(service, dict(given.requests))
    if not service.spec.accelerator.is_cpu:
        device = {service.spec.accelerator.resource_name: str(tensor_parallel_size)}
        limits |= device
        requests |= device
    return {"requests": requests} | ({"limits": limits} if limits else {})


def _default_requests(service: InferenceService, tensor_parallel_size: int) -> dict[str, str]:
    """What was seen: an engine on a CPU holds about 2 GiB and its KV cache per process; on GPUs each
    process keeps a core busy, and two more run the server and the scheduler."""
    spec = service.spec
    if spec.runtime.emulation is not None:
        return {"cpu": "50m", "memory": "192Mi"}
    if spec.accelerator.is_cpu:
        memory = 2 * _GIB + tensor_parallel_size * spec.model.kv_cache.size_bytes
        return {"cpu": "500m", "memory": _quantity(memory)}
    return {"cpu": str(tensor_parallel_size + 2), "memory": "8Gi"}


def _with_memory_volumes(service: InferenceService, resources: dict[str, str]) -> dict[str, str]:
    if "memory" in resources:
        volumes = service.spec.runtime.shared_memory_bytes + RUN_DIRECTORY_BYTES
        resources["memory"] = _quantity(bytes_of(resources["memory"]) + volumes)
    return resources


def _quantity(amount_bytes: int) -> str:
    """In the canonical form of the API server, so that what is read back equals what was sent."""
    for suffix, unit in (("Gi", _GIB), ("Mi", _MIB)):
        if amount_bytes % unit == 0:
            return f"{amount_bytes // unit}{suffix}"
    return str(amount_bytes)
