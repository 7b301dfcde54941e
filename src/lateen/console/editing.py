"""Changes of the mesh's configuration, made with the user's token."""

from __future__ import annotations

import re

from aiohttp import web

from lateen.api import kinds
from lateen.console import shapes
from lateen.console.answers import answer, limited
from lateen.console.identity import Identity, says
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
            web.delete(f"{root}/config/{{kind}}/{{namespace}}/{{name}}", self._delete),
        ]

    async def _apply(self, request: web.Request) -> web.Response:
        """Write the objects of a YAML text in order, after all of them have passed a dry run; with ``?dryRun=true``
        only the dry run."""
        text = await limited(request)
        try:
            written = [s.obj for s in sources(text)]
        except yamldoc.YamlError as e:
            raise web.HTTPBadRequest(text=str(e)) from None
        dry_only = request.query.get("dryRun") == "true"
        async with self._identity.client(request) as client:
            out: shapes.Applied = {"written": [], "failed": {}}
            for dry in (True,) if dry_only else (True, False):
                out["written"] = []
                for obj in written:
                    ref = _spelled(obj)
                    try:
                        await _write(client, obj, dry)
                        out["written"].append(ref)
                    except (KubeError, Unreachable, ValueError) as e:
                        out["failed"][ref] = says(e)
                if out["failed"]:
                    break
        return answer(out)

    async def _delete(self, request: web.Request) -> web.Response:
        where = request.match_info
        kind = kinds.named(where["kind"])
        if kind is None or not kind.owned or not (NAME.match(where["namespace"]) and NAME.match(where["name"])):
            raise web.HTTPNotFound(text=f"there is no {where['kind']} {where['namespace']}/{where['name']}")
        async with self._identity.client(request) as client:
            try:
                found = await client.delete(kind, where["namespace"], where["name"])
            except (KubeError, Unreachable) as e:
                raise web.HTTPForbidden(text=says(e)) from None
        if not found:
            raise web.HTTPNotFound(text=f"there is no {where['kind']} {where['namespace']}/{where['name']}")
        return answer({})


async def _write(client: HttpClient, obj: Json, dry: bool) -> None:
    """Create an object, or replace the version that the text is based on. Raises ValueError for objects that the
    console does not write."""
    kind, meta = kinds.of(obj), obj["metadata"]
    if kind is None or not kind.owned:
        raise ValueError("the console only writes the mesh's configuration; apply the rest with kubectl")
    namespace, name = str(meta.get("namespace") or ""), str(meta.get("name") or "")
    if not (NAME.match(name) and NAME.match(namespace)):
        raise ValueError("metadata.name and metadata.namespace are needed, of lower-case letters, digits, - and .")
    query = {"fieldManager": "lateen-console", **({"dryRun": "All"} if dry else {})}
    if meta.get("resourceVersion"):
        await client.call("PUT", kind.path(namespace, name), obj, query=query)
    else:
        await client.call("POST", kind.path(namespace), obj, query=query)


def _spelled(obj: Json) -> str:
    group_kind, meta = kinds.group_kind(obj), obj["metadata"]
    return str(kinds.Ref(*group_kind, str(meta.get("namespace") or ""), str(meta.get("name") or "")))
