"""The `paceline` command. Each subcommand is a module of this package, imported only when it is asked for.
 The module `crds` holds the command `crds`, `api_docs` the command `api-docs`: so `paceline crds` needs no
Kubernetes client, and a new command is a new file and a word in COMMANDS.
"""

from __future__ import annotations

import importlib
from typing import Final

import click

COMMANDS: Final = (
    "api-docs",
    "benchmark",
    "crds",
    "explain",
    "operator",
    "plan",
    "record",
    "replay",
    "serve",
    "simulate",
    "timing",
    "top",
)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name.replace('-', '_')}")
        found = (value for value in vars(module).values() if isinstance(value, click.Command))
        return next(command for command in found if command.name == cmd_name)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="paceline", prog_name="paceline")
def main() -> None:
    """Keeps LLM services inside their latency objectives at the lowest GPU cost."""
