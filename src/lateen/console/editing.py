"""Changes of the mesh's configuration, made with the user's token."""

from __future__ import annotations

import re
from http import HTTPStatus

from aiohttp import web

from lateen.api import kinds
from lateen.console import shapes
from lateen.console.answers import answer, limited
from lateen.console.checks import APPLIED
from lateen.console.checks import written as shown
from lateen.console.identity import Identity, refused, says
from lateen.console.pages import sources
from lateen.kit import yamldoc
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient, KubeError, Unreachable

NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")


class Editing:
    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def routes(self, root: str) -> list[web.RouteDef]:
        return [
            web.post(f"{root}/apply", self._apply),
            web.delete(f"{root}/config/{{kind}}/{{namespace:[^/]*}}/{{name}}", self._delete),
        ]

    async def _apply(self, request: web.Request) -> web.Response:
        """Write the objects of a YAML text in order, after all of them have passed a dry run; with ``?dryRun=true``
        only the dry run."""
        text = await limited(request)
        try:
            written = [s.obj for s in sources(text)]
        except yamldoc.YamlError as e:
            raise web.HTTPBadRequest(text=str(e)) from None
        async with self._identity.client(request) as client:
            out = await _all(client, written, dry=True)
            if request.query.get("dryRun") != "true" and not out["failed"]:
                out = await _all(client, written, dry=False)
        return answer(out)

    async def _delete(self, request: web.Request) -> web.Response:
        """With ``?generation=``, which takes a write back: unless somebody has changed the object since; it may be
        gone."""
        where = request.match_info
        kind, namespace, name = kinds.named(where["kind"]), where["namespace"], where["name"]
        missing = web.HTTPNotFound(text=f"there is no {where['kind']} {namespace}{'/' if namespace else ''}{name}")
        if kind is None or not kind.owned or not _named(kind, namespace, name):
            raise missing
        generation = request.query.get("generation", "")
        async with self._identity.client(request) as client:
            try:
                found = await _drop(client, kind, (namespace, name), generation)
            except (KubeError, Unreachable) as e:
                raise refused(e) from None
        if not found and not generation:
            raise missing
        return answer({})


async def _drop(client: HttpClient, kind: kinds.Kind, of: tuple[str, str], generation: str) -> bool:
    """False if there is no such object. Raises KubeError, 409 where ``generation`` is an older one."""
    if not generation:
        return await client.delete(kind, *of)
    there = await client.get(kind, *of)
    if there is None:
        return False
    meta = there["metadata"]
    if str(meta.get("generation")) != generation:
        raise KubeError(HTTPStatus.CONFLICT, "Conflict", f"{kind.kind} {of[1]} has been changed since")
    return await client.delete(kind, *of, version=str(meta["resourceVersion"]))


async def _all(client: HttpClient, objects: list[Json], dry: bool) -> shapes.Applied:
    """Raises HTTPUnauthorized."""
    out: shapes.Applied = {"written": [], "failed": {}, "yaml": "", "undo": []}
    stored = []
    for obj in objects:
        ref = _spelled(obj)
        try:
            before, found = await _write(client, obj, dry)
        except (KubeError, Unreachable, ValueError) as e:
            if isinstance(e, KubeError) and e.code == HTTPStatus.UNAUTHORIZED:
                raise refused(e) from None
            out["failed"][ref] = says(e)
            stored.append(obj)
            continue
        out["written"].append(ref)
        stored.append(obj if dry else shown(found))
        if not dry:
            out["undo"].append(_undo(before, shown(found)))
    out["yaml"] = "---\n".join(map(yamldoc.dump, stored))
    return out


async def _write(client: HttpClient, obj: Json, dry: bool) -> tuple[Json | None, Json]:
    """Create an object, or replace the version that the text is based on: what was there before, and what is stored
    then. Raises ValueError for objects that the console does not write."""
    kind, meta = kinds.of(obj), obj["metadata"]
    if kind is None or not kind.owned:
        says = f"{obj['kind']} of {obj['apiVersion']} is not a kind of the mesh's configuration"
        raise ValueError(f"{says}, and the console writes nothing else; apply it with kubectl")
    namespace, name = str(meta.get("namespace") or ""), str(meta.get("name") or "")
    if not _named(kind, namespace, name):
        needed = "metadata.name and metadata.namespace are needed" if kind.namespaced else "metadata.name is needed"
        raise ValueError(f"{needed}, of lower-case letters, digits, - and .")
    query = {"fieldManager": "lateen-console", "fieldValidation": "Strict", **({"dryRun": "All"} if dry else {})}
    if not meta.get("resourceVersion"):
        return None, await client.call("POST", kind.path(namespace), obj, query=query)
    before = await client.get(kind, namespace, name)
    if before is not None and _same(before, obj):
        obj = {**obj, "metadata": {**meta, "resourceVersion": before["metadata"]["resourceVersion"]}}
    return before, await client.call("PUT", kind.path(namespace, name), obj, query=query)


def _same(now: Json, obj: Json) -> bool:
    """Whether an object is still what a text is based on, though its version may be another one: the control plane
    writes statuses at any time."""
    there, meta = now["metadata"], obj["metadata"]
    mine = {k: v for k, v in (there.get("annotations") or {}).items() if k != APPLIED}
    return (
        bool(meta.get("generation"))
        and meta["generation"] == there.get("generation")
        and (there.get("labels") or {}) == (meta.get("labels") or {})
        and mine == (meta.get("annotations") or {})
    )


def _undo(before: Json | None, stored: Json) -> shapes.Undo:
    """``stored``: as the page shows it."""
    kind, meta = kinds.of(stored), stored["metadata"]
    text = ""
    if before is not None:
        based = {k: v for k in ("resourceVersion", "generation") if (v := meta.get(k))}
        old = {k: stored[k] for k in ("apiVersion", "kind")} | shown(before)
        text = yamldoc.dump({**old, "metadata": {**old["metadata"], **based}})
    return {
        "kind": str(kind.id) if kind is not None else "",
        "namespace": str(meta.get("namespace", "")),
        "name": str(meta["name"]),
        "yaml": text,
        "generation": int(meta.get("generation", 0)),
    }


def _named(kind: kinds.Kind, namespace: str, name: str) -> bool:
    """Whether an object of the kind may be called so; one without a namespace where the whole cluster has it."""
    return bool(NAME.match(name)) and (bool(NAME.match(namespace)) if kind.namespaced else not namespace)


def _spelled(obj: Json) -> str:
    group_kind, meta = kinds.group_kind(obj), obj["metadata"]
    return str(kinds.Ref(*group_kind, str(meta.get("namespace") or ""), str(meta.get("name") or "")))
