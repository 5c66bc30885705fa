"""`paceline-runtime emulation fault=Slow kappa=1.3`: change an emulated GPU while it serves.

Talks to the admin socket, so it is run inside the pod: `kubectl exec POD -- paceline-runtime emulation …`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from paceline_runtime.launch.admin_client import AdminClient, NoAnswer, NoServer
from paceline_runtime.launch.drain_command import ADMIN_SOCKET


@click.command()
@click.option(
    "--admin-socket",
    type=click.Path(path_type=Path),
    default=ADMIN_SOCKET,
    show_default=True,
    envvar="PACELINE_ADMIN_SOCKET",
)
@click.argument("changes", nargs=-1)
def emulation(admin_socket: Path, changes: tuple[str, ...]) -> None:
    """Show how the emulated GPU behaves, or change it: kappa=1.2 deltaMilliseconds=2 driftPerHour=0.1
    noise=0.05 fault=Slow. The rest stays."""
    wanted: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise click.UsageError(f"{change!r}: write key=value")
        try:
            wanted[key] = json.loads(value)
        except ValueError:
            wanted[key] = value
    try:
        click.echo(json.dumps(AdminClient(admin_socket).emulation(wanted)))
    except (NoServer, NoAnswer) as error:
        raise click.ClickException(str(error)) from error
