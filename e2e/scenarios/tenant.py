"""One InferenceService as its owner sees it: applied, watched, changed and asked.

Called by the scenarios. Everything goes through the API server and the service's own endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from e2e.cluster.choice import Cluster
from e2e.kubectl import Kubectl, wait_for

Manifest = dict[str, Any]

A_70B: Manifest = {"uri": "hf://meta-llama/Llama-3.1-70B-Instruct@main", "maxModelTokens": 8192}
"""`spec.model` of emulated engines that are divided otherwise than the bundled model allows, which is TP 1 and 3. Named for
its sizes; nothing is loaded."""

KIND = "inferenceservices.paceline.dev"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A service in a namespace."""

    cluster: Cluster
    kubectl: Kubectl
    name: str

    @property
    def engine_selector(self) -> str:
        return f"paceline.dev/service={self.name},paceline.dev/component=engine"

    @property
    def router_selector(self) -> str:
        return f"paceline.dev/service={self.name},paceline.dev/component=router"

    def apply(self, manifest: Manifest) -> None:
        self.kubectl.apply(manifest)

    def change(self, spec: dict[str, Any]) -> None:
        """Merge ``spec`` into the service's spec, as `kubectl patch --type merge` does."""
        self.kubectl.patch(KIND, self.name, {"spec": spec})

    def observe(self) -> Manifest:
        return self.kubectl.get(KIND, self.name)

    def condition(self, kind: str) -> dict[str, Any] | None:
        """The condition of that type, as far as the status speaks of the current generation."""
        service = self.observe()
        status = service.get("status", {})
        if status.get("observedGeneration") != service["metadata"]["generation"]:
            return None
        found: list[dict[str, Any]] = [c for c in status.get("conditions", []) if c["type"] == kind]
        return found[0] if found else None

    def holds(self, *kinds: str) -> bool:
        """All these conditions are True."""
        return all((self.condition(kind) or {}).get("status") == "True" for kind in kinds)

    def settle(self, *, timeout_s: float) -> Manifest:
        """Wait until the service is Ready on the shape and variant that its spec asks for, with nothing under way."""

        return wait_for(f"{self.name} settled", self.settled, timeout_s=timeout_s)

    def settled(self) -> Manifest | None:
        """The service, if it is."""
        service = self.observe()
        spec, status = service["spec"], service.get("status", {})
        conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
        shape = (status.get("shape") or {}).get("current") or {}
        asked = (spec["scaling"]["tensorParallelSize"], spec["scaling"]["replicas"])
        serving = (shape.get("tensorParallelSize"), shape.get("replicas"))
        step = (status.get("transition") or {}).get("step", "Done")
        over = step in ("Done", "RolledBack") and status.get("refused") is None
        ready = conditions.get("Ready") == "True" and conditions.get("Progressing") != "True"
        current = status.get("observedGeneration") == service["metadata"]["generation"]
        if not (current and ready and over and asked == serving and len(status.get("variants", [])) == 1):
            return None
        return None if any(map(is_leaving, self.engines())) else service

    def is_refused(self) -> bool:
        """What the spec asks for was taken back."""
        status = self.observe()["status"]
        step = (status.get("transition") or {}).get("step")
        return step == "RolledBack" and status.get("refused") is not None

    def kill(self, pod: Manifest) -> None:
        """SIGKILL, without a drain: streams in it are lost."""
        _kill(self.cluster, self.kubectl, pod)

    def engines(self) -> list[Manifest]:
        return self.kubectl.list("pods", self.engine_selector)

    def serving(self) -> list[Manifest]:
        """Engine pods that are Ready and not on their way out."""
        return [p for p in self.engines() if is_ready(p) and not is_leaving(p)]

    def transitions(self) -> int:
        """Changes of its engine pods that were begun since it was created."""
        return int((self.observe()["status"].get("transition") or {}).get("id", 0))

    def routers(self) -> list[Manifest]:
        return self.kubectl.list("pods", self.router_selector)

    def base_url(self) -> str:
        """The endpoint by the Service's cluster address: a scenario's client stands outside the cluster's DNS."""
        return f"http://{self.kubectl.get('service', self.name)['spec']['clusterIP']}"

    def children(self) -> list[str]:
        """Everything in the namespace that carries the service's label, as kind/name."""
        kinds = (
            "deployments,replicasets,pods,services,configmaps,serviceaccounts,roles,rolebindings,"
            "poddisruptionbudgets,networkpolicies,endpointslices"
        )
        found = self.kubectl.list(kinds, f"paceline.dev/service={self.name}")
        return sorted(f"{o['kind']}/{o['metadata']['name']}" for o in found)


