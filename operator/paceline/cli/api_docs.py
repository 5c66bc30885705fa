"""`paceline api-docs`: writes docs/api.md, or tells whether it is stale."""

from __future__ import annotations

from pathlib import Path

import click

from paceline.api.reference import api_reference
from paceline.cli.written import root_option, write_or_check


@click.command("api-docs")
@root_option
@click.option("--check", is_flag=True, help="Write nothing; fail if the file is not what would be written.")
def api_docs(root: Path, check: bool) -> None:
    """Write the reference of the API to docs/api.md."""
    write_or_check({root / "docs" / "api.md": api_reference()}, check=check, command="paceline api-docs")
