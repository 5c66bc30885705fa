"""Which cluster this machine can carry: kind where it can, else real nodes.

Called by the command line, the demo and the scenarios, which need no more than :class:`Cluster` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from e2e.cluster import kind
from e2e.cluster.layout import Layout
from e2e.cluster.local import LocalCluster


class Cluster(Protocol):
    """A cluster with DNS, Prometheus and eight fake GPUs a node, whose Services this machine reaches."""

    @property
    def layout(self) -> Layout: ...

    def up(self, size: int | None) -> None:
        """Bring it up with ``size`` nodes (None: as it runs, else one); a healthy one is used as it is."""
        ...

    def down(self) -> None: ...
    def status(self) -> list[str]: ...

    def kill_node(self, number: int) -> None:
        """End a node abruptly, as a power cut does; nodes count from 1."""
        ...

    def start_node(self, number: int) -> None: ...
    def restart_kubelet(self, number: int) -> None: ...

    def kill_pod(self, uid: str) -> None:
        """SIGKILL to every process of the pod with that UID, as a crash or a lack of memory ends them.

        No deletion does that: a kubelet tells the processes of a pod that is gone from the API server to end, runs
        `preStop`, and gives them their whole grace."""
        ...

    def favour_pod(self, uid: str) -> None:
        """Let the pod go before everything else on its machine, and its neighbours before what is no pod: what stands
        for a GPU must not wait for a core. Raises ClusterError where it does not run yet."""
        ...

    def ensure_images(self, names: Sequence[str]) -> None:
        """Build the images that are not current and give them to every living node."""
        ...

    def tag(self, name: str, alias: str) -> None:
        """Give the nodes' image ``NAME:dev`` the tag ``alias`` too: what an upgrade goes to."""
        ...

    def load(self, archive: Path) -> None:
        """Import an image archive into every living node."""
        ...

    def kubectl_words(self) -> tuple[str, str, str]:
        """kubectl, ``--kubeconfig``, and the path of it."""
        ...


def open_cluster(layout: Layout) -> Cluster:
    """The cluster that runs; else the kind of cluster that this machine can carry. Nothing is started."""
    if LocalCluster(layout).topology() is None and kind.is_possible():
        return kind.KindCluster(layout)
    return LocalCluster(layout)
