"""One way to run a program to its end: captured, with a deadline, its words in the error when it fails."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from e2e.cluster.errors import ClusterError

Argument = str | Path


def run(
    *command: Argument,
    timeout_s: float = 60,
    stdin: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """The program's standard output; :class:`ClusterError` with its standard error when it fails.

    ``stdin`` is the text or the file that it reads; it reads nothing without.
    """
    words = [str(word) for word in command]
    start = partial(
        subprocess.run,
        words,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=env,
        cwd=cwd,
    )
    try:
        if isinstance(stdin, Path):
            with stdin.open("rb") as file:
                done = start(stdin=file)
        else:
            done = start(input=stdin or "")
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(words)}: not done within {timeout_s:g} s") from error
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]}: no such program; is it installed, is it built?") from error
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def succeeds(*command: Argument, timeout_s: float = 20) -> bool:
    """Whether the program exists and ends with 0: for questions, never for work."""
    try:
        run(*command, timeout_s=timeout_s)
    except ClusterError:
        return False
    return True


def run_logged(
    command: Sequence[Argument],
    *,
    log: Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a long program with its words in ``log``; the end of the log is in the error when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    with log.open("w") as sink:
        try:
            code = subprocess.run(
                words,
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
                env=env,
                cwd=cwd,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{words[0]}: not done within {timeout_s:g} s; see {log}") from error
        except FileNotFoundError as error:
            raise ClusterError(f"{words[0]}: no such program") from error
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ClusterError(f"{' '.join(words)[:300]}: ended with {code}; see {log}\n{tail}")
