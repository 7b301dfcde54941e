"""``kubectl apply``, client-side: the last applied configuration is kept in an annotation, as kubectl does."""

from __future__ import annotations

from typing import Any

import click

from lateen.api.kinds import Kind
from lateen.cli.base import command
from lateen.cli.kubectl.common import called, kinds_of, options, target_of
from lateen.cli.kubectl.files import file_option, read
from lateen.cli.kubectl.strict import warn
from lateen.cli.output import USAGE, CliError, say
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig
from lateen.kube.apply import LAST_APPLIED, declared
from lateen.kube.client import HttpClient, KubeError


@command("apply")
@file_option
@click.option("-R", "--recursive", is_flag=True)
@options
def apply_(files: tuple[str, ...], recursive: bool, **given: Any) -> None:
    """Create or update objects from files: apply -f FILE"""
    if not files:
        raise CliError("must specify a file with -f", USAGE)
    objects, target = read(files, recursive), target_of(given)

    async def work(client: HttpClient) -> int:
        known, bad = await kinds_of(client), 0
        await warn(client, (obj for _, obj in objects), target)
        for name, obj in objects:
            try:
                kind = known.of(obj)
                click.echo(
                    f"{called(kind, obj['metadata']['name'])} {await _apply(client, kind, obj, target.namespace)}"
                )
            except KubeError as e:
                bad += 1
                say(f'Error from server ({e.reason}): error when applying "{name}": {e.message}')
            except CliError as e:
                bad += 1
                say(f'error: unable to recognize "{name}": {e}')
            for warning in client.warnings:
                say(f"Warning: {warning}")
            client.warnings.clear()
        return bad

    if bad := target.run(work):
        raise CliError(f"{bad} of {len(objects)} objects were not applied; the others are in place")


async def _apply(client: HttpClient, kind: Kind, obj: Json, default: str) -> str:
    meta = obj["metadata"]
    namespace = str(meta.get("namespace") or default) if kind.namespaced else ""
    wanted = {**obj, "metadata": {**meta, **({"namespace": namespace} if namespace else {})}}
    new = declared(wanted)
    found = await client.get(kind, namespace, meta["name"])
    if found is None:
        await client.create(kind, new)
        return "created"
    before = jsons.loads(dig(found, "metadata", "annotations", LAST_APPLIED, default="{}"))
    change = _with_removals(before, new)
    form = "application/merge-patch+json" if "." in kind.group else "application/strategic-merge-patch+json"
    after = await client.call("PATCH", kind.path(namespace, meta["name"]), change, content_type=form)
    same = dig(found, "metadata", "resourceVersion") == dig(after, "metadata", "resourceVersion")
    return "unchanged" if same else "configured"


def _with_removals(before: Any, now: Json) -> Json:
    """A merge patch to ``now`` in which fields that only ``before`` had are null."""
    out: Json = {}
    for key, value in now.items():
        old = before.get(key) if isinstance(before, dict) else None
        out[key] = _with_removals(old, value) if isinstance(value, dict) else value
    for key in before if isinstance(before, dict) else ():
        if key not in now:
            out[key] = None
    return out
