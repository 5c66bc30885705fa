"""Which images there are and what each is made from: enough to tell, without building, whether it is current.

Called by the builder. A key is a hash of everything that goes in (Dockerfile, sources, folders from the
cache, the base's key), so an unchanged image is neither built nor imported again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import binaries
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import REPOSITORY, Layout

REGISTRY = "docker.io/paceline"
TAG = "dev"
BASE = "base"

_SKIPPED_FOLDERS = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache"})


@dataclass(frozen=True, slots=True, eq=False)
class ImageSpec:
    """One image. ``sources`` are paths in the repository; ``contexts`` are folders outside it, by the name
    that the Dockerfile copies from."""

    name: str
    sources: tuple[str, ...] = ()
    contexts: Mapping[str, Path] = field(default_factory=dict)
    needs_base: bool = False

    @property
    def reference(self) -> str:
        return f"{REGISTRY}/{self.name}:{TAG}"

    @property
    def dockerfile(self) -> Path:
        return REPOSITORY / "images" / f"{self.name}.Dockerfile"

    def key(self, *, base_key: str) -> str:
        """The hash of what goes in; ``base_key`` counts only where the image stands on the base."""
        digest = hashlib.sha256()
        digest.update(self.dockerfile.read_bytes())
        digest.update((base_key if self.needs_base else "").encode())
        for source in self.sources:
            _digest_tree(digest, REPOSITORY / source, label=source)
        for name in sorted(self.contexts):
            _digest_tree(digest, self.contexts[name], label=name)
        return digest.hexdigest()


def _files(root: Path) -> Iterable[Path]:
    if root.is_file():
        return [root]
    return sorted(
        path for path in root.rglob("*") if path.is_file() and not _SKIPPED_FOLDERS.intersection(path.parts)
    )


def _digest_tree(digest: hashlib._Hash, root: Path, *, label: str) -> None:
    if not root.exists():
        raise ClusterError(
            f"{root} is missing: an image is made from it; for a model's folder, `make models`"
        )
    for path in _files(root):
        name = "" if path == root else path.relative_to(root)
        digest.update(f"{label}/{name}\0{path.stat().st_mode & 0o777:o}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())


_RUNTIME = ("runtime/paceline_core", "runtime/pyproject.toml", "runtime/paceline_runtime")

_PYTHON_SOURCES = {
    "operator": ("runtime/paceline_core", "operator", "requirements/operator.txt"),
    "router": (*_RUNTIME, "requirements/router.txt"),
}


def image_specs(layout: Layout) -> dict[str, ImageSpec]:
    """Every image by name, in the order in which they are built."""

    def program(module: str) -> dict[str, Path]:
        return {"programs": binaries.own_program(module).folder(layout)}

    specs = [
        ImageSpec(BASE),
        ImageSpec("pause", contexts={"programs": layout.images / "static"}),
        ImageSpec("coredns", contexts=program("coredns")),
        ImageSpec("device-plugin", contexts=program("device-plugin")),
        ImageSpec("prometheus", contexts=program("prometheus")),
        *(ImageSpec(name, sources=sources, needs_base=True) for name, sources in _PYTHON_SOURCES.items()),
    ]
    runtime_cpu = ImageSpec(
        "runtime-cpu",
        sources=(*_RUNTIME, "requirements/runtime-cpu.txt", "images/prune-runtime-cpu.sh"),
        contexts={
            "model": layout.bundled_model,
            "model-int8": layout.bundled_model_int8,
        },
        needs_base=True,
    )
    return {spec.name: spec for spec in (*specs, runtime_cpu)}


CLUSTER_IMAGES = ("pause", "base", "coredns", "device-plugin", "prometheus")
"""What ``up`` itself needs."""
