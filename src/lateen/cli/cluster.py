"""lateen cluster, lateen kubeconfig."""

from __future__ import annotations

from pathlib import Path

import click

from lateen.cli.base import command
from lateen.cli.output import USAGE, CliError, say, step, table
from lateen.cluster import lifecycle
from lateen.cluster.home import Home
from lateen.kit.files import write_atomic


@click.group()
def cluster() -> None:
    """Start, stop and inspect the embedded cluster, whose state directory is $LATEEN_HOME."""


@cluster.command()
@click.option(
    "--neighbour",
    "neighbours",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The state directory (LATEEN_HOME) of another embedded cluster that this one can reach.",
)
@click.option(
    "--outbound/--no-outbound",
    default=None,
    help="Let pods reach addresses outside of this machine (with slirp4netns); off by default. The choice is kept.",
)
def start(neighbours: tuple[Path, ...], outbound: bool | None) -> None:
    """Start the cluster; a running one is left as it is.

    Clusters that name each other with --neighbour can form one mesh (lateen create-remote-secret). Both options also
    apply to later starts.
    """
    home = Home.default()
    if outbound is not None:
        _allow(home, outbound)
    if neighbours:
        _meet(home, neighbours)
    if lifecycle.running(home):
        say("the cluster is already running")
    else:
        with step("Cluster started"):
            begin(home)
    say(f"export KUBECONFIG={home.kubeconfig}")


def _allow(home: Home, outbound: bool) -> None:
    """Store whether pods can reach addresses outside of the machine. Raises CliError."""
    if outbound == home.outbound.exists():
        return
    if lifecycle.running(home):
        raise CliError("the cluster is running; --outbound takes effect when it starts: stop it first", USAGE)
    if outbound:
        home.create()
        home.outbound.touch(0o600)
    else:
        home.outbound.unlink()


def _meet(home: Home, neighbours: tuple[Path, ...]) -> None:
    """Store the neighbours for this and later starts. Raises CliError."""
    if lifecycle.running(home):
        raise CliError("the cluster is running; --neighbour takes effect when it starts: stop it first", USAGE)
    named = {Home(p).outside: p.absolute() for p in neighbours}
    if home.outside in named or len(named) < len(set(neighbours)):
        raise CliError("clusters with the same address cannot be neighbours; choose another LATEEN_HOME", USAGE)
    from lateen.kit import jsons

    home.create()
    write_atomic(home.neighbours, jsons.dumps([str(p) for p in named.values()]), 0o600)


def begin(home: Home) -> None:
    """Start the cluster; failures become CliError."""
    try:
        lifecycle.start(home)
    except lifecycle.ClusterError as e:
        raise CliError(str(e)) from e


@cluster.command()
def stop() -> None:
    """Stop the cluster's processes; its objects are kept for the next start."""
    say("stopped" if lifecycle.stop(Home.default()) else "the cluster was not running")


@cluster.command()
def status() -> None:
    """Show whether the cluster is running, its addresses and files, and where gateways listen on this machine."""
    home = Home.default()
    pid = lifecycle.running(home)
    rows = [
        ["STATE", "PID", "KUBECONFIG", "LOG"],
        ["running" if pid else "stopped", str(pid or "-"), str(home.kubeconfig), str(home.log)],
    ]
    click.echo(table(rows))
    if home.neighbours.exists():
        click.echo(f"\nneighbours reach this cluster at {home.outside}")
    if home.outbound.exists():
        click.echo("\npods reach addresses outside of this machine")
    if not pid:
        raise SystemExit(3)
    from lateen.cli import cluster_status  # imported late: ``start`` needs no API client

    cluster_status.show(home)


@cluster.command()
def delete() -> None:
    """Stop the cluster and remove its state directory with all objects."""
    say("deleted" if lifecycle.delete(Home.default()) else "there was no cluster")


@command()
def kubeconfig() -> None:
    """Print the path of the embedded cluster's kubeconfig."""
    click.echo(Home.default().kubeconfig)
