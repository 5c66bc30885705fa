"""One InferenceService as its owner sees it: applied, watched, changed and asked.

Called by the scenarios. Everything goes through the API server and the service's own endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from e2e.kubectl import Kubectl, wait_for

Manifest = dict[str, Any]
KIND = "inferenceservices.paceline.dev"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A namespace with one service in it."""

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

    def settle(self, *, timeout_s: float) -> Manifest:
        """Wait until the service is Ready on the shape and variant that its spec asks for, with nothing under way."""

        def settled() -> Manifest | None:
            service = self.observe()
            spec, status = service["spec"], service.get("status", {})
            conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
            shape = (status.get("shape") or {}).get("current") or {}
            asked = (spec["scaling"]["tensorParallelSize"], spec["scaling"]["replicas"])
            serving = (shape.get("tensorParallelSize"), shape.get("replicas"))
            step = (status.get("transition") or {}).get("step", "Done")
            quiet = step == "Done" and len(status.get("variants", [])) == 1
            ready = conditions.get("Ready") == "True" and conditions.get("Progressing") != "True"
            current = status.get("observedGeneration") == service["metadata"]["generation"]
            leaving = [p for p in self.engines() if "deletionTimestamp" in p["metadata"]]
            return service if current and ready and quiet and asked == serving and not leaving else None

        return wait_for(f"{self.name} settled", settled, timeout_s=timeout_s)

    def engines(self) -> list[Manifest]:
        return self.kubectl.list("pods", self.engine_selector)

    def serving(self) -> list[Manifest]:
        """Engine pods that are Ready and not on their way out."""
        return [p for p in self.engines() if _is_ready(p) and "deletionTimestamp" not in p["metadata"]]

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

    kubectl: Kubectl
    deployment: str

    def pods(self) -> list[Manifest]:
        return self.kubectl.list("pods", "app.kubernetes.io/name=paceline-operator")

    def kill(self) -> None:
        """SIGKILL: the kubelet ends a pod that is deleted with no grace at once."""
        for pod in self.pods():
            name = pod["metadata"]["name"]
            self.kubectl.run("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")

    def scale(self, replicas: int) -> None:
        self.kubectl.run("scale", "deployment", self.deployment, f"--replicas={replicas}")
        wait_for(
            f"operator at {replicas}",
            lambda: len([p for p in self.pods() if _is_ready(p) or replicas == 0]) == replicas,
            timeout_s=90,
        )


def _is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
