"""Progress on a terminal: a line when a step begins, its seconds when it ends.

Called by everything that can take more than a few seconds. It must not decide anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click


def say(line: str) -> None:
    click.echo(f"cluster: {line}", err=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    say(f"{what} …")
    started = time.monotonic()
    yield
    say(f"{what}: done in {time.monotonic() - started:.1f} s")
