"""Who owns what: nothing is left behind, nothing is restarted by an upgrade, and a service lives without its operator."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from e2e.kubectl import wait_for
from e2e.load import Load
from e2e.scenarios.chart import Chart
from e2e.scenarios.load import Background
from e2e.scenarios.tenant import KIND, Operator, Tenant

Example = Callable[..., dict[str, Any]]


def test_deleting_the_service_with_the_operator_stopped_leaves_nothing(
    tenant: Tenant, operator: Operator, emulated: Example
) -> None:
    tenant.apply(emulated(replicas=1))
    tenant.settle(timeout_s=120)
    assert tenant.children()
    operator.scale(0)
    try:
        tenant.kubectl.run("delete", KIND, tenant.name, "--timeout=30s")
        wait_for("nothing left", lambda: tenant.children() == [], timeout_s=120)
    finally:
        operator.scale(1)


def test_a_namespace_with_a_running_service_goes(tenant: Tenant, emulated: Example) -> None:
    tenant.apply(emulated(replicas=1))
    tenant.settle(timeout_s=120)
    namespace = tenant.kubectl.namespace
    tenant.kubectl.run("delete", "namespace", namespace, "--wait=false")
    wait_for("the namespace gone", lambda: tenant.kubectl.find("namespace", namespace) is None, timeout_s=150)


def test_an_upgrade_of_the_operator_restarts_no_pod(tenant: Tenant, chart: Chart, emulated: Example) -> None:
    tenant.apply(emulated(replicas=2))
    tenant.settle(timeout_s=120)
    before = {pod["metadata"]["uid"] for pod in tenant.engines()}
    try:
        chart.install({"images.operator.tag": "next", "images.emulator.tag": "next"})
        time.sleep(20)
        assert {pod["metadata"]["uid"] for pod in tenant.engines()} == before
        assert all(pod["status"]["containerStatuses"][0]["restartCount"] == 0 for pod in tenant.engines())
    finally:
        chart.install({})


def test_with_the_operator_gone_pods_are_rescheduled_and_drained_as_before(
    tenant: Tenant, operator: Operator, emulated: Example
) -> None:
    tenant.apply(emulated(replicas=2))
    tenant.settle(timeout_s=120)
    operator.scale(0)
    try:
        load = Background(
            tenant.base_url(), model=tenant.name, load=Load(rate_per_s=10, max_tokens=(40, 240))
        )
        with load.running():
            time.sleep(5)
            victim = tenant.engines()[0]["metadata"]["name"]
            tenant.kubectl.run("delete", "pod", victim, "--wait=false")
            wait_for("the pod gone", lambda: tenant.kubectl.find("pod", victim) is None, timeout_s=120)
            wait_for("two pods serving again", lambda: len(tenant.serving()) == 2, timeout_s=60)
            load.until(requests=500, timeout_s=120)
        assert load.outcome().failures == []
    finally:
        operator.scale(1)


def test_uninstall_keeps_the_services_and_their_pods(tenant: Tenant, chart: Chart, emulated: Example) -> None:
    tenant.apply(emulated(replicas=1))
    tenant.settle(timeout_s=120)
    before = {pod["metadata"]["uid"] for pod in tenant.engines()}
    chart.uninstall()
    try:
        time.sleep(10)
        assert tenant.observe()["metadata"]["name"] == tenant.name
        assert {pod["metadata"]["uid"] for pod in tenant.engines()} == before
    finally:
        chart.install({})
    tenant.settle(timeout_s=120)
    assert {pod["metadata"]["uid"] for pod in tenant.engines()} == before