@dataclass(frozen=True, slots=True)
class Operator:
    """The running operator, as something that can be killed, stopped and started."""

    cluster: Cluster
    kubectl: Kubectl
    deployment: str

    def pods(self) -> list[Manifest]:
        return self.kubectl.list("pods", "app.kubernetes.io/name=paceline-operator")

    def running(self) -> list[Manifest]:
        """Those with a process that can be killed."""
        return [pod for pod in self.pods() if not is_leaving(pod) and _has_started(pod)]

    def kill(self, pods: Sequence[Manifest] | None = None) -> None:
        """SIGKILL to all of them, or to ``pods``, for who cannot wait for a list. The Lease of the one that led stays
        its own until it has run out."""
        for pod in self.pods() if pods is None else pods:
            _kill(self.cluster, self.kubectl, pod)

    def bury(self) -> None:
        """Remove the Lease of a leader that is dead: the next one need not wait until it has run out."""
        self.kubectl.run("delete", "lease", "paceline-operator", "--ignore-not-found")

    def lease(self) -> Manifest:
        """What the one that leads has written into its Lease."""
        spec: Manifest = self.kubectl.get("lease", "paceline-operator")["spec"]
        return spec

    @contextmanager
    def altered(self, pod: Manifest) -> Iterator[None]:
        """With ``pod`` merged into its pods' spec as `kubectl patch` does; afterwards they are as they were."""
        meta = self.kubectl.get("deployment", self.deployment)["metadata"]
        revision = meta["annotations"]["deployment.kubernetes.io/revision"]
        patch = json.dumps({"spec": {"template": {"spec": pod}}})
        self.kubectl.run("patch", "deployment", self.deployment, "--patch", patch)
        try:
            self._await_rolled_out()
            yield
        finally:
            self.kubectl.run("rollout", "undo", f"deployment/{self.deployment}", f"--to-revision={revision}")
            self._await_rolled_out()

    def _await_rolled_out(self) -> None:
        words = ("rollout", "status", f"deployment/{self.deployment}", "--timeout=120s")
        self.kubectl.run(*words, timeout_s=130)

    def scale(self, replicas: int) -> None:
        self.kubectl.run("scale", "deployment", self.deployment, f"--replicas={replicas}")
        wait_for(
            f"operator at {replicas}",
            lambda: len([p for p in self.pods() if is_ready(p) or replicas == 0]) == replicas,
            timeout_s=90,
        )


def _kill(cluster: Cluster, kubectl: Kubectl, pod: Manifest) -> None:
    cluster.kill_pod(pod["metadata"]["uid"])
    # Its owner makes another one, instead of the kubelet starting its containers again after ever longer pauses.
    name = pod["metadata"]["name"]
    kubectl.run("delete", "pod", name, "--grace-period=0", "--force", "--wait=false", "--ignore-not-found")


def _has_started(pod: Manifest) -> bool:
    containers = pod.get("status", {}).get("containerStatuses", [])
    return any("running" in container["state"] for container in containers)


def is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_leaving(pod: Manifest) -> bool:
    return "deletionTimestamp" in pod["metadata"]
