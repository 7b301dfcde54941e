"""lateen cluster, lateen image, lateen kubeconfig."""

from __future__ import annotations

from pathlib import Path

import click

from lateen.cli.base import command
from lateen.cli.output import CliError, say, step, table
from lateen.cluster import lifecycle
from lateen.cluster.home import Home


@click.group()
def cluster() -> None:
    """Start, stop and inspect the embedded cluster. LATEEN_HOME moves its state directory."""


@cluster.command()
def start() -> None:
    """Start the cluster; one that runs already is left as it is."""
    home = Home.default()
    if lifecycle.running(home):
        say("the cluster runs already")
    else:
        with step("Cluster started"):
            begin(home)
    say(f"export KUBECONFIG={home.kubeconfig}")


def begin(home: Home) -> None:
    """Start, with its failure as a sentence for users."""
    try:
        lifecycle.start(home)
    except lifecycle.ClusterError as e:
        raise CliError(str(e)) from e


@cluster.command()
def stop() -> None:
    """End every process of the cluster; its objects stay for the next start."""
    say("stopped" if lifecycle.stop(Home.default()) else "the cluster was not running")


@cluster.command()
def status() -> None:
    """Whether the cluster runs, and where its parts are."""
    home = Home.default()
    pid = lifecycle.running(home)
    rows = [
        ["STATE", "PID", "KUBECONFIG", "LOG"],
        ["running" if pid else "stopped", str(pid or "-"), str(home.kubeconfig), str(home.log)],
    ]
    click.echo(table(rows))
    if not pid:
        raise SystemExit(3)


@cluster.command()
def delete() -> None:
    """Stop the cluster and remove its state directory with all objects."""
    say("deleted" if lifecycle.delete(Home.default()) else "there was no cluster")


@command()
def kubeconfig() -> None:
    """Print the path of the embedded cluster's kubeconfig."""
    click.echo(Home.default().kubeconfig)


@click.group()
def image() -> None:
    """The catalogue of images that the embedded cluster can run: which local command an image name stands for."""


@image.command("list")
def list_images() -> None:
    """All images and their commands."""
    from lateen.cluster.kubelet.images import Catalogue

    home = Home.default()
    names = Catalogue(home.images, home.bin).names()
    click.echo(table([["IMAGE", "COMMAND"], *([n, c] for n, c in sorted(names.items()))]))


@image.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, required=True)
@click.option("--mount", multiple=True, help="A host path that the command needs to see (read-only, same place).")
def add(name: str, command: tuple[str, ...], mount: tuple[str, ...]) -> None:
    """Let the image NAME stand for COMMAND: lateen image add example/app -- /usr/bin/python3 -m http.server"""
    from lateen.cluster.kubelet.images import Catalogue

    home = Home.default()
    home.create()
    for path in mount:
        if not Path(path).is_absolute() or not Path(path).exists():
            raise CliError(f"--mount {path}: no such absolute path")
    Catalogue(home.images, home.bin).add(name, list(command), list(mount))
    say(f"{name} stands for: {' '.join(command)}")
