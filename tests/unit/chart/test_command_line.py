"""The chart speaks the language of `paceline operator`: every value arrives where it was meant to."""

from __future__ import annotations

from typing import Any

from paceline.cli.operator import operator_command
from tests.unit.chart.conftest import Render


def parsed(render: Render, *settings: str) -> dict[str, Any]:
    deployment = next(body for body in render(*settings) if body["kind"] == "Deployment")
    command, *flags = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert command == "operator"
    return operator_command.make_context("operator", flags).params


def test_the_values_arrive_as_the_operators_settings(render: Render) -> None:
    params = parsed(
        render,
        "images.tag=dev",
        "images.router.tag=next",
        "images.pullPolicy=Always",
        "operator.foreignWriterGraceSeconds=60",
        "operator.outerDrainLimitSeconds=1200",
        "hub.endpoint=https://hub.example",
        "prometheus.podLabels.app=thanos",
        "prometheus.namespaceLabels.kubernetes\\.io/metadata\\.name=monitoring",
        "podMonitor.labels.release=stack",
        "prometheus.url=https://metrics.example/prom",
        "prometheus.bearerTokenSecret.name=token",
        "prometheus.tlsSecret.name=tls",
        "prometheus.tlsSecret.ca=true",
        "prometheus.tlsSecret.clientCertificate=true",
        "prometheus.headers.X-Scope-OrgID=team",
        "prometheus.matchers.cluster=eu-1",
        "decisions.periodSeconds=5",
        "decisions.metricsWindowSeconds=30",
        "decisions.clusterGpuBudget=64",
    )
    assert params["runtime_image_gpu"] == "docker.io/paceline/runtime-gpu:dev"
    assert params["runtime_image_cpu"] == "docker.io/paceline/runtime-cpu:dev"
    assert params["emulator_image"] == "docker.io/paceline/router:dev"
    assert params["router_image"] == "docker.io/paceline/router:next"
    assert params["image_pull_policy"] == "Always"
    assert params["foreign_writer_grace_seconds"] == 60
    assert params["outer_drain_limit_seconds"] == 1200
    assert params["hub_endpoint"] == "https://hub.example"
    assert set(params["prometheus_pod_labels"]) == {
        ("app.kubernetes.io/name", "prometheus"),
        ("app", "thanos"),
    }
    assert params["prometheus_namespace_labels"] == (("kubernetes.io/metadata.name", "monitoring"),)
    assert params["pod_monitor_labels"] == (("release", "stack"),)
    assert params["prometheus_url"] == "https://metrics.example/prom"
    assert str(params["prometheus_bearer_token_file"]) == "/etc/paceline/prometheus-token/token"
    assert str(params["prometheus_ca_file"]) == "/etc/paceline/prometheus-tls/ca.crt"
    assert str(params["prometheus_certificate_file"]) == "/etc/paceline/prometheus-tls/tls.crt"
    assert str(params["prometheus_key_file"]) == "/etc/paceline/prometheus-tls/tls.key"
    assert params["prometheus_headers"] == (("X-Scope-OrgID", "team"),)
    assert params["prometheus_matchers"] == (("cluster", "eu-1"),)
    assert (params["decision_period_seconds"], params["metrics_window_seconds"]) == (5, 30)
    assert params["cluster_gpu_budget"] == 64


def test_without_a_budget_there_is_none(render: Render) -> None:
    assert parsed(render)["cluster_gpu_budget"] is None


def test_a_hub_can_be_switched_off(render: Render) -> None:
    assert parsed(render, "hub.endpoint=")["hub_endpoint"] == ""


def test_the_operator_finds_its_own_pod_and_the_ports_of_its_probes(render: Render) -> None:
    deployment = next(body for body in render() if body["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert {variable["name"] for variable in container["env"]} == {"POD_NAME", "POD_NAMESPACE"}
    assert container["ports"][0]["containerPort"] == parsed(render)["metrics_port"]
