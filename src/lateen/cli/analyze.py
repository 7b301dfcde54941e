"""lateen analyze."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from lateen.analysis import Message, Snapshot, Source, load, revisions
from lateen.analysis import analyze as run_analysis
from lateen.analysis import analyzers as known_analyzers
from lateen.analysis.messages import CATALOGUE, DOCUMENTS, documentation
from lateen.analysis.snapshot import kind_of, message
from lateen.api import kinds
from lateen.api.crds import OURS
from lateen.cli import structure
from lateen.cli.base import command
from lateen.cli.connect import Target, target_options, with_client
from lateen.cli.output import BAD_DATA, FINDINGS, USAGE, CliError, colored, colors, say, table, warn
from lateen.kit import jsons, memory, yamldoc
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient, KubeError

LEVELS = ("Info", "Warning", "Error")
COLORS = {"Error": "1;31", "Warning": "33", "Info": "36"}
CONNECTIONS = 8
"""Concurrent connections to the API server: a handshake for each kind would cost more than the lists."""
LIVE = (
    kinds.NAMESPACE,
    kinds.NODE,
    kinds.SERVICE,
    kinds.POD,
    kinds.DEPLOYMENT,
    kinds.CONFIG_MAP,
    kinds.SECRET,
    kinds.CRD,
    kinds.MUTATING_WEBHOOK,
    kinds.VALIDATING_WEBHOOK,
    kinds.KUBERNETES_GATEWAY,
    kinds.INGRESS,
    kinds.INGRESS_CLASS,
)
"""Kinds other than the mesh's own that analyzers read."""

level = click.Choice(LEVELS, case_sensitive=False)


class Live(NamedTuple):
    """The objects read from a cluster."""

    sources: list[Source]
    forbidden: dict[str, str]
    """Kind that this account may not read -> the API server's message."""

    def snapshot(self, root: str = "istio-system") -> Snapshot:
        """``root``: the control plane's namespace."""
        return Snapshot(self.sources, root=root, unread=self.forbidden)


async def live(client: HttpClient, timeout_s: float) -> Live:
    """Read everything that analyzers need; kinds that the cluster does not have are empty. Raises CliError on
    timeout, or if none of the mesh's kinds may be read."""
    forbidden: dict[str, str] = {}
    several = asyncio.Semaphore(CONNECTIONS)

    async def of(kind: kinds.Kind) -> list[Source]:
        try:
            async with several:
                found, _ = await client.list(kind)
        except KubeError as e:
            if e.code in (401, 403):
                forbidden[kind_of({"apiVersion": kind.api_version, "kind": kind.kind})] = e.message
                return []
            if e.code == 404:
                return []
            raise
        return [Source(kind.typed(o)) for o in found]

    try:
        async with asyncio.timeout(timeout_s):
            lists = await asyncio.gather(*(of(k) for k in (*LIVE, *kinds.owned())))
    except TimeoutError:
        raise CliError(_late(timeout_s)) from None
    if all(str(k.id) in forbidden for k in kinds.owned()):
        raise CliError(f"this account may not read the mesh's configuration: {forbidden['Gateway']}")
    found = [s for some in lists for s in some]
    left = foreign(found)
    return Live([s for s in found if s.id not in left], forbidden)


async def elsewhere(client: HttpClient, cluster: str, timeout_s: float) -> Live:
    """The Services of another cluster of the mesh, which are hosts here, too. Raises CliError on timeout."""
    try:
        async with asyncio.timeout(timeout_s):
            found, _ = await client.list(kinds.SERVICE)
    except TimeoutError:
        raise CliError(_late(timeout_s)) from None
    except KubeError as e:
        if e.code not in (401, 403):
            raise
        return Live([], {kind_of({"apiVersion": "v1", "kind": kinds.SERVICE.kind}): f"{e.message} (cluster {cluster})"})
    head = {"apiVersion": kinds.SERVICE.api_version, "kind": kinds.SERVICE.kind}
    return Live([Source({**head, **o}, cluster=cluster) for o in found], {})


def _late(timeout_s: float) -> str:
    return f"the cluster could not be read within {timeout_s:g} s; use --timeout to allow more"


def foreign(found: list[Source]) -> set[kinds.GroupKind]:
    """cert-manager's kinds, if cert-manager is installed: then it reports the faults of its objects itself."""
    lent = {f"{k.plural}.{k.group}": k.id for k in kinds.owned() if k.group == kinds.CERT_MANAGER}
    return {lent[s.name] for s in found if s.id == kinds.CRD.id and s.name in lent and OURS not in s.labels}


