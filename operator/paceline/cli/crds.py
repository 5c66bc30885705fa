"""`paceline crds`: writes the CustomResourceDefinition where the repository keeps it, or tells whether it is
stale."""

from __future__ import annotations

from pathlib import Path

import click

from paceline.api.crd import FILE_NAME, chart_yaml, crd_yaml
from paceline.cli.written import root_option, write_or_check


@click.command("crds")
@root_option
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is not what would be written.")
def crds(root: Path, check: bool) -> None:
    """Write the CRD to crds/ and to the chart."""
    write_or_check(
        {
            root / "crds" / FILE_NAME: crd_yaml(),
            root / "charts" / "paceline" / "templates" / "crds.yaml": chart_yaml(),
        },
        check=check,
        command="paceline crds",
    )
