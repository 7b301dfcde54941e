"""lateen kube-inject."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lateen.api import kinds
from lateen.api import values as helm
from lateen.api.mesh.reading import Invalid, mesh_config
from lateen.cli import structure
from lateen.cli.base import command
from lateen.cli.connect import Target, target_options
from lateen.cli.output import BAD_DATA, CliError
from lateen.inject import manifest, pods
from lateen.inject import settings as injector
from lateen.install.manifests import PROXY_IMAGE
from lateen.kit import yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient
from lateen.wire.revision import Revision


@command("kube-inject")
@click.option("-f", "--filename", required=True, help="A manifest; - for standard input.")
@click.option("-o", "--output", default="", help="The file to write; standard output by default.")
@click.option("--meshConfigFile", "mesh_file", default="", help="A mesh configuration to use instead of the cluster's.")
@click.option(
    "--injectConfigFile", "config_file", default="", help="Policy and templates to use instead of the cluster's."
)
@click.option("--valuesFile", "values_file", default="", help="Installation values to use instead of the cluster's.")
@click.option("-r", "--revision", default="default", help="The revision of the control plane whose settings apply.")
@target_options
def kube_inject(
    target: Target, filename: str, output: str, mesh_file: str, config_file: str, values_file: str, revision: str
) -> None:
    """Add sidecars to the workloads of a manifest.

    The settings are those of the cluster's control plane. If one of the three files is given, the cluster is not used,
    and settings missing from the files get Istio's defaults.
    """
    text = sys.stdin.read() if filename == "-" else _read(filename)
    try:
        objects = list(yamldoc.objects(text))
    except yamldoc.YamlError as e:
        raise CliError(f"{filename}: {e}", BAD_DATA) from e
    if mesh_file or config_file or values_file:
        given = {k: _read(f) if f else "" for k, f in (("mesh", mesh_file), ("config", config_file))}
        settings = _settings(given["mesh"], given["config"], _read(values_file) if values_file else "", revision)
    else:
        settings = _of_cluster(target, revision)
    told: list[str] = []
    try:
        done = [manifest.into(o, target.namespace or "", settings, told, _checked) for o in objects]
    except ValueError as e:
        raise CliError(f"{filename}: {e}", BAD_DATA) from e
    for line in told:
        click.echo(line, err=True)
    out = "---\n".join(yamldoc.dump(o) for o in done)
    if output:
        Path(output).write_text(out)
    else:
        click.echo(out, nl=False)


def _checked(pod: Json, name: str) -> None:
    """Raises ValueError for a field of a pod with a type other than Kubernetes'."""
    if found := list(structure.of_pod(pod)):
        raise ValueError("; ".join(f"{name}: {path}: {says}" for path, says in found[:3]))


def _read(name: str) -> str:
    try:
        return Path(name).read_text()
    except FileNotFoundError:
        raise CliError(f"{name}: no such file", BAD_DATA) from None
    except (OSError, UnicodeDecodeError) as e:
        raise CliError(f"{name}: {e}", BAD_DATA) from e


def _settings(mesh: str, config: str, values: str, revision: str, **more: Any) -> pods.Settings:
    try:
        mesh_config(mesh or "{}")
        read = helm.read(config, values)
        found = yamldoc.load(mesh or "{}") or {}
    except (Invalid, ValueError) as e:
        raise CliError(str(e), BAD_DATA) from e
    image = "" if dig(read, "global", "hub") else PROXY_IMAGE
    return pods.settings(read, found, revision=revision, image=image, **more)


def _of_cluster(target: Target, revision: str) -> pods.Settings:
    names = Revision(revision)

    async def work(client: HttpClient) -> tuple[Any, Any, list[Any]]:
        root = target.istio_namespace
        nodes, _ = await client.list(kinds.NODE)
        return (
            await client.get(kinds.CONFIG_MAP, root, names.config_map),
            await client.get(kinds.CONFIG_MAP, root, names.injector),
            nodes,
        )

    mesh, config, nodes = target.run(work)
    if mesh is None or config is None:
        raise CliError(
            f'no control plane of revision "{revision}" is installed in {target.istio_namespace}; install one, or give '
            "its settings with --meshConfigFile and --valuesFile"
        )
    data = config.get("data") or {}
    versions = [str(dig(n, "status", "nodeInfo", "kubeletVersion", default="")) for n in nodes]
    return _settings(
        dig(mesh, "data", "mesh", default=""),
        data.get("config") or "",
        data.get("values") or "",
        revision,
        native=injector.native_nodes(versions),
        native_supported=injector.native_nodes(versions, injector.NATIVE_POSSIBLE),
    )
