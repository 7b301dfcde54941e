"""lateen install, upgrade, uninstall."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from lateen import __version__
from lateen.api import kinds
from lateen.cli.base import Seconds, command
from lateen.cli.connect import Target, context_option, kubeconfig_option
from lateen.cli.gateways import address
from lateen.cli.output import BAD_DATA, CliError, say, step, warn
from lateen.cli.prompt import confirm, yes_option
from lateen.install import installer, manifests, state
from lateen.install.operator import Operator, OperatorError, enabled, resolve, specification
from lateen.install.profiles import NOTES
from lateen.kit import yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, HttpClient
from lateen.wire.revision import LABEL, TAG_LABEL, Revision

F = TypeVar("F", bound=Callable[..., Any])

file_option = click.option(
    "-f", "--filename", "files", multiple=True, help="An IstioOperator file, or - for standard input; may be repeated."
)
set_option = click.option(
    "--set", "-s", "settings", multiple=True, help="Set a field: --set profile=demo, --set list[0].name=x"
)
revision_option = click.option(
    "-r", "--revision", "revision", default="", help="The control plane's revision, to run it alongside others."
)
timeout_option = click.option(
    "--readiness-timeout",
    type=Seconds(),
    default="5m",
    show_default=True,
    help="How long to wait until each part of the installation is ready.",
)


def installation_options(dry_run: str) -> Callable[[F], F]:
    """The options of commands that install a control plane; ``dry_run`` says what --dry-run prints."""
    options = (
        file_option,
        set_option,
        revision_option,
        kubeconfig_option,
        context_option,
        yes_option,
        click.option("--dry-run", is_flag=True, help=f"{dry_run} and change nothing."),
        timeout_option,
    )

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def overlays(files: tuple[str, ...]) -> list[Json]:
    """``spec`` of each document. Raises CliError with file, line or field, and remedy."""
    out: list[Json] = []
    for name in files:
        try:
            text = sys.stdin.read() if name == "-" else Path(name).read_text()
            out += [specification(d) for d in yamldoc.objects(text)]
        except OSError as e:
            raise CliError(f"{name}: {e.strerror or e}", BAD_DATA) from None
        except (yamldoc.YamlError, UnicodeDecodeError, OperatorError) as e:
            raise CliError(f"{name}: {e}", BAD_DATA) from e
    return out


def operator(files: tuple[str, ...], settings: tuple[str, ...], revision: str = "") -> Operator:
    """The specification given by options; warns about fields without an effect. Raises CliError."""
    try:
        found = resolve("default", overlays(files), [*settings, *_of(revision)])
        manifests.render(found)  # k8s.overlays must fit the objects
    except OperatorError as e:
        raise CliError(str(e), BAD_DATA) from e
    return warned(found)


def _of(revision: str) -> list[str]:
    return [f"revision={revision}"] if revision else []


def warned(found: Operator) -> Operator:
    if found.profile in NOTES:
        warn(f"profile {found.profile}: {NOTES[found.profile]}")
    for text in found.warnings:
        warn(text)
    return found


def show(changes: list[str]) -> None:
    for line in changes:
        say(f"  {line}")


def show_removed(before: Operator | None, after: Operator) -> None:
    """Name the gateways and the like that go with their settings."""
    if before and not before.refused:
        leaving = installer.dropped(manifests.render(before), manifests.render(after))
        if names := installer.workloads(leaving):
            say(f"This removes: {', '.join(names)}")


async def carry_out(client: HttpClient, found: Operator, readiness_timeout: float, before: Operator | None) -> None:
    """``before``: the installation that is replaced."""
    replaced = manifests.render(before) if before and not before.refused else []
    parts = manifests.render(found)
    if absent := await installer.absent_namespaces(client, parts):
        said = " and ".join(f'the namespace "{name}" does not exist' for name in absent)
        made = "; ".join(f"kubectl create namespace {name}" for name in absent)
        raise CliError(f"{said}; create it first, nothing has been installed: {made}")
    for text in await installer.install(client, parts, step, readiness_timeout, replaced):
        warn(text)
    if dig(found.spec, "components", "pilot", "enabled") and await installer.make_default(client, found.revision):
        say(f"✔ Revision {found.revision.name} is the default one (tag default)")


def _recorded(here: state.Installation | None) -> Operator | None:
    """The settings that are replaced; warns where earlier versions accepted what is refused today."""
    if here is None:
        return None
    says = "what they added to objects, and the new settings do not name, stays in the cluster"
    try:
        found = here.operator(recorded=True)
    except OperatorError as e:
        warn(f"the recorded settings of revision {here.revision.name} cannot be read ({e}); {says}")
        return None
    if not found.refused:
        try:
            manifests.render(found)
        except OperatorError as e:
            found.refused = str(e)
    if found.refused:
        warn(f"the recorded settings of revision {here.revision.name} are not valid ({found.refused}); {says}")
    return found


async def _addresses(client: HttpClient, found: Operator) -> list[str]:
    out = []
    for gateway in enabled(found.spec, "ingressGateways"):
        namespace = gateway.get("namespace") or manifests.NAMESPACE
        at = await address(client, namespace, gateway["name"])
        out.append(f"  {gateway['name']}: {at or 'no address yet; see kubectl get service -n ' + namespace}")
    return out


@command()
@installation_options("Print what would be installed")
def install(
    files: tuple[str, ...],
    settings: tuple[str, ...],
    revision: str,
    kubeconfig: str | None,
    context: str,
    yes: bool,
    dry_run: bool,
    readiness_timeout: float,
) -> None:
    """Install the mesh into a cluster: lateen install --set profile=demo -y

    With --revision, install another control plane and leave the running ones alone. The settings of an installation of
    the same revision are replaced by the options; to keep them, use: lateen upgrade
    """
    found = operator(files, settings, revision)
    if dry_run:
        for part in manifests.render(found):
            say(f"would install {part.title}: {len(part.objects)} objects")
        return
    target = Target(kubeconfig, context)

    async def look(client: HttpClient) -> state.Installation | None:
        return (await state.installed(client)).get(found.revision.name) if found.records else None

    here = target.run(look)
    if here and here.helms:
        raise CliError(here.helms)
    before = _recorded(here)
    if before and (changes := state.changes(before, found)):
        say(f"This changes the installation of revision {found.revision.name}:")
        show(changes)
    show_removed(before, found)
    if not yes:
        what = "" if found.revision.is_default else f", revision {found.revision.name},"
        confirm(f"This will install Lateen {__version__}{what} into the cluster. Proceed?")

    async def work(client: HttpClient) -> list[str]:
        await carry_out(client, found, readiness_timeout, before)
        return await _addresses(client, found)

    lines = target.run(work)
    say("✔ Installation complete")
    for line in lines:
        say(line)


def chosen(found: dict[str, state.Installation], revision: str) -> state.Installation:
    """The installation of a revision; without a name, the only or the default one. Raises CliError."""
    if not found:
        raise CliError("there is no mesh in this cluster; install it with: lateen install --set profile=demo")
    name = revision or ("default" if "default" in found or len(found) > 1 else next(iter(found)))
    if name not in found:
        raise CliError(f'there is no control plane of revision "{name}"; there are: {", ".join(found)}')
    return found[name]


@command("upgrade")
@installation_options("Print what would change")
def upgrade(
    files: tuple[str, ...],
    settings: tuple[str, ...],
    revision: str,
    kubeconfig: str | None,
    context: str,
    yes: bool,
    dry_run: bool,
    readiness_timeout: float,
) -> None:
    """Upgrade a control plane and its gateways to this version, keeping their settings.

    Options change settings on top of those. Sidecars follow when their pods are restarted.
    """
    target, added = Target(kubeconfig, context), overlays(files)

    async def look(client: HttpClient) -> state.Installation:
        return chosen(await state.installed(client), revision)

    here = target.run(look)
    if here.helms:
        raise CliError(here.helms)
    for text in here.trouble:
        warn(text)
    if not here.recorded:
        warn(
            "this installation has no record of its settings: its mesh configuration is kept, the rest becomes that of "
            "the default profile; repeat the options it was installed with (-f, --set)"
        )
    before = _recorded(here)
    try:
        after = here.operator(added, [*settings, *_of(here.revision.name if not here.recorded else "")])
        manifests.render(after)
    except OperatorError as e:
        raise CliError(str(e), BAD_DATA) from e
    warned(after)
    if before and (changes := state.changes(before, after)):
        say("Settings that change:")
        show(changes)
    elif before:
        say("No settings change.")
    show_removed(before, after)
    if dry_run:
        return
    if not yes:
        confirm(f"This will upgrade revision {here.revision.name} from {here.version} to {__version__}. Proceed?")

    async def work(client: HttpClient) -> None:
        await carry_out(client, after, readiness_timeout, before)

    target.run(work)
    say(f"✔ Upgrade complete ({here.version} -> {__version__}); restart workloads to upgrade their sidecars:")
    say("  kubectl rollout restart deployment -n NAMESPACE")


@command("uninstall")
@click.option("-r", "--revision", "revision", default="", help="Only this revision of the control plane.")
@kubeconfig_option
@context_option
@click.option(
    "--purge", is_flag=True, help="Also the custom resource definitions, all mesh objects, and the namespace."
)
@click.option("--dry-run", is_flag=True, help="Print what would be removed and change nothing.")
@yes_option
def uninstall(revision: str, kubeconfig: str | None, context: str, purge: bool, dry_run: bool, yes: bool) -> None:
    """Remove control planes and gateways from a cluster: all of them, or those of one --revision."""
    if revision and purge:
        raise CliError("--purge removes objects that all revisions share; leave out --revision", 64)
    target = Target(kubeconfig, context)

    async def look(client: HttpClient) -> tuple[list[state.Installation], list[str]]:
        found = await state.installed(client)
        picked = [chosen(found, revision)] if revision else list(found.values())
        return picked, await _left_behind(client, [i.revision for i in picked]) if revision else []

    picked, notes = target.run(look)
    for text in notes:
        warn(text)
    if not yes and not dry_run:
        what = f"revision {revision}" if revision else "the mesh"
        kept = "with all its configuration" if purge else "(custom resources stay)"
        confirm(f"This will remove {what} {kept}. Proceed?")
    operators = [_installed(i) for i in picked] or [resolve("demo", [], [])]
    if not revision:  # gateways and control planes of installations without a record
        operators.append(resolve("demo", [], []))
    rendered = [o for op in operators for part in manifests.render(op) for o in part.objects]
    revisions = [i.revision for i in picked] or [Revision()]

    async def work(client: HttpClient) -> int:
        found = await installer.labelled(client, revisions)
        objects = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in [*rendered, *found]}
        doing = cast(Client, _Rehearsal(client)) if dry_run else client
        return await installer.uninstall(doing, objects.values(), revisions, purge)

    gone = target.run(work)
    say(f"would remove {gone} objects" if dry_run else f"✔ Uninstall complete ({gone} objects removed)")


class _Rehearsal:
    """A client that prints what it would delete."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._gone: set[tuple[kinds.Kind, str, str]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def delete(self, kind: kinds.Kind, namespace: str, name: str) -> bool:
        one = (kind, namespace, name)
        if one in self._gone or await self._client.get(kind, namespace, name) is None:
            return False
        self._gone.add(one)
        say(f"would remove {kind.kind} {f'{namespace}/' if namespace else ''}{name}")
        return True


def _installed(here: state.Installation) -> Operator:
    """The recorded settings; if they are refused today, others with the same names: labels tell the rest."""
    try:
        found = here.operator()
        manifests.render(found)
        return found
    except OperatorError:
        return resolve("demo", [], _of(here.revision.name))


async def _left_behind(client: HttpClient, revisions: list[Revision]) -> list[str]:
    """Warnings about users of a revision that is about to be removed."""
    out = []
    for r in revisions:
        pods, _ = await client.list(kinds.POD, labels=f"{LABEL}={r.name}")
        used = [p for p in pods if dig(p, "metadata", "labels", "app") != "istiod"]
        if used:
            out.append(
                f"revision {r.name} still serves proxies (pods: {len(used)}); they keep their configuration but get no "
                "changes and no new certificates until they are restarted with another revision"
            )
        tags, _ = await client.list(kinds.MUTATING_WEBHOOK, labels=f"{LABEL}={r.name}")
        names = [str(t) for c in tags if (t := dig(c, "metadata", "labels", TAG_LABEL))]
        if names:
            out.append(f"tags that point to it are removed, too: {', '.join(names)}")
    return out
