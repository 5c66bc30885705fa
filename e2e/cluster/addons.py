"""What runs inside the cluster for everyone: DNS, Prometheus, the fake GPUs.

Called by ``up``, each time: applying what is there already changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.shell import run

MANIFESTS = Path(__file__).parent / "addons"
READY_TIMEOUT_S = 120

_ROLLOUTS = (
    ("kube-system", "deployment/coredns"),
    ("kube-system", "daemonset/fake-gpus"),
    ("monitoring", "deployment/prometheus"),
)


def apply(kubectl: Sequence[str]) -> None:
    """Apply every manifest and wait until what they start is ready."""
    run(*kubectl, "apply", "--server-side", "--force-conflicts", "-f", MANIFESTS, timeout_s=60)
    for namespace, workload in _ROLLOUTS:
        run(*kubectl, "-n", namespace, "rollout", "status", workload, f"--timeout={READY_TIMEOUT_S}s",
            timeout_s=READY_TIMEOUT_S + 10)  # fmt: skip
