"""The fake GPUs' own tests, in Go: registration, allocation, a kubelet that restarts."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from e2e.cluster.binaries import MODULES


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_the_device_plugin_passes_its_own_tests() -> None:
    done = subprocess.run(
        ["go", "test", "./..."],
        cwd=MODULES / "device-plugin",
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
