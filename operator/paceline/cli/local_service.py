"""An InferenceService as one process on this machine: what to start, and what of the manifest has no meaning here.

Called by `paceline serve`. Pure: a manifest and the environment go in, a `LocalRun` or a refusal comes out. The
engine's arguments are the fleet's own, so that what runs here is what a pod would run; only what belongs to a pod
(mounted files, routers, the port) is put in the terms of one machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from paceline.api import KIND, InferenceService
from paceline.fleet.engine_args import engine_args
from paceline.fleet.observed import ServiceMeta


class CannotServeHere(Exception):
    """The manifest is wrong, or asks for what only a cluster has; the message says what to write or to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """One engine process."""

    name: str
    served_name: str
    args: tuple[str, ...]
    """Of `paceline-runtime`."""

    env: Mapping[str, str]
    targets_path: Path
    targets_json: str
    needs_vllm: bool
    needs_gpu: bool
    start_within_s: float
    request_within_s: float
    left_out: tuple[str, ...]
    """What of the manifest does nothing here, a sentence each."""


def read_manifest(text: str) -> InferenceService:
    """The one InferenceService among the documents of a YAML file."""
    try:
        documents = [body for body in yaml.safe_load_all(text) if isinstance(body, dict)]
    except yaml.YAMLError as error:
        raise CannotServeHere(f"not YAML: {error}") from error
    services = [body for body in documents if body.get("kind") == KIND]
    if len(services) != 1:
        raise CannotServeHere(f"the file holds {len(services)} objects of kind {KIND}: give a file with one")
    try:
        return InferenceService.from_manifest(services[0])
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        lines = (f"  {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in faults)
        raise CannotServeHere("\n".join(["the manifest is not valid:", *lines])) from error


def local_run(
    service: InferenceService, *, host: str, port: int, state: Path, environ: Mapping[str, str]
) -> LocalRun:
    """What to start; raises CannotServeHere where the manifest needs a cluster. `state` is the folder in the place
    of what is mounted into a pod; the caller makes it."""
    spec = service.spec
    if spec.model.uri.startswith("pvc://"):
        raise CannotServeHere(
            f"spec.model.uri: {spec.model.uri} is a volume of a cluster: write hf://…, s3://… or bundled://…"
        )
    args = engine_args(
        service,
        meta=_meta_of(service),
        tensor_parallel_size=spec.scaling.tensor_parallel_size,
        model_uri=spec.model.uri,
    )
    targets_path = state / "targets.json"
    for flag, here in (
        ("--targets", ["--targets", str(targets_path)]),
        ("--port", ["--port", str(port), "--host", host]),
        # Nobody routes to it, so ending it waits for nobody to forget it.
        ("--routers", ["--admin-socket", str(state / "admin.sock")]),
    ):
        args = _replaced(args, flag, here)
    if "--live-port" in args:
        args = _replaced(args, "--live-port", [])
    emulated = spec.runtime.emulation is not None
    return LocalRun(
        name=service.metadata.name,
        served_name=service.served_names[0],
        args=tuple(args),
        env=dict(_environment(service, environ)),
        targets_path=targets_path,
        targets_json=spec.slo.targets().to_json(),
        needs_vllm=not emulated,
        needs_gpu=not emulated and not spec.accelerator.is_cpu,
        start_within_s=spec.transition.ready_deadline_seconds,
        request_within_s=spec.admission.max_request_seconds,
        left_out=tuple(_left_out(service)),
    )


def _replaced(args: list[str], flag: str, here: list[str]) -> list[str]:
    """The arguments with an option that they hold, and its value, replaced."""
    at = args.index(flag)
    return [*args[:at], *here, *args[at + 2 :]]


def _environment(service: InferenceService, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    model = service.spec.model
    if model.secret_ref is not None and "HF_TOKEN" not in environ:
        raise CannotServeHere(
            f"spec.model.secretRef: there is no Secret {model.secret_ref.name} here: export HF_TOKEN with its token"
        )
    for variable in service.spec.runtime.env:
        if variable.value is not None:
            yield variable.name, variable.value
        elif variable.name not in environ:
            raise CannotServeHere(
                f"spec.runtime.env: {variable.name} comes from a Secret or ConfigMap, which is not here: "
                f"export {variable.name}"
            )


def _left_out(service: InferenceService) -> Iterator[str]:
    """Only what was written: a default that means nothing here needs no words."""
    spec = service.spec
    if spec.scaling.replicas != 1:
        yield f"spec.scaling.replicas: one process runs, not {spec.scaling.replicas}"
    written = spec.model_fields_set
    if "router" in written:
        yield "spec.router: nothing stands before the engine"
    if spec.endpoint.api_key_secret_ref is not None:
        yield "spec.endpoint.apiKeySecretRef: the endpoint asks for no key; it listens on this machine only"
    if spec.model.cache is not None:
        yield "spec.model.cache: models are cached where HF_HOME says"
    runtime = spec.runtime.model_fields_set
    for name, alias in (
        ("image", "image"),
        ("resources", "resources"),
        ("image_pull_secrets", "imagePullSecrets"),
        ("shared_memory_size", "sharedMemorySize"),
    ):
        if name in runtime:
            yield f"spec.runtime.{alias}: a process has none"
    for part in ("placement", "disruption", "observability"):
        if part in written:
            yield f"spec.{part}: there is one process on one machine"


def _meta_of(service: InferenceService) -> ServiceMeta:
    return ServiceMeta(
        name=service.metadata.name,
        namespace=service.metadata.namespace,
        uid="",
        generation=0,
        resource_version="",
        created_at_s=0.0,
        deleting=False,
        annotations={},
        managed_fields=(),
    )
