"""lateen x describe object: where a mesh object is attached."""

from __future__ import annotations

import click

from lateen.analysis.attached import Place, places
from lateen.analysis.snapshot import Source
from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cli.analyze import Live, live
from lateen.cli.base import command
from lateen.cli.connect import Target, target_options
from lateen.cli.output import USAGE, CliError
from lateen.kube.client import HttpClient

TIMEOUT_S = 30.0


@command("object")
@click.argument("kind")
@click.argument("name")
@target_options
def describe_object(target: Target, kind: str, name: str) -> None:
    """Describe where a mesh object is attached: lateen x describe object virtualservice reviews"""
    row = _kind(kind)
    plain, _, other = name.partition(".")
    namespace = (other or target.namespace) if row.namespaced else ""

    async def work(client: HttpClient) -> Live:
        return await live(client, TIMEOUT_S)

    snapshot = target.run(work).snapshot(target.istio_namespace)
    source = snapshot.get(row, namespace, plain)
    if source is None:
        raise CliError(f'{row.kind} "{plain}" not found in namespace {namespace}')
    click.echo("\n".join(described(source, places(snapshot, source))))


def described(source: Source, found: list[Place]) -> list[str]:
    """The object, and a line for each of its attachments."""
    lines = [f"{source.id}: {source.name}{'' if source.namespace == 'default' else '.' + source.namespace}"]
    lines += [f"   Attached to {_place(p)}" for p in found if not p.missing]
    lines += [f"   WARNING: not attached to {_place(p)}: {p.missing}" for p in found if p.missing]
    return lines if found else [*lines, "   It is attached to nothing."]


def _place(place: Place) -> str:
    return f"{place.kind} {place.name}{f' ({place.detail})' if place.detail else ''}"


def _kind(text: str) -> Kind:
    """One of the mesh's own kinds, by any name that kubectl accepts. Raises CliError."""
    for kind in kinds.owned():
        spellings = {kind.kind, str(kind.id), kind.plural, f"{kind.plural}.{kind.group}", *kind.short}
        if text.lower() in {s.lower() for s in spellings}:
            return kind
    known = ", ".join(sorted(str(k.id) for k in kinds.owned()))
    raise CliError(f'"{text}" is not a kind of the mesh; its kinds are {known}', USAGE)
