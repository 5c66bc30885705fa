"""The simulator's libraries are an extra of the package: the operator's image does not have them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

_EXTRA = ("matplotlib", "numba", "scipy")


@contextmanager
def needs_simulator() -> Iterator[None]:
    """Around the imports: where a library is missing, the command says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRA:
            raise
        raise click.ClickException(
            f"{error.name} is not installed: the simulator is an extra; run  pip install 'paceline[simulator]'"
        ) from error
