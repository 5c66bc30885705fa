"""Files of the repository that are made from the models: written, or held against what would be written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

root_option = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    show_default=True,
    help="The repository.",
)


def write_or_check(files: Mapping[Path, str], *, check: bool, command: str) -> None:
    """With `check`, a file that differs ends the command with 1 and the names of all that do."""
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    if check and stale:
        raise click.ClickException(f"stale: {', '.join(map(str, stale))}: run `{command}`")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
        click.echo(f"wrote {path}")
