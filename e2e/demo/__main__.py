"""`python -m e2e.demo`: what `make demo` runs."""

from __future__ import annotations

import subprocess
import sys
import urllib.error

import click

from e2e.cluster.errors import ClusterError
from e2e.demo.question import NoAnswer
from e2e.demo.tour import Tour
from e2e.demo.watch import NotReady
from e2e.demo.where import choose
from e2e.helm import HelmError, installed
from e2e.kubectl import KubectlError

FAILURES = (NotReady, NoAnswer, HelmError, KubectlError, urllib.error.URLError, subprocess.SubprocessError)


def main() -> int:
    try:
        where = choose()
        where.prepare()
        tour = Tour(where, installed())
    except (ClusterError, HelmError) as error:
        return _failed(str(error))
    try:
        tour.run()
    except ClusterError as error:
        return _failed(f"the cluster: {error}")
    except FAILURES as error:
        tour.explain_failure()
        return _failed(f"the demo did not end well: {error}")
    return 0


def _failed(message: str) -> int:
    click.secho(message, fg="red", err=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
