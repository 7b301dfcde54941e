"""lateen addons, lateen samples: manifests shipped with the mesh; works without a source checkout."""

from __future__ import annotations

from pathlib import Path

import click

from lateen import __version__
from lateen import samples as shipped
from lateen.api import kinds
from lateen.cli.base import Group, command
from lateen.cli.connect import context_option, kubeconfig_option, with_client
from lateen.cli.output import USAGE, CliError, step, table
from lateen.install.manifests import NAMESPACE
from lateen.kit import yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.apply import apply, declared, kind_of, wait_available
from lateen.kube.client import Client, HttpClient

IMAGE = "docker.io/lateen/console"


@click.group(
    cls=Group,
    entries={
        "apply": ("lateen.cli.addons:apply_", "Install or update add-ons."),
        "delete": ("lateen.cli.addons:delete_", "Remove add-ons."),
        "list": ("lateen.cli.addons:list_", "List the add-ons and what they are for."),
        "path": ("lateen.cli.addons:path_", "Print the directory of their manifests, for kubectl apply -f."),
    },
)
def addons() -> None:
    """Manage the add-ons: the console and its metrics collector."""


@click.group(
    cls=Group,
    entries={
        "list": ("lateen.cli.addons:samples_list", "List the manifests of the samples."),
        "path": ("lateen.cli.addons:samples_path", "Print the directory of the samples, for kubectl apply -f."),
    },
)
def samples() -> None:
    """Sample applications and rules: kubectl apply -f $(lateen samples path)/httpbin/httpbin.yaml"""


def known() -> dict[str, Path]:
    return {p.stem: p for p in sorted(shipped.ADDONS.glob("*.yaml"))}


def chosen(names: tuple[str, ...]) -> dict[str, Path]:
    """The add-ons called ``names``, or all of them if none are given. Raises CliError for an unknown name."""
    every = known()
    if wrong := [n for n in names if n not in every]:
        raise CliError(f'there is no add-on "{wrong[0]}"; there are: {", ".join(every)}', USAGE)
    return {n: every[n] for n in names or every}


def ephemeral(found: list[Json]) -> list[Json]:
    """The objects without PersistentVolumeClaims, so that their data is lost with the pod."""
    for obj in found:
        for volume in dig(obj, "spec", "template", "spec", "volumes", default=[]):
            if volume.pop("persistentVolumeClaim", None) is not None:
                volume["emptyDir"] = {"sizeLimit": "400Mi"}
    return [obj for obj in found if kinds.of(obj) is not kinds.PERSISTENT_VOLUME_CLAIM]


def objects(path: Path, image: str) -> list[Json]:
    """A manifest's objects, with its image replaced by the installation's."""
    out = list(yamldoc.objects(path.read_text()))
    for obj in out:
        for container in dig(obj, "spec", "template", "spec", "containers", default=[]):
            if str(container["image"]).startswith(f"{IMAGE}:"):
                container["image"] = image
    return out


async def image_for(client: Client) -> str:
    """The console's image with the registry and tag of the running istiod's. Raises CliError, KubeError."""
    found, _ = await client.list(kinds.DEPLOYMENT, NAMESPACE, "app=istiod")  # whatever its revision
    if not found:
        raise CliError(f"there is no istiod in {NAMESPACE} to collect metrics from; install it with: lateen install -y")
    pilot = str(dig(found[0], "spec", "template", "spec", "containers", default=[{}])[0].get("image", ""))
    hub, _, rest = pilot.rpartition("/")
    _, _, tag = rest.partition(":")
    return f"{hub}/console:{tag}" if hub and tag else f"{IMAGE}:{__version__}"


async def put(client: Client, names: tuple[str, ...] = (), keep: bool = True) -> None:
    """Apply add-ons and wait until they are ready; ``keep``: use volumes that outlive their pods. Raises CliError,
    KubeError, TimeoutError."""
    image = await image_for(client)
    deployments = []
    for path in chosen(names).values():
        found = objects(path, image)
        for obj in found if keep else ephemeral(found):
            if kinds.of(obj) is kinds.DEPLOYMENT:
                await _make_way(client, obj)
            await apply(client, declared(obj))
            if kinds.of(obj) is kinds.DEPLOYMENT:
                deployments.append(obj["metadata"]["name"])
    await wait_available(client, NAMESPACE, deployments)


async def _make_way(client: Client, obj: Json) -> None:
    """Delete a Deployment whose selector differs, because selectors are immutable."""
    meta = obj["metadata"]
    found = await client.get(kinds.DEPLOYMENT, meta["namespace"], meta["name"])
    if found is not None and dig(found, "spec", "selector") != dig(obj, "spec", "selector"):
        await client.delete(kinds.DEPLOYMENT, meta["namespace"], meta["name"])


@command("apply")
@click.argument("names", nargs=-1)
@click.option("--ephemeral", "lose", is_flag=True, help="Keep data in emptyDir volumes: lost when a pod is replaced.")
@kubeconfig_option
@context_option
def apply_(names: tuple[str, ...], lose: bool, kubeconfig: str | None, context: str) -> None:
    """Install or update add-ons (all of them if none is named) and wait until they are ready.

    Metrics and traces are kept in PersistentVolumeClaims of the cluster's default StorageClass."""
    what = ", ".join(chosen(names))

    async def work(client: HttpClient) -> None:
        with step(f"Add-ons ready: {what}"):
            await put(client, names, keep=not lose)

    with_client(kubeconfig, work, context)


@command("delete")
@click.argument("names", nargs=-1)
@kubeconfig_option
@context_option
def delete_(names: tuple[str, ...], kubeconfig: str | None, context: str) -> None:
    """Remove add-ons (all of them if none is named)."""
    paths = chosen(names)

    async def work(client: HttpClient) -> None:
        with step(f"Add-ons removed: {', '.join(paths)}"):
            for path in paths.values():
                for obj in reversed(objects(path, IMAGE)):
                    meta = obj["metadata"]
                    await client.delete(kind_of(obj), meta.get("namespace", ""), meta["name"])

    with_client(kubeconfig, work, context)


@command("list")
def list_() -> None:
    """List the add-ons and what they are for."""
    rows = [["NAME", "PURPOSE"]]
    rows += [[name, p.read_text().partition("\n")[0].removeprefix("# ")] for name, p in known().items()]
    click.echo(table(rows))


@command("path")
def path_() -> None:
    """Print the directory of the add-ons' manifests: kubectl apply -f $(lateen addons path)"""
    click.echo(shipped.ADDONS)


@command("list")
def samples_list() -> None:
    """List the manifests of the samples, relative to the directory that ``lateen samples path`` prints."""
    for path in sorted(shipped.ROOT.rglob("*.yaml")):
        if not path.is_relative_to(shipped.ADDONS):
            click.echo(path.relative_to(shipped.ROOT))


@command("path")
def samples_path() -> None:
    """Print the directory of the samples."""
    click.echo(shipped.ROOT)
