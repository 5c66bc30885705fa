"""Where the local cluster keeps its things: one folder of caches outside the repository.

Called by every other module here. It decides paths and creates nothing but folders.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CLUSTER_NAME = "paceline"

REPOSITORY = Path(__file__).resolve().parents[2]
"""The root of this repository: images are built from it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one cache root."""

    cache: Path

    @classmethod
    def from_environment(cls) -> Layout:
        return cls(Path(os.environ.get("PACELINE_CACHE") or Path.home() / ".cache" / "paceline"))

    @property
    def binaries(self) -> Path:
        return self.cache / "bin"

    @property
    def models(self) -> Path:
        return self.cache / "models"

    @property
    def bundled_model(self) -> Path:
        return self.models / "smollm2-135m-instruct"

    @property
    def bundled_model_int8(self) -> Path:
        return self.models / f"{self.bundled_model.name}-int8"

    @property
    def images(self) -> Path:
        return self.cache / "images"

    @property
    def state(self) -> Path:
        return self.cache / "cluster"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def daemons(self) -> Path:
        return self.state / "daemons"

    @property
    def etcd(self) -> Path:
        return self.state / "etcd"

    @property
    def topology(self) -> Path:
        return self.state / "topology.json"

    def node(self, name: str) -> Path:
        return self.state / "nodes" / name
