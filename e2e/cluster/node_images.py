"""Hands a node's containerd the images of the OCI layout, and of each only the layers that it lacks.

Called by ``up``, ``images`` and ``load``. A 4 GB image whose thin last layer changed costs that layer.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from e2e.cluster.builder import REFERENCE
from e2e.cluster.errors import ClusterError
from e2e.cluster.image_specs import REGISTRY, TAG, ImageSpec
from e2e.cluster.progress import step
from e2e.cluster.shell import run

_CTR = ("ctr", "-n", "k8s.io")


@dataclass(frozen=True, slots=True)
class NodeImages:
    """The images of one running node."""

    node: str
    enter: tuple[str, ...]
    """The words before a command that is to run in the node."""

    def ensure(self, specs: Sequence[ImageSpec], oci_layout: Path) -> None:
        """Import each image unless the node has exactly this one."""
        there = self._digests()
        wanted = {spec: _manifest_digest(oci_layout, spec.name) for spec in specs}
        lacking = {spec: digest for spec, digest in wanted.items() if there.get(spec.reference) != digest}
        for spec, digest in lacking.items():
            with step(f"{self.node}: importing image {spec.reference}"):
                archive = partial(_write_archive, oci_layout=oci_layout, spec=spec, digest=digest)
                blobs = _blobs_of(oci_layout, digest)
                there_already = self._blobs()
                try:
                    self._import(partial(archive, blobs=[b for b in blobs if b not in there_already]))
                except ClusterError:
                    # containerd's garbage collector took one of those that were there: bring them all.
                    self._import(partial(archive, blobs=blobs))

    def tag(self, name: str, alias: str) -> None:
        source, target = (f"{REGISTRY}/{name}:{tag}" for tag in (TAG, alias))
        run(*self._in_node(*_CTR, "images", "tag", "--force", source, target))

    def load(self, archive: Path) -> None:
        """Import a docker-archive or oci-archive as it is."""

        def copy(sink: IO[bytes]) -> None:
            with archive.open("rb") as source:
                while block := source.read(1 << 20):
                    sink.write(block)

        with step(f"{self.node}: importing {archive}"):
            self._import(copy)

    def _in_node(self, *command: str) -> tuple[str, ...]:
        return (*self.enter, *command)

    def _digests(self) -> dict[str, str]:
        """Reference -> digest of what the node has."""
        rows = run(*self._in_node(*_CTR, "images", "ls")).splitlines()[1:]
        return {row.split()[0]: row.split()[2] for row in rows}

    def _blobs(self) -> set[str]:
        return set(run(*self._in_node(*_CTR, "content", "ls", "-q")).split())

    def _import(self, write: Callable[[IO[bytes]], None]) -> None:
        command = self._in_node(*_CTR, "images", "import", "--snapshotter", "overlayfs", "-")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            # Why it would not read on is in its own words, below.
            with contextlib.suppress(BrokenPipeError), process.stdin:
                write(process.stdin)
            words = process.stdout.read().decode(errors="replace")
        if process.returncode != 0:
            raise ClusterError(f"{self.node}: image import failed: {words.strip()[-1000:]}")


def _blobs_of(oci_layout: Path, digest: str) -> list[str]:
    """Every blob of the image: its manifest, its configuration, its layers."""
    manifest = json.loads((oci_layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_text())
    parts = [part["digest"] for part in (manifest["config"], *manifest["layers"])]
    return list(dict.fromkeys([digest, *parts]))


def _write_archive(
    sink: IO[bytes], *, oci_layout: Path, spec: ImageSpec, digest: str, blobs: Sequence[str]
) -> None:
    """An image archive that names the image and holds those ``blobs`` of it that containerd lacks."""
    manifest = oci_layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest,
        "size": manifest.stat().st_size,
        "annotations": {"io.containerd.image.name": spec.reference},
    }
    with tarfile.open(fileobj=sink, mode="w|") as tar:
        _add_text(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}))
        _add_text(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        for blob in blobs:
            path = f"blobs/{blob.replace(':', '/')}"
            tar.add(oci_layout / path, arcname=path)


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(text.encode())
    tar.addfile(member, io.BytesIO(text.encode()))


def _manifest_digest(oci_layout: Path, name: str) -> str:
    index = oci_layout / "index.json"
    for manifest in json.loads(index.read_text())["manifests"] if index.exists() else []:
        if manifest.get("annotations", {}).get(REFERENCE) == name:
            return str(manifest["digest"])
    raise ClusterError(f"image {name} is not built: run `python -m e2e.cluster images {name}`")
