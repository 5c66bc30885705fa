"""The stage of every scenario: one cluster with Paceline installed, a namespace for each test, results written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import helm, results
from e2e.cluster.choice import Cluster, open_cluster
from e2e.cluster.layout import Layout
from e2e.kubectl import Kubectl, wait_for
from e2e.scenarios.chart import Chart
from e2e.scenarios.tenant import Operator, Tenant

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "paceline-system"
PROMETHEUS = "http://prometheus.monitoring.svc:9090"
LOOP = {"periodSeconds": 5, "metricsWindowSeconds": 30}
ALIAS = "next"
"""A second tag of the same images: what an upgrade and a change of image go to."""
SCENARIO_LABEL = "paceline.dev/scenario"
LEAVE_S = 420
"""The longest request of any scenario, and the time that a pod has beyond it."""


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    cluster = open_cluster(Layout.from_environment())
    cluster.up(None)
    cluster.ensure_images(("operator", "router"))
    for name in ("operator", "router"):
        cluster.tag(name, ALIAS)
    return cluster


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Kubectl:
    return Kubectl(words=cluster.kubectl_words(), namespace="default")


@pytest.fixture(scope="session")
def chart(cluster: Cluster, kubectl: Kubectl) -> Chart:
    """Paceline, installed."""
    chart = Chart(
        helm=helm.installed(cluster.layout.kubeconfig),
        release="paceline",
        namespace=SYSTEM,
        values={"images.tag": "dev"},
    )
    chart.install({})
    # The image may be new under the same tag, which Helm cannot see.
    system = kubectl.in_namespace(SYSTEM)
    system.run("rollout", "restart", "deployment/paceline-operator")
    system.run("rollout", "status", "deployment/paceline-operator", "--timeout=120s", timeout_s=130)
    return chart


@pytest.fixture(scope="module")
def closed_loop(chart: Chart, kubectl: Kubectl) -> Iterator[None]:
    """The operator reads metrics and decides, every 5 s instead of 15."""
    with _deciding(chart, kubectl, decisions=LOOP):
        yield


@pytest.fixture(scope="module")
def closed_loop_as_shipped(chart: Chart, kubectl: Kubectl) -> Iterator[None]:
    """The operator reads metrics and decides as it does where nobody says otherwise."""
    with _deciding(chart, kubectl, decisions={}):
        yield


@contextmanager
def _deciding(chart: Chart, kubectl: Kubectl, *, decisions: Mapping[str, int]) -> Iterator[None]:
    chart.install({"prometheus.url": PROMETHEUS}, typed={"decisions": decisions})
    system = kubectl.in_namespace(chart.namespace)
    system.run("rollout", "status", "deployment/paceline-operator", "--timeout=120s", timeout_s=130)
    yield
    chart.install({})


@pytest.fixture(scope="session")
def operator(cluster: Cluster, chart: Chart, kubectl: Kubectl) -> Operator:
    return Operator(
        cluster=cluster, kubectl=kubectl.in_namespace(chart.namespace), deployment="paceline-operator"
    )


@pytest.fixture
def tenant(
    cluster: Cluster, operator: Operator, kubectl: Kubectl, request: pytest.FixtureRequest
) -> Iterator[Tenant]:
    """An empty namespace that admits only restricted pods; gone with everything in it after the test.

    It waits for the tenant before: engines that still drain hold CPU requests that the next one needs.
    """
    wait_for("earlier tenants gone", lambda: not _leaving(kubectl), timeout_s=LEAVE_S)
    namespace = f"tenant-{time.time_ns() % 10**9:09d}"
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": namespace,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted", SCENARIO_LABEL: "true"},
            },
        }
    )
    tenant = Tenant(cluster=cluster, kubectl=kubectl.in_namespace(namespace), name="chat")
    yield tenant
    if request.session.testsfailed:
        _show(tenant, operator)
    kubectl.run("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")


@pytest.fixture
def emulated() -> Callable[..., dict[str, Any]]:
    return emulated_service


def emulated_service(*, replicas: int, **spec: Mapping[str, Any]) -> dict[str, Any]:
    """The example of an emulated engine as a manifest of the tenant's service, with a shape of the caller's."""
    service: dict[str, Any] = yaml.safe_load(
        (ROOT / "examples" / "emulated.yaml").read_text(encoding="utf-8")
    )
    service["metadata"] = {"name": "chat"}
    service["spec"]["model"].pop("servedNames", None)
    service["spec"]["scaling"] = {"mode": "Manual", "replicas": replicas, "tensorParallelSize": 1}
    service["spec"]["runtime"]["emulation"] = {"stepMilliseconds": 20, "startSeconds": 2}
    service["spec"]["admission"] = {"maxRequestSeconds": 60, "maxOutputTokens": 300}
    for key, value in spec.items():
        service["spec"][key] = {**service["spec"].get(key, {}), **value}
    return service


@pytest.fixture
def record_scenario(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Append what a scenario saw to e2e/results/; the documents' figures come from there."""
    module = Path(str(request.node.path)).stem.removeprefix("test_")

    def record(**figures: Any) -> None:
        print(results.append(module, scenario=request.node.name, **figures))

    return record


def _leaving(kubectl: Kubectl) -> list[str]:
    """Pods of earlier scenarios: their namespaces are deleted, and stay longer than they do."""
    found = kubectl.list("namespaces", SCENARIO_LABEL)
    gone = [n["metadata"]["name"] for n in found if "deletionTimestamp" in n["metadata"]]
    return [p["metadata"]["name"] for n in gone for p in kubectl.in_namespace(n).list("pods")]


def _show(tenant: Tenant, operator: Operator) -> None:
    """What one would look at first."""
    looks = (
        (tenant.kubectl, ("get", "inferenceservices", "-o", "yaml")),
        (tenant.kubectl, ("get", "pods", "-o", "wide")),
        (tenant.kubectl, ("get", "events", "--sort-by=.lastTimestamp")),
        (operator.kubectl, ("get", "pods")),
        (operator.kubectl, ("logs", "deployment/paceline-operator", "--tail=60")),
    )
    for kubectl, words in looks:
        print("$ kubectl", *words)
        try:
            print(kubectl.run(*words)[-6000:])
        except Exception as error:
            print(error)
