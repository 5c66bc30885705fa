"""The command line of the local cluster: ``python -m e2e.cluster up | down | status | …``."""

from __future__ import annotations

from pathlib import Path

import click

from e2e.cluster import binaries
from e2e.cluster.builder import Builder
from e2e.cluster.choice import Cluster, open_cluster
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ClusterError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, help=__doc__)
@click.pass_context
def main(ctx: click.Context) -> None:
    ctx.obj = open_cluster(Layout.from_environment())


@main.command()
@click.option(
    "--nodes", type=click.Choice(["1", "3"]), help="How many nodes; without it: as it runs, else 1."
)
@click.pass_obj
def up(cluster: Cluster, nodes: str | None) -> None:
    """Bring the cluster up, or use the healthy one that runs."""
    cluster.up(int(nodes) if nodes else None)


@main.command()
@click.pass_obj
def down(cluster: Cluster) -> None:
    """Stop everything; keep only caches."""
    cluster.down()


@main.command()
@click.pass_obj
def status(cluster: Cluster) -> None:
    """Say what runs."""
    click.echo("\n".join(cluster.status()))


@main.command()
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def load(cluster: Cluster, archive: Path) -> None:
    """Import an image archive into every living node."""
    cluster.load(archive)


@main.command()
@click.pass_obj
def kubeconfig(cluster: Cluster) -> None:
    """Print the kubeconfig's path."""
    click.echo(cluster.layout.kubeconfig)


@main.command()
@click.pass_obj
def build(cluster: Cluster) -> None:
    """Build the cluster's programs from their Go modules, where they are missing."""
    for programs in binaries.all_programs():
        click.echo(programs.ensure(cluster.layout))


@main.command()
@click.argument("names", nargs=-1)
@click.pass_obj
def images(cluster: Cluster, names: tuple[str, ...]) -> None:
    """Build images (all without NAMES) and import them into the nodes that run."""
    cluster.ensure_images(names or tuple(Builder(cluster.layout).specs))


@main.command("kill-node")
@click.argument("number", type=int)
@click.pass_obj
def kill_node(cluster: Cluster, number: int) -> None:
    """End one node abruptly, as a power cut does."""
    cluster.kill_node(number)


@main.command("start-node")
@click.argument("number", type=int)
@click.pass_obj
def start_node(cluster: Cluster, number: int) -> None:
    """Start a killed node again and wait until it is Ready."""
    cluster.start_node(number)


@main.command("restart-kubelet")
@click.argument("number", type=int)
@click.pass_obj
def restart_kubelet(cluster: Cluster, number: int) -> None:
    """Kill one node's kubelet; the node starts it again."""
    cluster.restart_kubelet(number)


if __name__ == "__main__":
    main()
