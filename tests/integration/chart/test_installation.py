"""The chart in a real API server: what installs, what an upgrade brings, what stays, and what the operator may.

A control plane of its own: elsewhere the CRD is there already, and Helm takes over nothing that it did not
install.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.helm import Helm, HelmError, installed
from tests.integration.control_plane import ControlPlane, control_plane

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "paceline"
SYSTEM = "paceline-system"
CRD = "inferenceservices.paceline.dev"
OPERATOR = f"system:serviceaccount:{SYSTEM}:paceline-operator"
SERVICE = {
    "apiVersion": "paceline.dev/v1alpha1",
    "kind": "InferenceService",
    "metadata": {"name": "chat", "namespace": "default"},
    "spec": {
        "model": {"uri": "bundled://smollm2-135m-instruct"},
        "scaling": {"mode": "Manual", "replicas": 1, "tensorParallelSize": 1},
        "accelerator": {"resourceName": "cpu"},
    },
}


@dataclass(frozen=True, slots=True)
class Cluster:
    plane: ControlPlane
    helm: Helm

    def kubectl(self, *words: str, body: object = None, fails: bool = False) -> str:
        done = subprocess.run(
            [str(self.plane.binaries / "kubectl"), "--kubeconfig", str(self.plane.kubeconfig), *words],
            input=json.dumps(body) if body is not None else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"kubectl {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout

    def get(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *words, "-o", "json"))
        return found

    def install(self, chart: Path = CHART, *settings: str) -> None:
        flags = [word for setting in settings for word in ("--set", setting)]
        self.helm.run("upgrade", "--install", "paceline", str(chart), "--namespace", SYSTEM, *flags)

    def establish(self) -> None:
        self.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with control_plane(tmp_path_factory.mktemp("chart")) as plane:
        cluster = Cluster(plane, installed(plane.kubeconfig))
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.kubectl("create", "-f", "-", body={
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels},
        })  # fmt: skip
        yield cluster


@pytest.fixture
def release(cluster: Cluster) -> Cluster:
    """Installed as it is."""
    cluster.install()
    cluster.establish()
    return cluster


def older_chart(folder: Path) -> Path:
    """This chart as if it came from before the short name and the printer columns."""
    chart = Path(shutil.copytree(CHART, folder / "older"))
    crds = chart / "templates" / "crds.yaml"
    lines = crds.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.strip() not in ("shortNames:", "- pis")]
    assert len(kept) == len(lines) - 2
    crds.write_text("".join(kept), encoding="utf-8")
    return chart


def test_an_upgrade_brings_the_new_crd_and_uninstalling_keeps_it_and_the_services(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.install(older_chart(tmp_path))
    cluster.establish()
    assert "shortNames" not in cluster.get("crd", CRD)["spec"]["names"]
    cluster.kubectl("create", "-f", "-", body=SERVICE)

    cluster.install()
    assert cluster.get("crd", CRD)["spec"]["names"]["shortNames"] == ["pis"]

    cluster.helm.run("uninstall", "paceline", "--namespace", SYSTEM)
    assert cluster.get("deployments", "-n", SYSTEM)["items"] == []
    cluster.kubectl("get", "clusterrole", "paceline-operator", fails=True)
    uid = cluster.get(CRD, "chat")["metadata"]["uid"]

    cluster.install()
    assert cluster.get(CRD, "chat")["metadata"]["uid"] == uid
    cluster.kubectl("delete", CRD, "chat")


def test_a_second_release_is_refused_because_two_operators_would_fight(release: Cluster) -> None:
    with pytest.raises(HelmError, match=r"paceline-operator|inferenceservices"):
        release.helm.run("install", "another", str(CHART), "--namespace", "default")


def pod(release: Cluster) -> dict[str, Any]:
    template = release.get("deployment", "paceline-operator", "-n", SYSTEM)["spec"]["template"]
    metadata = {"name": "operator", "namespace": SYSTEM, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def test_the_operators_pod_is_admitted_where_the_restricted_standard_is_enforced(release: Cluster) -> None:
    release.kubectl("create", "--dry-run=server", "-f", "-", body=pod(release))
    loose = pod(release)
    del loose["spec"]["securityContext"]["seccompProfile"]
    refusal = release.kubectl("create", "--dry-run=server", "-f", "-", body=loose, fails=True)
    assert "restricted" in refusal


@pytest.mark.parametrize(
    ("verb", "resource", "namespace"),
    [
        ("list", "inferenceservices.paceline.dev", "default"),
        ("patch", "inferenceservices.paceline.dev --subresource=status", "default"),
        ("create", "deployments.apps", "default"),
        ("delete", "rolebindings.rbac.authorization.k8s.io", "default"),
        ("watch", "pods", "default"),
        ("delete", "pods", "default"),
        ("update", "leases.coordination.k8s.io/paceline-operator", SYSTEM),
    ],
)
def test_the_operator_may(release: Cluster, verb: str, resource: str, namespace: str) -> None:
    words = ("auth", "can-i", verb, *resource.split(), "-n", namespace, f"--as={OPERATOR}")
    assert "yes" in release.kubectl(*words)


@pytest.mark.parametrize(
    ("verb", "resource", "namespace"),
    [
        ("delete", "inferenceservices.paceline.dev", "default"),
        ("patch", "inferenceservices.paceline.dev", "default"),
        ("create", "pods", "default"),
        ("create", "pods --subresource=exec", "default"),
        ("get", "secrets", "default"),
        ("update", "leases.coordination.k8s.io/another", SYSTEM),
        ("update", "leases.coordination.k8s.io/paceline-operator", "kube-system"),
        ("create", "clusterroles.rbac.authorization.k8s.io", ""),
    ],
)
def test_the_operator_may_not(release: Cluster, verb: str, resource: str, namespace: str) -> None:
    where = ["-n", namespace] if namespace else []
    words = ("auth", "can-i", verb, *resource.split(), *where, f"--as={OPERATOR}")
    release.kubectl(*words, fails=True)


def role(*, resources: list[str]) -> dict[str, Any]:
    rule = {"apiGroups": [""], "resources": resources, "verbs": ["get", "list", "watch"]}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "chat-router", "namespace": "default"},
        "rules": [rule],
    }


def test_the_operator_can_grant_a_router_its_rights_and_no_others(release: Cluster) -> None:
    words = ("create", "--dry-run=server", "-f", "-", f"--as={OPERATOR}")
    release.kubectl(*words, body=role(resources=["pods"]))
    assert "attempting to grant" in release.kubectl(*words, body=role(resources=["secrets"]), fails=True)


def test_every_example_is_valid_under_the_installed_crd(release: Cluster) -> None:
    for example in sorted((ROOT / "examples").glob("*.yaml")):
        for body in yaml.safe_load_all(example.read_text(encoding="utf-8")):
            if body and body["kind"] == "InferenceService":
                release.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", body=body)
