"""`paceline-runtime drain`: the preStop hook of an engine pod. The launcher does the same at a signal.

Tells the server to leave and waits until it has; the server itself asks the routers and counts its
requests, so that nothing is lost if this process dies. Where no server answers (still loading, or crashed)
there is nothing to wait for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

from paceline_runtime.launch.admin_client import AdminClient, NoAnswer, NoServer

ADMIN_SOCKET = Path("/run/paceline/admin.sock")
_POLL_S = 0.5


@click.command()
@click.option(
    "--admin-socket",
    type=click.Path(path_type=Path),
    default=ADMIN_SOCKET,
    show_default=True,
    envvar="PACELINE_ADMIN_SOCKET",
)
def drain(admin_socket: Path) -> None:
    """Take this pod out of the routers, then wait for its requests. For the preStop hook."""
    until_drained(admin_socket, say=lambda text: click.echo(text, err=True))


def until_drained(admin_socket: Path, *, say: Callable[[str], None]) -> None:
    """Return once the server has no request left, or has waited for as long as one may take, or is gone."""
    client = AdminClient(admin_socket)
    ask = client.drain
    while True:
        try:
            state = ask()
        except NoServer as error:
            say(f"nothing to drain: {error}")
            return
        except NoAnswer as error:
            say(f"asking again: {error}")
        else:
            ask = client.state
            if state["phase"] == "drained":
                say(f"drained, {state['inFlight']} requests left")
                return
        time.sleep(_POLL_S)
