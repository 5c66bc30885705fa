"""What an installation puts into a cluster, held against files that a person has read.

`make golden` writes the files anew after a change that was meant.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from e2e.helm import Helm
from tests.unit.chart.conftest import CHART, Render, Rendered

GOLDEN = Path(__file__).parent / "golden"
EVERYTHING = (
    "operator.replicas=2",
    "operator.networkPolicy.enabled=true",
    "operator.priorityClassName=system-cluster-critical",
    "operator.nodeSelector.pool=system",
    "operator.tolerations[0].key=dedicated",
    "operator.tolerations[0].operator=Exists",
    "hub.readTokens=true",
    "imagePullSecrets[0].name=registry",
    "images.tag=dev",
    "images.operator.tag=next",
    "podMonitor.enabled=true",
    "podMonitor.labels.release=kube-prometheus-stack",
    "prometheus.namespaceLabels.kubernetes\\.io/metadata\\.name=monitoring",
    "prometheus.url=https://prometheus.monitoring.svc:9090",
    "prometheus.bearerTokenSecret.name=prometheus-token",
    "prometheus.tlsSecret.name=prometheus-tls",
    "prometheus.tlsSecret.ca=true",
    "prometheus.headers.X-Scope-OrgID=team",
    "decisions.clusterGpuBudget=64",
)


def of_kind(rendered: Rendered, kind: str) -> Rendered:
    return [body for body in rendered if body["kind"] == kind]


@pytest.mark.parametrize(
    ("name", "settings"),
    [pytest.param("default", (), id="default"), pytest.param("everything", EVERYTHING, id="everything")],
)
def test_the_rendered_chart_is_the_one_that_was_read(
    render: Render, name: str, settings: tuple[str, ...]
) -> None:
    rendered = render("crds.install=false", *settings)
    text = yaml.safe_dump_all(rendered, sort_keys=True, width=100)
    file = GOLDEN / f"{name}.yaml"
    if os.environ.get("PACELINE_WRITE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), "run `make golden` if the change was meant"


def test_helm_lint_finds_nothing(helm: Helm) -> None:
    report = helm.run("lint", "--strict", str(CHART))
    assert "[WARNING]" not in report
    assert "[ERROR]" not in report


def test_the_crd_is_upgraded_with_the_chart_and_kept_when_it_goes(render: Render) -> None:
    crd = next(iter(of_kind(render(), "CustomResourceDefinition")))
    assert crd["metadata"]["name"] == "inferenceservices.paceline.dev"
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    # Helm installs files of crds/ once and never upgrades them.
    assert not (CHART / "crds").exists()


def test_crds_can_be_left_to_somebody_else(render: Render) -> None:
    assert of_kind(render("crds.install=false"), "CustomResourceDefinition") == []


def test_every_object_but_the_cluster_wide_ones_stands_in_the_namespace_of_the_release(
    render: Render,
) -> None:
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    placed = {body["kind"]: body["metadata"].get("namespace") for body in render(*EVERYTHING)}
    assert {kind for kind, namespace in placed.items() if namespace is None} == cluster_wide
    assert {namespace for namespace in placed.values() if namespace} == {"paceline-system"}


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        pytest.param((), "docker.io/paceline/operator:0.1.0", id="the-charts-own-version"),
        pytest.param(("images.tag=dev",), "docker.io/paceline/operator:dev", id="one-tag-for-all"),
        pytest.param(
            ("images.tag=dev", "images.operator.tag=next"),
            "docker.io/paceline/operator:next",
            id="the-images-own-tag-wins",
        ),
        pytest.param(
            ("images.operator.repository=registry.example:5000/team/operator",),
            "registry.example:5000/team/operator:0.1.0",
            id="another-registry",
        ),
    ],
)
def test_the_image_is_the_nearest_setting(render: Render, settings: tuple[str, ...], image: str) -> None:
    deployment = of_kind(render(*settings), "Deployment")[0]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image


def test_one_replica_has_no_disruption_budget_that_could_hold_up_a_drain(render: Render) -> None:
    assert of_kind(render(), "PodDisruptionBudget") == []
    budget = of_kind(render("operator.replicas=2"), "PodDisruptionBudget")[0]
    assert budget["spec"]["maxUnavailable"] == 1


def test_the_operators_pod_passes_the_restricted_pod_security_standard(render: Render) -> None:
    """The fields that the standard asks for; the API server itself judges in e2e."""
    pod = of_kind(render(), "Deployment")[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & pod.keys()
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "hostPort" not in str(container["ports"])