def _suppressions(given: tuple[str, ...]) -> list[tuple[str, str]]:
    out = []
    for text in ",".join(given).split(",") if given else ():
        code, found, glob = text.partition("=")
        if not found or not code:
            raise CliError(f'--suppress {text}: write it as CODE=GLOB, as in -S "IST0103=Pod default/*"', USAGE)
        if code.strip() not in (*CATALOGUE, "*"):
            warn(f"--suppress {text}: there is no finding {code.strip()}")
        out.append((code.strip(), glob.strip()))
    return out


def _in_scope(m: Message, namespace: str) -> bool:
    if m.source.file:
        return True
    if m.source.id == kinds.NAMESPACE.id:
        return m.source.name == namespace
    return m.source.namespace in ("", namespace)


def as_json(m: Message) -> Json:
    """A finding in its stable JSON form, with Istio's keys."""
    out: Json = {
        "code": m.kind.code,
        "documentationUrl": documentation(m.kind.code),
        "level": m.kind.level,
        "message": m.text,
        "origin": m.source.ref,
    }
    return out | ({"reference": m.reference} if m.reference else {})


def line(m: Message, color: bool) -> str:
    where = f"{m.source.ref} {m.reference}".rstrip()
    return f"{colored(COLORS[m.kind.level], m.kind.level, color)} [{m.kind.code}] ({where}) {m.text}"


@command()
@click.argument("files", nargs=-1)
@click.option(
    "-k", "--use-kube/--no-use-kube", "use_kube", default=True, help="Also analyze the objects in the cluster."
)
@click.option("-A", "--all-namespaces", is_flag=True)
@click.option("-R", "--recursive", is_flag=True, help="Include subdirectories.")
@click.option("-L", "--list-analyzers", is_flag=True)
@click.option("--analyzer", "names", multiple=True, help="Run only this analyzer; may be repeated.")
@click.option(
    "-S", "--suppress", multiple=True, help="Suppress findings, as CODE=GLOB over KIND NAMESPACE/NAME; may be repeated."
)
@click.option(
    "--failure-threshold", type=level, default="Error", help="Fail if there are findings of at least this level."
)
@click.option("--output-threshold", type=level, default="Info", help="Show only findings of at least this level.")
@click.option("--ignore-unknown", is_flag=True, help="Do not fail because of documents that are no objects.")
@click.option("--meshConfigFile", "mesh_file", default="", help="A mesh configuration to use instead of the cluster's.")
@click.option("--timeout", default="30s", help="Time limit for reading the cluster.")
@click.option(
    "-r", "--revision", default="", help="Only what this revision's istiod reads, instead of that of each revision."
)
@click.option(
    "--remote-contexts",
    multiple=True,
    help="Contexts of the mesh's other clusters, whose Services are known, too; separated by commas.",
)
@click.option("-o", "--output", type=click.Choice(["log", "json", "yaml"]), default="log")
@click.option("--color/--no-color", default=None, help="Force or disable colors.")
@target_options
def analyze(
    files: tuple[str, ...], use_kube: bool, recursive: bool, list_analyzers: bool, target: Target, **given: Any
) -> None:
    """Find mistakes in the mesh's configuration, in files, folders and a cluster: lateen analyze"""
    if list_analyzers:
        rows = [[f"{a.name}:", a.description] for _, a in sorted(known_analyzers().items())]
        click.echo(table(rows))
        return
    if not files and not use_kube:
        raise CliError("there is nothing to analyze: name files, or do not disable --use-kube", USAGE)
    if given["remote_contexts"] and not use_kube:
        raise CliError("--remote-contexts reads clusters, which --use-kube=false forbids; give only one", USAGE)
    unknown_names = [n for n in given["names"] if n not in known_analyzers()]
    if unknown_names:
        raise CliError(f'there is no analyzer "{unknown_names[0]}"; lateen analyze -L lists them', USAGE)
    read = _read(files, use_kube, recursive, target, given)
    if use_kube and target.given_namespace and not read.has(kinds.NAMESPACE, target.given_namespace):
        raise CliError(f'namespace "{target.given_namespace}" not found')
    suppressions = _suppressions(given["suppress"])
    found = list(read.malformed)
    lacking: dict[str, list[str]] = {}
    for snapshot, of in revisions.analyzed(
        read.sources,
        read.root,
        given["revision"],
        read.snapshot,
        lambda s: run_analysis(s, given["names"], suppressions),
    ):
        found += of
        lacking |= snapshot.incomplete
    everywhere = given["all_namespaces"]
    if not everywhere:
        found = [m for m in found if _in_scope(m, target.namespace)]
    lowest = LEVELS.index(given["output_threshold"].capitalize())
    unique = {(m.kind.code, m.source.ref, m.reference, m.text): m for m in found}
    shown = [m for m in unique.values() if LEVELS.index(m.kind.level) >= lowest]
    what = ", ".join(files) if files else ("all namespaces" if everywhere else f"namespace: {target.namespace}")
    _print(shown, given["output"], given["color"])
    unreadable = "".join(f"{e}\n" for e in read.unreadable)
    worst = max((LEVELS.index(m.kind.level) for m in found), default=-1)
    if worst >= LEVELS.index(given["failure_threshold"].capitalize()):
        raise CliError(
            f"{unreadable}Analyzers found issues when analyzing {what}.\nSee {DOCUMENTS} for more information about "
            "causes and resolutions.",
            FINDINGS,
        )
    if unreadable:
        raise CliError(unreadable.rstrip(), BAD_DATA)
    if lacking:
        raise CliError(_incomplete(lacking, what))
    if not shown and given["output"] == "log":
        say(f"✔ No validation issues found when analyzing {what}.")


