"""Names and addresses of the local cluster: pure, the same for every run.

10.99.0.0/24     the machine's bridge `paceline0`: .1 is the control plane, .11 … .13 the nodes
10.244.N.0/24    the pods of node N, behind a bridge in the node's own network namespace
10.96.0.0/16     Services: reached from the machine through one living node
"""

from __future__ import annotations

import json
from dataclasses import dataclass

BRIDGE = "paceline0"
CONTROL_PLANE_IP = "10.99.0.1"
API_PORT = 6443
ETCD_PORT = 23790
ETCD_PEER_PORT = 23800
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
POD_CIDR = "10.244.0.0/16"
DOMAIN = "cluster.local"


@dataclass(frozen=True, slots=True)
class Node:
    """One node; ``number`` starts at 1 and decides everything else."""

    number: int

    @property
    def name(self) -> str:
        return f"paceline-{self.number}"

    @property
    def address(self) -> str:
        return f"10.99.0.{10 + self.number}"

    @property
    def pod_cidr(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def link(self) -> str:
        """The machine's end of the node's cable."""
        return f"paceline{self.number}"

    @property
    def cgroup(self) -> str:
        return f"/paceline/{self.name}"


@dataclass(frozen=True, slots=True)
class Topology:
    """How many nodes, and which of them were killed on purpose."""

    size: int
    dead: frozenset[int] = frozenset()

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(Node(number) for number in range(1, self.size + 1))

    @property
    def living(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.number not in self.dead)

    @property
    def entrance(self) -> Node | None:
        """The node through which the machine reaches Services: its kube-proxy turns them into pods."""
        return self.living[0] if self.living else None

    def without(self, number: int) -> Topology:
        return Topology(self.size, self.dead | {number})

    def with_(self, number: int) -> Topology:
        return Topology(self.size, self.dead - {number})

    def to_json(self) -> str:
        return json.dumps({"size": self.size, "dead": sorted(self.dead)})

    @classmethod
    def from_json(cls, text: str) -> Topology:
        raw = json.loads(text)
        return cls(int(raw["size"]), frozenset(raw["dead"]))
