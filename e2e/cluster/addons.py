"""What runs inside the cluster for everyone: DNS, Prometheus, the fake GPUs.

Called by ``up``, each time: applying what is there already changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.shell import run

MANIFESTS = Path(__file__).parent / "addons"
READY_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Addon:
    """One file of manifests, and the workload in it that has to become ready."""

    file: str
    namespace: str
    workload: str


DNS = Addon("coredns.yaml", "kube-system", "deployment/coredns")
FAKE_GPUS = Addon("fake-gpus.yaml", "kube-system", "daemonset/fake-gpus")
PROMETHEUS = Addon("prometheus.yaml", "monitoring", "deployment/prometheus")
ALL = (DNS, FAKE_GPUS, PROMETHEUS)


def apply(kubectl: Sequence[str], addons: Sequence[Addon]) -> None:
    """Apply the manifests and wait until what they start is ready."""
    files = [word for addon in addons for word in ("-f", str(MANIFESTS / addon.file))]
    run(*kubectl, "apply", "--server-side", "--force-conflicts", *files)
    for namespace, workload in ((addon.namespace, addon.workload) for addon in addons):
        run(*kubectl, "-n", namespace, "rollout", "status", workload, f"--timeout={READY_TIMEOUT_S}s",
            timeout_s=READY_TIMEOUT_S + 10)  # fmt: skip
