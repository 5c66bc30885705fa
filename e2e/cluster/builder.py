"""Images built by buildah without a Docker engine, a registry or a daemon.

Called by ``images`` and ``up``. The result of each image lies in one OCI layout on disk, from which
:mod:`e2e.cluster.node_images` hands a node the layers that it lacks. It must not build what is current.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from e2e.cluster import binaries, package_settings
from e2e.cluster.errors import ClusterError
from e2e.cluster.exclusive import exclusive
from e2e.cluster.image_specs import BASE, ImageSpec, image_specs
from e2e.cluster.layout import REPOSITORY, Layout
from e2e.cluster.packages import BUILD_PACKAGES, ensure_packages
from e2e.cluster.progress import say, step
from e2e.cluster.shell import run, run_logged, succeeds

DEBIAN_SUITE = "bookworm"
BUILD_TIMEOUT_S = 3600

REFERENCE = "org.opencontainers.image.ref.name"
"""The annotation by which an OCI layout names an image."""

_DROPPED_FROM_BASE = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)


@dataclass
class Builder:
    """Builds and exports images; one at a time on a machine (a lock file holds the others)."""

    layout: Layout

    @property
    def oci_layout(self) -> Path:
        return self.layout.images / "oci"

    @cached_property
    def specs(self) -> dict[str, ImageSpec]:
        return image_specs(self.layout)

    def ensure(self, names: Sequence[str]) -> None:
        """Build and export every image of ``names`` that is not current, and the base if one needs it."""
        unknown = [name for name in names if name not in self.specs]
        if unknown:
            raise ClusterError(f"no image {', '.join(unknown)}; there are {', '.join(self.specs)}")
        with exclusive(self.layout.images / "lock", "building images"):
            needs_base = any(self.specs[name].needs_base for name in names)
            wanted = [name for name in self.specs if name in names or (needs_base and name == BASE)]
            for name in wanted:
                self._ensure_one(self.specs[name])

    def is_built(self, name: str) -> bool:
        """Whether it was built before, current or not."""
        return bool(self._built_key(name))

    def begin(self, name: str, *, stage: str) -> None:
        """Build one stage of an image, whose layers the whole image finds made: for what can wait for the rest."""
        spec = self.specs[name]
        with exclusive(self.layout.images / "lock", "building images"):
            self._ensure_one(self.specs[BASE])
            ensure_packages(BUILD_PACKAGES, self.layout)
            log = self.layout.images / "logs" / f"{name}-{stage}.log"
            with step(f"building stage {stage} of image {spec.reference} (log in {log})"):
                run_logged(self._bud(spec, stage=stage), log=log, timeout_s=BUILD_TIMEOUT_S)

    def _ensure_one(self, spec: ImageSpec) -> None:
        self._prepare(spec)
        key = spec.key(base_key=self._built_key(BASE))
        if self._built_key(spec.name) == key:
            return
        ensure_packages(BUILD_PACKAGES, self.layout)
        log = self.layout.images / "logs" / f"{spec.name}.log"
        with step(f"building image {spec.reference} (log in {log})"):
            run_logged(self._bud(spec), log=log, timeout_s=BUILD_TIMEOUT_S)
        with step(f"exporting image {spec.reference}"):
            self._export(spec)
        self._keys.mkdir(parents=True, exist_ok=True)
        (self._keys / spec.name).write_text(key)

    def _export(self, spec: ImageSpec) -> None:
        """Write the image's layers that the layout lacks into it, as they are: compressing 4 GB takes minutes.

        ``push`` compresses for this kind of destination whatever it is told; ``commit`` does not, and costs
        an empty layer.
        """
        container = run(*self._buildah(), "from", "--pull-never", spec.reference).strip()
        destination = f"oci:{self.oci_layout}:{spec.name}"
        commit = ("commit", "--quiet", "--disable-compression", "--format", "oci", container, destination)
        try:
            run(*self._buildah(), *commit, timeout_s=BUILD_TIMEOUT_S)
        finally:
            run(*self._buildah(), "rm", container)
        self._forget_former_builds()

    @property
    def _keys(self) -> Path:
        return self.layout.images / "keys"

    def _built_key(self, name: str) -> str:
        path = self._keys / name
        return path.read_text() if path.exists() else ""

    def _prepare(self, spec: ImageSpec) -> None:
        """Make what the image's contexts hold, where that is ours to make."""
        if spec.name == BASE:
            self._ensure_base_system()
        elif spec.name == "pause":
            self._ensure_busybox(spec.contexts["programs"])
        elif spec.name in binaries.POD_PROGRAMS:
            binaries.own_program(spec.name).ensure(self.layout)

    def _bud(self, spec: ImageSpec, *, stage: str | None = None) -> list[str | Path]:
        """`stage`: no more than this one, which copies from no folder of ours."""
        words: list[str | Path] = [
            "nice", *self._buildah(), "bud", "--isolation", "chroot", "--layers", "--format", "oci",
            "--pull=never", "--file", spec.dockerfile,
        ]  # fmt: skip
        if spec.needs_base:
            words += ["--build-arg", f"BASE_IMAGE={self.specs[BASE].reference}"]
        if stage is not None:
            words += ["--target", stage, "--tag", f"{spec.reference}-{stage}"]
        else:
            words += ["--tag", spec.reference]
            for name, folder in spec.contexts.items():
                words += ["--build-context", f"{name}={folder}"]
        for mount in package_settings.mounts(self.layout.images / "settings"):
            words += ["--volume", mount]
        words.append(self._base_context if spec.name == BASE else REPOSITORY)
        return words

    def _buildah(self) -> tuple[str, ...]:
        return (*self._storage, "--storage-driver", self._storage_driver)

    @property
    def _storage(self) -> tuple[str, ...]:
        root = self.layout.images / "storage"
        # What must not outlive a boot of the machine, for each cache its own.
        run_root = Path("/run/paceline-buildah") / hashlib.sha256(str(root).encode()).hexdigest()[:8]
        return ("buildah", "--root", str(root), "--runroot", str(run_root))

    @cached_property
    def _storage_driver(self) -> str:
        """overlay where the file system carries it: a 4 GB image is minutes faster than on vfs."""
        if succeeds(*self._storage, "--storage-driver", "overlay", "info"):
            return "overlay"
        say("buildah cannot use overlay here: vfs instead, which is slow and large")
        return "vfs"

    @property
    def _base_context(self) -> Path:
        return self.layout.images / "base"

    def _ensure_base_system(self) -> None:
        archive = self._base_context / "rootfs.tar"
        if archive.exists():
            return
        ensure_packages(BUILD_PACKAGES, self.layout)
        root = self._base_context / "rootfs"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        log = self.layout.images / "logs" / "debootstrap.log"
        with step(f"making Debian {DEBIAN_SUITE}'s minimal system (once; log in {log})"):
            run_logged(
                ["nice", "debootstrap", "--variant=minbase", "--include=python3,ca-certificates",
                 DEBIAN_SUITE, root],
                log=log,
                timeout_s=1800,
            )  # fmt: skip
            for path in _DROPPED_FROM_BASE:
                shutil.rmtree(root / path)
                (root / path).mkdir()
            making = archive.with_suffix(".making")
            with tarfile.open(making, "w") as tar:
                tar.add(root, arcname=".", filter=_without_devices)
            making.rename(archive)
            shutil.rmtree(root)

    @staticmethod
    def _ensure_busybox(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        found = shutil.which("busybox")
        if found is None:
            raise ClusterError("busybox is not installed: apt-get install busybox-static")
        if not (folder / "busybox").exists():
            shutil.copy(found, folder / "busybox")

    def _forget_former_builds(self) -> None:
        """The layout only ever grows by itself: a name that moves on leaves its manifest and layers behind."""
        blobs = self.oci_layout / "blobs" / "sha256"
        index_file = self.oci_layout / "index.json"
        index = json.loads(index_file.read_text())
        index["manifests"] = [m for m in index["manifests"] if REFERENCE in m.get("annotations", {})]
        index_file.write_text(json.dumps(index))
        kept: set[str] = set()
        for manifest in index["manifests"]:
            digest = manifest["digest"].removeprefix("sha256:")
            content = json.loads((blobs / digest).read_text())
            kept |= {
                digest,
                *(d["digest"].removeprefix("sha256:") for d in (content["config"], *content["layers"])),
            }
        for blob in blobs.iterdir():
            if blob.name not in kept:
                blob.unlink()


def _without_devices(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """/dev is the container runtime's; a device node inside an image is only a liability."""
    return None if member.isdev() and not member.isfile() else member
