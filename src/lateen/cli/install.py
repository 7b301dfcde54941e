"""lateen install, uninstall, manifest, version."""

from __future__ import annotations

from pathlib import Path

import click

from lateen import __version__
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, context_option, kubeconfig_option, with_client
from lateen.cli.output import BAD_DATA, CliError, say, step, warn
from lateen.install import installer, manifests, profiles
from lateen.kit import yamldoc
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient

file_option = click.option("-f", "--filename", "files", multiple=True, help="An IstioOperator file; may be repeated.")
set_option = click.option("--set", "-s", "settings", multiple=True, help="path=value, as in --set profile=demo.")


def operator(files: tuple[str, ...], settings: tuple[str, ...], default: str = "default") -> profiles.Operator:
    """Raises CliError with file, line and remedy; what has no effect is warned about by name."""
    overlays: list[Json] = []
    for name in files:
        try:
            overlays += list(yamldoc.objects(Path(name).read_text()))
        except FileNotFoundError:
            raise CliError(f"{name}: no such file", BAD_DATA) from None
        except (yamldoc.YamlError, UnicodeDecodeError) as e:
            raise CliError(f"{name}: {e}", BAD_DATA) from e
    try:
        found = profiles.resolve(default, overlays, list(settings))
    except profiles.ProfileError as e:
        raise CliError(str(e), BAD_DATA) from e
    if found.profile in profiles.NOTES:
        warn(f"profile {found.profile}: {profiles.NOTES[found.profile]}")
    for path in found.ignored:
        warn(f"the field spec.{path} has no effect in this version of Lateen")
    return found


def carry_out(target: Target, found: profiles.Operator, readiness_timeout: float) -> None:
    parts = manifests.render(found)

    async def work(client: HttpClient) -> None:
        await installer.install(client, parts, step, readiness_timeout)

    target.run(work)


@command()
@file_option
@set_option
@kubeconfig_option
@context_option
@click.option("-y", "--skip-confirmation", "yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be installed.")
@click.option("--readiness-timeout", default=120.0, help="Seconds to wait for each part.")
def install(
    files: tuple[str, ...],
    settings: tuple[str, ...],
    kubeconfig: str | None,
    context: str,
    yes: bool,
    dry_run: bool,
    readiness_timeout: float,
) -> None:
    """Install the mesh into a cluster: lateen install --set profile=demo -y"""
    found = operator(files, settings)
    parts = manifests.render(found)
    if dry_run:
        for part in parts:
            say(f"would install {part.title}: {len(part.objects)} objects")
        return
    if not yes:
        click.confirm(f"This will install Lateen {__version__} into the cluster. Proceed?", abort=True, err=True)

    carry_out(Target(kubeconfig, context), found, readiness_timeout)
    say("✔ Installation complete")


@command()
@kubeconfig_option
@context_option
@click.option("--purge", is_flag=True, help="Also the definitions of the mesh's kinds, its objects and its namespace.")
@click.option("-y", "--skip-confirmation", "yes", is_flag=True, help="Do not ask.")
def uninstall(kubeconfig: str | None, context: str, purge: bool, yes: bool) -> None:
    """Remove the mesh from a cluster."""
    parts = manifests.render(profiles.resolve("demo", [], []))
    if not yes:
        what = "with all its configuration" if purge else "(its configuration stays)"
        click.confirm(f"This will remove the mesh {what}. Proceed?", abort=True, err=True)

    async def work(client: HttpClient) -> int:
        return await installer.uninstall(client, parts, purge)

    gone = with_client(kubeconfig, work, context)
    say(f"✔ Uninstall complete ({gone} objects removed)")


@click.group(
    cls=Group,
    entries={
        "diff": ("lateen.cli.setup:manifest_diff", "What two manifests differ in."),
        "generate": ("lateen.cli.install:generate", "All objects as YAML."),
    },
)
def manifest() -> None:
    """Print what an installation consists of."""


@command("generate")
@file_option
@set_option
def generate(files: tuple[str, ...], settings: tuple[str, ...]) -> None:
    """All objects as YAML, for kubectl apply or kubectl delete."""
    parts = manifests.render(operator(files, settings))
    click.echo("---\n".join(yamldoc.dump(o) for part in parts for o in part.objects), nl=False)