class _Read(NamedTuple):
    """What is to be analyzed."""

    sources: list[Source]
    mesh: Json | None
    root: str
    unread: Collection[str]
    malformed: list[Message]
    """Findings about objects in files that cannot be analyzed: they have no objects' structure."""
    unreadable: list[load.LoadError]
    """Files and documents that were left out."""

    def has(self, kind: kinds.Kind, name: str) -> bool:
        return any(s.id == kind.id and s.name == name for s in self.sources)

    def snapshot(self, revision: str) -> Snapshot:
        to_be = load.planned(self.sources)
        return Snapshot(self.sources, self.mesh, root=self.root, unread=self.unread, revision=revision, planned=to_be)


def _read(files: tuple[str, ...], use_kube: bool, recursive: bool, target: Target, given: Json) -> _Read:
    from lateen.analysis.rules.schema import path_of
    from lateen.kit import duration

    malformed: list[Message] = []
    unreadable: list[load.LoadError] = []
    try:
        limit = duration.seconds(given["timeout"])
    except ValueError as e:
        raise CliError(f"--timeout: {e}", USAGE) from None
    memory.settle()  # the objects live until the command ends
    if use_kube:
        sources, forbidden = target.run(lambda client: live(client, limit))
        for context in filter(None, map(str.strip, ",".join(given["remote_contexts"]).split(","))):
            there = of_context(target, context, limit)
            sources += there.sources
            forbidden = there.forbidden | forbidden
    else:
        sources, forbidden = load.default_ingress(), {}
    for kind, says in sorted(forbidden.items()):
        warn(f"{kind} objects cannot be read: {says}")
    try:
        for path in load.files(list(files), recursive):
            for source in load.parts(path, target.namespace):
                if isinstance(source, load.LoadError):
                    unreadable.append(source)
                    continue
                found = list(structure.problems(source.obj)) or list(structure.gaps(source.obj))
                malformed += [message("IST0106", source, f"{at}: {says}", path=path_of(at)) for at, says in found]
                sources += [] if found else [source]
        mesh = yamldoc.load(Path(given["mesh_file"]).read_text()) if given["mesh_file"] else None
    except load.LoadError as e:
        raise CliError(str(e), BAD_DATA) from e
    except (OSError, yamldoc.YamlError) as e:
        raise CliError(f"{given['mesh_file']}: {e}", BAD_DATA) from e
    if given["ignore_unknown"]:
        for left in unreadable:
            warn(f"left out: {left}")
        unreadable = []
    return _Read(sources, mesh, target.istio_namespace, forbidden, malformed, unreadable)


def of_context(target: Target, context: str, limit_s: float) -> Live:
    try:
        return with_client(target.kubeconfig, lambda client: elsewhere(client, context, limit_s), context)
    except CliError as e:
        raise CliError(f"--remote-contexts: {context}: {e}", e.code) from e


def _incomplete(of: Mapping[str, list[str]], what: str) -> str:
    """A sentence about analyzers that lack objects."""
    lacking = sorted({kind for found in of.values() for kind in found})
    return (
        f"the analysis of {what} is incomplete: {len(of)} of {len(known_analyzers())} analyzers need "
        f"objects that this account may not read ({', '.join(lacking)})"
    )


def _print(shown: list[Message], output: str, color: bool | None) -> None:
    if output == "log":
        for m in shown:
            click.echo(line(m, colors(sys.stdout) if color is None else color))
        return
    plain = [as_json(m) for m in shown]
    click.echo(jsons.pretty(plain) if output == "json" else yamldoc.dump(plain).rstrip())
