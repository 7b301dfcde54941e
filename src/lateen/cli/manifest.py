"""lateen manifest, profile, verify-install."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from lateen.api import kinds
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, target_options
from lateen.cli.install import chosen, file_option, operator, overlays, revision_option, set_option
from lateen.cli.output import BAD_DATA, CliError
from lateen.install import manifests, profiles, state
from lateen.install.operator import API_VERSION, OperatorError, resolve
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import dig
from lateen.kube.apply import kind_of
from lateen.kube.client import HttpClient


@click.group(
    cls=Group,
    entries={
        "diff": ("lateen.cli.manifest:manifest_diff", "Show the differences between two manifests."),
        "generate": ("lateen.cli.manifest:generate", "Print all objects of an installation as YAML."),
        "install": ("lateen.cli.install:install", "Install the mesh into a cluster."),
    },
    aliases={"apply": "install"},
)
def manifest() -> None:
    """Print and compare the objects of an installation."""


@command("generate")
@file_option
@set_option
@revision_option
@click.option("-o", "--output", default="", help="The file to write; default: standard output.")
@click.option("--dry-run", is_flag=True, help="As always: nothing in the cluster is changed.")
def generate(
    files: tuple[str, ...],
    settings: tuple[str, ...],
    revision: str,
    output: str,
    dry_run: bool,  # noqa: ARG001
) -> None:
    """Print all objects of an installation as YAML, for kubectl apply or kubectl delete.

    As in istioctl, the namespace istio-system is not among them: create and delete it separately.
    """
    parts = manifests.render(operator(files, settings, revision))
    objects = [o for part in parts for o in part.objects if kinds.of(o) is not kinds.NAMESPACE]
    text = "---\n".join(yamldoc.dump(o) for o in objects)
    if not output:
        click.echo(text, nl=False)
        return
    try:
        Path(output).write_text(text)
    except OSError as e:
        raise CliError(f"{output}: {e.strerror}", BAD_DATA) from None


@command("verify-install")
@file_option
@set_option
@revision_option
@target_options
def verify_install(target: Target, files: tuple[str, ...], settings: tuple[str, ...], revision: str) -> None:
    """Verify that every object of the installation exists and is ready.

    Without options, it is compared with the settings that the mesh was installed with.
    """

    async def work(client: HttpClient) -> list[tuple[str, str, str]]:
        try:
            if files or settings:
                more = [f"revision={revision}"] if revision else []
                wanted = resolve("default", overlays(files), [*settings, *more])
            else:
                wanted = chosen(await state.installed(client), revision).operator()
            parts = manifests.render(wanted)
        except OperatorError as e:
            raise CliError(str(e), BAD_DATA) from e
        out = []
        for obj in (o for part in parts for o in part.objects):
            kind, meta = kind_of(obj), obj["metadata"]
            found = await client.get(kind, meta.get("namespace", ""), meta["name"])
            name = f"{meta['name']}.{meta['namespace']}" if meta.get("namespace") else meta["name"]
            wrong = "not found" if found is None else ""
            if found is not None and kind is kinds.DEPLOYMENT:
                ready, wanted = (
                    dig(found, "status", "readyReplicas", default=0),
                    dig(found, "spec", "replicas", default=1),
                )
                wrong = "" if ready >= wanted else f"{ready} of {wanted} pods are ready"
            out.append((kind.kind, name, wrong))
        return out

    checked = target.run(work)
    for kind, name, wrong in checked:
        click.echo(f"{'✘' if wrong else '✔'} {kind}: {name} {wrong or 'checked successfully'}")
    crds = sum(kind == kinds.CRD.kind for kind, *_ in checked)
    deployments = sum(kind == kinds.DEPLOYMENT.kind for kind, *_ in checked)
    click.echo(f"Checked {crds} custom resource definitions\nChecked {deployments} Istio Deployments")
    bad = [name for _, name, wrong in checked if wrong]
    if bad:
        raise CliError(f"{len(bad)} parts of the installation are missing or not ready; repair it with: lateen install")
    click.echo("✔ Istio is installed and verified successfully")


@click.group(
    cls=Group,
    entries={
        "diff": ("lateen.cli.manifest:profile_diff", "Show the differences between two profiles."),
        "dump": ("lateen.cli.manifest:profile_dump", "Print a profile as an IstioOperator file."),
        "list": ("lateen.cli.manifest:profile_list", "List the profiles."),
    },
)
def profile() -> None:
    """List, print and compare installation profiles."""


@command("list")
def profile_list() -> None:
    """List the profiles."""
    click.echo("Istio configuration profiles:\n" + "\n".join(f"    {name}" for name in sorted(profiles.PROFILES)))


def _profile(name: str, files: tuple[str, ...] = ()) -> str:
    found = operator(files, (f"profile={name}",) if name else ())
    return yamldoc.dump({"apiVersion": API_VERSION, "kind": "IstioOperator", "spec": found.spec})


@command("dump")
@click.argument("name", default="")
@file_option
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml")
def profile_dump(name: str, files: tuple[str, ...], output: str) -> None:
    """Print a profile as an IstioOperator file: lateen profile dump demo"""
    text = _profile(name, files)
    click.echo(jsons.pretty(yamldoc.load(text)) if output == "json" else text.rstrip())


@command("diff")
@click.argument("first")
@click.argument("second")
def profile_diff(first: str, second: str) -> None:
    """Show the differences between two profiles: lateen profile diff default demo"""
    _differ(_profile(first), _profile(second), first, second, "The difference between profiles:")


def _differ(a: str, b: str, name_a: str, name_b: str, title: str) -> None:
    lines = list(difflib.unified_diff(a.splitlines(), b.splitlines(), name_a, name_b, lineterm=""))
    if not lines:
        click.echo("No differences")
        return
    click.echo("\n".join([title, *lines]))
    raise click.exceptions.Exit(1)


@command("diff")
@click.argument("first")
@click.argument("second")
def manifest_diff(first: str, second: str) -> None:
    """Show the differences between two manifests, whatever the order of their objects."""
    texts = []
    for name in (first, second):
        try:
            objects = list(yamldoc.objects(Path(name).read_text()))
        except OSError as e:
            raise CliError(f"{name}: {e.strerror}", BAD_DATA) from None
        except (yamldoc.YamlError, UnicodeDecodeError) as e:
            raise CliError(f"{name}: {e}", BAD_DATA) from e
        by = {
            f"{o.get('kind')}:{dig(o, 'metadata', 'namespace', default='')}:{dig(o, 'metadata', 'name')}": o
            for o in objects
        }
        texts.append("".join(f"# {k}\n{yamldoc.dump(jsons.loads(jsons.canonical(by[k])))}" for k in sorted(by)))
    _differ(texts[0], texts[1], first, second, "Differences in manifests are:")
