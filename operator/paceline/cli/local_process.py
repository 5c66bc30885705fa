"""The engine process of `paceline serve`: started, waited for, and ended, with its own words in a log file.

It knows processes and one HTTP route, nothing of manifests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.5
PROGRESS_EVERY_S = 5.0
LOG_LINES_ON_FAILURE = 20


class EngineFailed(Exception):
    """The engine ended, or did not become ready; the message is its verdict, or the end of its log."""


def interpreter(*, cache: Path, needs_vllm: bool, needs_gpu: bool) -> Path:
    """The Python that can run the engine; EngineFailed with the command that makes one."""
    if importlib.util.find_spec("paceline_runtime") and (not needs_vllm or importlib.util.find_spec("vllm")):
        return Path(sys.executable)
    if needs_gpu:
        raise EngineFailed(
            "vLLM for GPUs is not installed beside this command: `pip install vllm` and paceline-runtime there, or "
            "write spec.accelerator.resourceName: cpu"
        )
    cached = cache / "venvs" / "runtime-cpu" / "bin" / "python"
    if not cached.exists():
        raise EngineFailed(f"there is no environment with vLLM ({cached}): run `make runtime-env`")
    return cached


@dataclass(slots=True)
class LocalProcess:
    """One engine in a session of its own, so that Ctrl-C reaches it as a request to end, once, from us."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    verdict: Path

    @classmethod
    def start(
        cls, command: list[str], *, url: str, env: Mapping[str, str], log: Path, verdict: Path
    ) -> LocalProcess:
        log.parent.mkdir(parents=True, exist_ok=True)
        verdict.unlink(missing_ok=True)
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command,
                env={**os.environ, **env, "PACELINE_TERMINATION_LOG": str(verdict)},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process=process, url=url, log=log, verdict=verdict)

    def wait_ready(self, *, within_s: float, tell: Callable[[str], None]) -> float:
        """Seconds until it answers requests; `tell` hears every few seconds that it does not yet."""
        started_s = time.monotonic()
        told_s, told_line = started_s, ""
        while not self._is_ready():
            if self.process.poll() is not None:
                raise EngineFailed(self._last_words())
            now_s = time.monotonic()
            if now_s - started_s > within_s:
                raise EngineFailed(f"not ready after {within_s:.0f} s\n{self._last_words()}")
            if now_s - told_s >= PROGRESS_EVERY_S:
                line = self._last_line()
                tell(f"{now_s - started_s:3.0f} s  {line if line != told_line else '…'}")
                told_s, told_line = now_s, line
            time.sleep(POLL_S)
        return time.monotonic() - started_s

    def wait(self) -> int:
        """Until it ends by itself; its exit code."""
        return self.process.wait()

    def end(self, *, within_s: float) -> None:
        """Ask it to end, which lets what it answers run on; whatever is left after that time is killed."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout=within_s)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            # The session may hold more than the process we started: vLLM's engine runs in a child of its own.
            self._kill_session()

    def explain(self) -> str:
        return self._last_words()

    def _kill_session(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()

    def _is_ready(self) -> bool:
        try:
            with _DIRECT.open(f"{self.url}/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _last_words(self) -> str:
        """The verdict that the launcher leaves, else the end of the log."""
        try:
            verdict = json.loads(self.verdict.read_text(encoding="utf-8"))
            where = verdict.get("field") or f"stage {verdict['stage']}"
            return f"{where}: {verdict['message']}\nits log: {self.log}"
        except (OSError, ValueError, KeyError, TypeError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join([*lines[-LOG_LINES_ON_FAILURE:], f"the whole log: {self.log}"])

    def _last_line(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1][:100] if lines else "starting"


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Never through a proxy: the engine is on this machine."""
