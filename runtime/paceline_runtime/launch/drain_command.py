"""`paceline-runtime drain`: the preStop hook of an engine pod.

Tells the server to leave and waits until it has; the server itself asks the routers and counts its
requests, so that nothing is lost if this process dies. Where no server answers (still loading, or crashed)
there is nothing to wait for.
"""

from __future__ import annotations

import time
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
    client = AdminClient(admin_socket)
    ask = client.drain
    while True:
        try:
            state = ask()
        except NoServer as error:
            click.echo(f"nothing to drain: {error}", err=True)
            return
        except NoAnswer as error:
            click.echo(f"asking again: {error}", err=True)
        else:
            ask = client.state
            if state["phase"] == "drained":
                click.echo(f"drained, {state['inFlight']} requests left", err=True)
                return
        time.sleep(_POLL_S)
