"""The CRD of this tree in a real API server, and a namespace to write into."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from paceline.api.base import GROUP, PLURAL, VERSION
from paceline.api.crd import custom_resource_definition
from tests.integration.control_plane import ControlPlane

EXAMPLES = Path(__file__).parents[3] / "examples"
NAMESPACE = "default"
ESTABLISHED_DEADLINE_S = 30

Manifest = dict[str, Any]
Create = Callable[..., Manifest]


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(control_plane.kubeconfig)) as made:
        _install(made)
        yield made


@pytest.fixture(scope="session")
def services(api: client.ApiClient) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(api)


@pytest.fixture
def create(services: client.CustomObjectsApi) -> Create:
    """Asks the API server to create a service, as kubectl does: strict. Nothing is stored."""

    def create(manifest: Manifest, *, field_validation: str = "Strict") -> Manifest:
        made: Manifest = services.create_namespaced_custom_object(
            GROUP, VERSION, NAMESPACE, PLURAL, manifest, dry_run="All", field_validation=field_validation
        )
        return made

    return create


@pytest.fixture
def stored(services: client.CustomObjectsApi) -> Iterator[Create]:
    """Really creates a service, and deletes it at the end of the test."""
    names: list[str] = []

    def create(manifest: Manifest) -> Manifest:
        made: Manifest = services.create_namespaced_custom_object(
            GROUP, VERSION, NAMESPACE, PLURAL, manifest, field_validation="Strict"
        )
        names.append(made["metadata"]["name"])
        return made

    yield create
    for name in names:
        services.delete_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, name)


def minimal(**spec: Any) -> Manifest:
    """The shortest manifest that is accepted, with parts of the spec replaced."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceService",
        "metadata": {"name": "smollm2"},
        "spec": {
            "model": {"uri": "bundled://smollm2-135m-instruct"},
            "scaling": {"replicas": 1, "tensorParallelSize": 1},
            **spec,
        },
    }


def example_documents() -> list[Any]:
    return [
        pytest.param(body, id=f"{path.name}:{body['metadata']['name']}")
        for path in sorted(EXAMPLES.glob("*.yaml"))
        for body in yaml.safe_load_all(path.read_text())
        if body["kind"] == "InferenceService"
    ]


def _install(api: client.ApiClient) -> None:
    extensions = client.ApiextensionsV1Api(api)
    name = f"{PLURAL}.{GROUP}"
    extensions.create_custom_resource_definition(custom_resource_definition())
    deadline = time.monotonic() + ESTABLISHED_DEADLINE_S
    while time.monotonic() < deadline:
        status = extensions.read_custom_resource_definition(name).status
        if any(c.type == "Established" and c.status == "True" for c in status.conditions or ()):
            break
        time.sleep(0.1)
    else:
        raise TimeoutError(f"{name} not established in {ESTABLISHED_DEADLINE_S} s")
    # Established says that the names are taken; the handler follows a moment later.
    while time.monotonic() < deadline:
        try:
            client.CustomObjectsApi(api).list_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL)
            return
        except client.ApiException as error:
            if error.status != 404:
                raise
            time.sleep(0.1)
    raise TimeoutError(f"{name} not served in {ESTABLISHED_DEADLINE_S} s")
