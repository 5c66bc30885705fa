"""What a neighbour in the cluster may reach: OpenAI routes through the service's own endpoint, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from e2e.scenarios.tenant import Tenant

Example = Callable[..., dict[str, Any]]

ROUTER_ADMIN = (
    ("POST", "/add_worker?url=http://10.0.0.1:8000"),
    ("POST", "/remove_worker?url=http://10.0.0.1:8000"),
    ("GET", "/list_workers"),
    ("POST", "/flush_cache"),
    ("GET", "/get_loads"),
    ("GET", "/get_server_info"),
    ("GET", "/metrics"),
)
ENGINE_ADMIN = (
    ("POST", "/drain"),
    ("GET", "/state"),
    ("PUT", "/targets"),
    ("GET", "/ready"),
    ("GET", "/paceline/info"),
    ("GET", "/metrics"),
    ("POST", "/sleep"),
    ("POST", "/wake_up"),
    ("POST", "/reset_prefix_cache"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("POST", "/collective_rpc"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
)
CHANGES_SOMETHING = tuple(r for r in (*ROUTER_ADMIN, *ENGINE_ADMIN) if r[0] != "GET")

ASK = """
import http.client, json, sys
answers = []
for host, port, method, path in json.loads(sys.argv[1]):
    try:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        connection.request(method, path, body=b"{}" if method != "GET" else None)
        answers.append(connection.getresponse().status)
    except OSError as error:
        answers.append(type(error).__name__)
print(json.dumps(answers))
"""


@pytest.fixture
def neighbour(tenant: Tenant) -> Callable[[list[tuple[str, int, str, str]]], list[int | str]]:
    """Requests sent from a pod that has nothing to do with the service."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "neighbour"},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "shell",
                    "image": "docker.io/paceline/router:dev",
                    "command": ["sleep", "600"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    tenant.kubectl.apply(pod)
    tenant.kubectl.run("wait", "--for=condition=Ready", "pod/neighbour", "--timeout=60s", timeout_s=70)

    def ask(requests: list[tuple[str, int, str, str]]) -> list[int | str]:
        text = tenant.kubectl.run(
            "exec", "neighbour", "--", "python3", "-c", ASK, json.dumps(requests), timeout_s=300
        )
        answers: list[int | str] = json.loads(text)
        return answers

    return ask


def test_only_openai_routes_leave_the_service(
    tenant: Tenant,
    emulated: Example,
    neighbour: Callable[[list[tuple[str, int, str, str]]], list[int | str]],
) -> None:
    tenant.apply(emulated(replicas=1))
    tenant.settle(timeout_s=120)
    host = f"{tenant.name}.{tenant.kubectl.namespace}.svc.cluster.local"
    assert neighbour([(host, 80, "GET", "/v1/models")]) == [200]
    routes = [*ROUTER_ADMIN, *ENGINE_ADMIN]
    answers = neighbour([(host, 80, method, path) for method, path in routes])
    assert dict(zip(routes, answers, strict=True)) == dict.fromkeys(routes, 404)


def test_nothing_that_changes_a_pod_answers_on_the_pods_own_addresses(
    tenant: Tenant,
    emulated: Example,
    neighbour: Callable[[list[tuple[str, int, str, str]]], list[int | str]],
) -> None:
    tenant.apply(emulated(replicas=1))
    tenant.settle(timeout_s=120)
    engine, router = tenant.engines()[0], tenant.routers()[0]
    engine_ip, router_ip = engine["status"]["podIP"], router["status"]["podIP"]
    targets = [
        *((engine_ip, 8000, method, path) for method, path in CHANGES_SOMETHING),
        *(
            (router_ip, port, method, path)
            for port in (8010, 8080, 9090)
            for method, path in CHANGES_SOMETHING
        ),
    ]
    answers = neighbour(targets)
    allowed = {404, 405, "ConnectionRefusedError", "TimeoutError"}
    assert {t: a for t, a in zip(targets, answers, strict=True) if a not in allowed} == {}
    assert tenant.condition("Ready") is not None
    assert tenant.condition("Ready")["status"] == "True"  # type: ignore[index]
