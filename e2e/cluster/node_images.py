"""Hands a node's containerd the images of the OCI layout, and of each only the layers that it lacks.

Called by ``up``, ``images`` and ``load``. A 4 GB image whose thin last layer changed costs that layer.
"""

from __future__ import annotations

import io
import json
import os
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

IMPORT_TIMEOUT_S = 1800
_CTR = ("ctr", "-n", "k8s.io")


@dataclass(frozen=True, slots=True)
class NodeImages:
    """The images of one running node; ``pid`` is a process in the node's mount namespace."""

    node: str
    pid: int
    content: Path
    """Where the node's containerd keeps its blobs, seen from the machine."""

    def ensure(self, specs: Sequence[ImageSpec], oci_layout: Path) -> None:
        """Import each image unless the node has exactly this one."""
        there = self._digests()
        wanted = {spec: _manifest_digest(oci_layout, spec.name) for spec in specs}
        lacking = {spec: digest for spec, digest in wanted.items() if there.get(spec.reference) != digest}
        for spec, digest in lacking.items():
            with step(f"{self.node}: importing image {spec.reference}"):
                self._import(partial(self._write_archive, oci_layout=oci_layout, spec=spec, digest=digest))
        if lacking:
            self._share_blobs(oci_layout)

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
        return ("nsenter", "--target", str(self.pid), "--mount", "--", *command)

    def _digests(self) -> dict[str, str]:
        """Reference -> digest of what the node has."""
        rows = run(*self._in_node(*_CTR, "images", "ls")).splitlines()[1:]
        return {row.split()[0]: row.split()[2] for row in rows}

    def _blobs(self) -> set[str]:
        return set(run(*self._in_node(*_CTR, "content", "ls", "-q")).split())

    def _import(self, write: Callable[[IO[bytes]], None]) -> None:
        command = self._in_node(*_CTR, "images", "import", "--snapshotter", "overlayfs", "-")
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdin is not None
        try:
            write(process.stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass  # its own words say why, below
        assert process.stdout is not None
        words = process.stdout.read().decode(errors="replace")
        if process.wait(timeout=IMPORT_TIMEOUT_S) != 0:
            raise ClusterError(f"{self.node}: image import failed: {words.strip()[-1000:]}")

    def _write_archive(self, sink: IO[bytes], *, oci_layout: Path, spec: ImageSpec, digest: str) -> None:
        blobs = oci_layout / "blobs" / "sha256"
        manifest = json.loads((blobs / digest.removeprefix("sha256:")).read_text())
        there = self._blobs()
        wanted = [digest, *(part["digest"] for part in (manifest["config"], *manifest["layers"]))]
        index = {
            "schemaVersion": 2,
            "manifests": [
                {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": digest,
                    "size": (blobs / digest.removeprefix("sha256:")).stat().st_size,
                    "annotations": {"io.containerd.image.name": spec.reference},
                }
            ],
        }
        with tarfile.open(fileobj=sink, mode="w|") as tar:
            _add_text(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}))
            _add_text(tar, "index.json", json.dumps(index))
            for blob in dict.fromkeys(wanted):
                if blob not in there:
                    tar.add(blobs / blob.removeprefix("sha256:"), arcname=f"blobs/{blob.replace(':', '/')}")

    def _share_blobs(self, oci_layout: Path) -> None:
        """Let the layout and containerd share one copy of each layer on disk (hard links), where they can."""
        for blob in (oci_layout / "blobs" / "sha256").iterdir():
            stored = self.content / blob.name
            if stored.exists() and not stored.samefile(blob) and stored.stat().st_dev == blob.stat().st_dev:
                link = blob.with_suffix(".link")
                link.unlink(missing_ok=True)
                os.link(stored, link)
                link.rename(blob)


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
