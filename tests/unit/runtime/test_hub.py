"""Fetching from the hub, against a hub of our own on loopback: what is asked for, and in which order."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.test_model_source import CONFIG, checkpoint

COMMIT = "c0ffee" + "0" * 34
RUNTIME = Path(__file__).parents[3] / "runtime"


class Hub:
    """One repository, org/name, at one commit."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = request.path.partition("?")[0]
        if path.startswith("/api/models/org/name/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": etag(content)}
                for name, content in self.files.items()
            ]
            content = json.dumps(tree).encode()
        elif path.startswith("/api/models/org/name"):
            siblings = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
            content = json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode()
        else:
            name = path.rpartition("/")[2]
            if not path.startswith("/org/name/resolve/") or name not in self.files:
                request.send_response(404)
                request.send_header("x-error-code", "RepoNotFound")
                request.send_header("content-length", "0")
                request.end_headers()
                return
            content = self.files[name]
            if body:
                self.asked.append(name)
        request.send_response(200)
        request.send_header("content-length", str(len(content)))
        request.send_header("etag", f'"{etag(content)}"')
        request.send_header("x-repo-commit", COMMIT)
        request.end_headers()
        if body:
            request.wfile.write(content)


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in checkpoint(tmp_path / "source").iterdir()}
    one = Hub(
        files | {"tokenizer.json": b"{}", "README.md": b"text", "model.Q4.gguf": b"no", "old.bin": b"no"}
    )
    yield one
    one.server.shutdown()
    one.server.server_close()


def fetch(hub: Hub, home: Path, *, uri: str = "hf://org/name@main", **environ: str) -> dict[str, Any]:
    """In a process of its own: the client library reads its settings once. The verdict, or what was
    resolved."""
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    root = RUNTIME.parent
    path = os.pathsep.join((str(RUNTIME), str(root)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.runtime.resolve_model", uri],
        env={**os.environ, **settings, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def test_weights_come_after_what_could_refuse_them_and_nothing_else_comes(hub: Hub, tmp_path: Path) -> None:
    found = fetch(hub, tmp_path / "home")
    assert found["revision"] == COMMIT
    assert found["heads"] == 9
    assert {path.name for path in Path(found["path"]).iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert hub.asked[0] == "config.json"
    assert "model.Q4.gguf" not in hub.asked
    assert "old.bin" not in hub.asked


def test_a_misfit_is_refused_before_any_weights_are_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.files["config.json"] = json.dumps(CONFIG | {"max_position_embeddings": 1024}).encode()
    assert fetch(hub, tmp_path / "home") == {"refused": "spec.model.maxModelTokens"}
    assert "model.safetensors" not in hub.asked


def test_a_commit_that_is_on_the_volume_needs_no_hub(hub: Hub, tmp_path: Path) -> None:
    first = fetch(hub, tmp_path / "home")
    hub.server.shutdown()
    hub.server.server_close()
    again = fetch(hub, tmp_path / "home", uri=f"hf://org/name@{COMMIT}")
    assert again["path"] == first["path"]


def test_a_model_that_is_not_there_fails_with_the_way_out(hub: Hub, tmp_path: Path) -> None:
    message = fetch(hub, tmp_path / "home", uri="hf://other/name@main")["failed"]
    assert "spec.model.secretRef" in message


def test_a_hub_that_is_down_fails_the_start_with_a_verdict(hub: Hub, tmp_path: Path) -> None:
    hub.server.shutdown()
    hub.server.server_close()
    assert "the hub did not give it" in fetch(hub, tmp_path / "home")["failed"]
