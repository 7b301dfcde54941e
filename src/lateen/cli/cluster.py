"""lateen cluster, lateen kubeconfig."""

from __future__ import annotations

from pathlib import Path

import click

from lateen.api import kinds
from lateen.api.reading import outside
from lateen.cli.base import command
from lateen.cli.connect import with_client
from lateen.cli.output import USAGE, CliError, say, step, table
from lateen.cluster import lifecycle
from lateen.cluster.home import Home
from lateen.cluster.kubelet.limits import CONDITION
from lateen.kit import jsons
from lateen.kit.files import write_atomic
from lateen.kit.jsons import dig
from lateen.kube.client import Client


@click.group()
def cluster() -> None:
    """Start, stop and inspect the embedded cluster, whose state directory is $LATEEN_HOME."""


@cluster.command()
@click.option(
    "--neighbour",
    "neighbours",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The state directory (LATEEN_HOME) of another embedded cluster that this one may reach.",
)
def start(neighbours: tuple[Path, ...]) -> None:
    """Start the cluster; a running one is left as it is.

    Clusters that name each other with --neighbour can be one mesh (lateen create-remote-secret).
    """
    home = Home.default()
    if neighbours:
        _meet(home, neighbours)
    if lifecycle.running(home):
        say("the cluster is already running")
    else:
        with step("Cluster started"):
            begin(home)
    say(f"export KUBECONFIG={home.kubeconfig}")


def _meet(home: Home, neighbours: tuple[Path, ...]) -> None:
    """Remember the neighbours, for this and later starts. Raises CliError."""
    if lifecycle.running(home):
        raise CliError("the cluster is running; it learns of neighbours when it starts: stop it first", USAGE)
    named = {Home(p).outside: p.absolute() for p in neighbours}
    if home.outside in named or len(named) < len(set(neighbours)):
        raise CliError("clusters with the same address cannot be neighbours; choose another LATEEN_HOME", USAGE)
    home.create()
    write_atomic(home.neighbours, jsons.dumps([str(p) for p in named.values()]), 0o600)


def begin(home: Home) -> None:
    """Start the cluster, with failures as CliError."""
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
    """Show whether the cluster is running, where its parts are, and where gateways listen on this machine."""
    home = Home.default()
    pid = lifecycle.running(home)
    rows = [
        ["STATE", "PID", "KUBECONFIG", "LOG"],
        ["running" if pid else "stopped", str(pid or "-"), str(home.kubeconfig), str(home.log)],
    ]
    click.echo(table(rows))
    if home.neighbours.exists():
        click.echo(f"\nneighbours reach this cluster at {home.outside}")
    if not pid:
        raise SystemExit(3)
    if says := with_client(str(home.kubeconfig), _unlimited):
        click.echo(f"\n{says}")
    addresses = with_client(str(home.kubeconfig), _addresses)
    if addresses:
        click.echo()
        click.echo(table([["LOAD BALANCER", "PORT", "ADDRESS"], *addresses]))


async def _unlimited(client: Client) -> str:
    """Why containers are not confined to their limits; empty if they are."""
    nodes, _ = await client.list(kinds.NODE)
    found = (c for node in nodes for c in dig(node, "status", "conditions", default=[]))
    return next((str(c["message"]) for c in found if c["type"] == CONDITION and c["status"] == "False"), "")


async def _addresses(client: Client) -> list[list[str]]:
    """The host ports of LoadBalancer services, which differ from the services' own if another program uses those."""
    services, _ = await client.list(kinds.SERVICE)
    rows = []
    for service in services:
        meta = service["metadata"]
        if dig(service, "spec", "type") != "LoadBalancer":
            continue
        names = {str(p["port"]): str(p.get("name") or p["port"]) for p in dig(service, "spec", "ports", default=[])}
        for port, at in outside(service).items():
            where = "none: no port of this machine was free" if at.endswith(":0") else at
            rows.append([f"{meta['namespace']}/{meta['name']}", f"{names.get(port, port)} ({port})", where])
    return rows


@cluster.command()
def delete() -> None:
    """Stop the cluster and remove its state directory with all objects."""
    say("deleted" if lifecycle.delete(Home.default()) else "there was no cluster")


@command()
def kubeconfig() -> None:
    """Print the path of the embedded cluster's kubeconfig."""
    click.echo(Home.default().kubeconfig)
