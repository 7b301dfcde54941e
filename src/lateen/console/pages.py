"""The endpoints for the console's lists, details and editor."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from lateen.analysis import Source
from lateen.analysis.snapshot import Key
from lateen.console import fieldhelp, shapes
from lateen.console.answers import answer, limited
from lateen.console.badges import badges
from lateen.console.boards import BOARDS
from lateen.console.checks import placed
from lateen.console.cluster import Cluster, what_if
from lateen.console.effect import effect
from lateen.console.identity import Identity
from lateen.console.presets import forms
from lateen.console.wizards import Wizards
from lateen.dump.outcomes import FLAGS
from lateen.kit import jsons, yamldoc


class Pages:
    def __init__(self, cluster: Cluster, identity: Identity) -> None:
        self._cluster, self._identity = cluster, identity
        self._checking = asyncio.Lock()

    def routes(self, root: str) -> list[web.RouteDef]:
        return [
            web.get(f"{root}/boards", self._boards),
            web.get(f"{root}/badges", self._badges),
            web.get(f"{root}/flags", self._flags),
            web.get(f"{root}/changes", self._changes),
            web.get(f"{root}/applications", self._applications),
            web.get(f"{root}/applications/{{namespace}}/{{name}}", self._application),
            web.get(f"{root}/workloads", self._workloads),
            web.get(f"{root}/workloads/{{namespace}}/{{name}}", self._workload),
            web.get(f"{root}/services", self._services),
            web.get(f"{root}/services/{{namespace}}/{{name}}", self._service),
            web.get(f"{root}/config", self._config),
            web.get(f"{root}/config/{{kind}}/{{namespace:[^/]*}}/{{name}}", self._object),
            web.post(f"{root}/check", self._check),
            web.post(f"{root}/effect", self._effect),
            web.get(f"{root}/schemas/{{kind}}", self._schema),
            web.get(f"{root}/wizards/{{namespace}}/{{service}}", self._forms),
            web.post(f"{root}/wizards/{{wizard}}/{{namespace}}/{{service}}", self._wizard),
        ]

    async def _boards(self, _: web.Request) -> web.Response:
        return answer([b.json() for b in BOARDS])

    async def _badges(self, _: web.Request) -> web.Response:
        return answer(badges(self._cluster.inventory()))

    async def _flags(self, _: web.Request) -> web.Response:
        """The meaning of each of Envoy's response flags."""
        return answer({flag: meaning.says for flag, meaning in FLAGS.items()})

    async def _changes(self, request: web.Request) -> web.Response:
        """Changes of configuration, of one ``namespace`` or of all."""
        wanted = [n for n in request.query.get("namespace", "").split(",") if n]
        return answer([c for c in self._cluster.changes() if not wanted or c["namespace"] in wanted])

    async def _applications(self, request: web.Request) -> web.Response:
        return answer(self._cluster.inventory().applications(request.query.get("namespace", "")))

    async def _workloads(self, request: web.Request) -> web.Response:
        return answer(self._cluster.inventory().workloads(request.query.get("namespace", "")))

    async def _services(self, request: web.Request) -> web.Response:
        return answer(self._cluster.inventory().services(request.query.get("namespace", "")))

    async def _config(self, request: web.Request) -> web.Response:
        namespace, kind = request.query.get("namespace", ""), request.query.get("kind", "")
        return answer(self._cluster.inventory().configuration.rows(namespace, kind))

    async def _workload(self, request: web.Request) -> web.Response:
        where = request.match_info
        kind = request.query.get("kind", "")
        found = self._cluster.inventory().workload(where["namespace"], where["name"], kind)
        return answer(_there(found, "workload", where["namespace"], where["name"]))

    async def _application(self, request: web.Request) -> web.Response:
        where = request.match_info
        found = self._cluster.inventory().application(where["namespace"], where["name"])
        return answer(_there(found, "application", where["namespace"], where["name"]))

    async def _service(self, request: web.Request) -> web.Response:
        where = request.match_info
        found = self._cluster.inventory().service(where["namespace"], where["name"])
        return answer(_there(found, "service", where["namespace"], where["name"]))

    async def _object(self, request: web.Request) -> web.Response:
        where = request.match_info
        found = self._cluster.inventory().configuration.page(where["kind"], where["namespace"], where["name"])
        return answer(_there(found, where["kind"], where["namespace"], where["name"]))

    async def _check(self, request: web.Request) -> web.Response:
        """Findings about the objects of a YAML text as if they were applied; nothing is written. It takes work, and
        tells of what is there, so it is for those who may read that."""
        await self._identity.reads(request)
        text = await limited(request)
        try:
            written = sources(text)
        except yamldoc.YamlError as e:
            wrong: shapes.Check = {
                "code": "YAML",
                "level": "Error",
                "object": "",
                "text": e.says,
                "line": e.line,
                "documentation": "",
            }
            return answer([wrong])
        async with self._checking:  # one at a time: each reads all objects
            live = self._cluster.sources()
            found = await asyncio.to_thread(what_if, live, written, self._cluster.root)
        return answer(placed(found))

    async def _schema(self, request: web.Request) -> web.Response:
        found = fieldhelp.fields(request.match_info["kind"])
        if found is None:
            raise web.HTTPNotFound(text=f"{request.match_info['kind']} is not a kind of the mesh")
        return answer(found)

    async def _effect(self, request: web.Request) -> web.Response:
        """What applying a YAML text would change at the proxies, or with ``?delete=true`` deleting its objects; nothing
        is written. For those who may read the configuration, as ``_check``."""
        await self._identity.reads(request)
        try:
            written = sources(await limited(request))
        except yamldoc.YamlError as e:
            raise web.HTTPUnprocessableEntity(text=str(e)) from None
        gone = request.query.get("delete") == "true"
        changes: dict[Key, Source | None] = {(str(s.id), s.namespace, s.name): None if gone else s for s in written}
        async with self._checking:
            live = self._cluster.sources()
            return answer(await asyncio.to_thread(effect, live, changes, self._cluster.root))

    async def _forms(self, request: web.Request) -> web.Response:
        """What is set now of what wizards set."""
        where = request.match_info
        try:
            inventory = self._cluster.inventory()
            return answer(forms(Wizards(inventory), inventory, where["namespace"], where["service"]))
        except LookupError as e:
            raise web.HTTPNotFound(text=str(e.args[0])) from None

    async def _wizard(self, request: web.Request) -> web.Response:
        """The YAML for a wizard's form; nothing is written."""
        where = request.match_info
        try:
            form = jsons.loads(await limited(request))
        except ValueError as e:
            raise web.HTTPBadRequest(text=f"the form is not JSON: {e}") from None
        wizards = Wizards(self._cluster.inventory())
        try:
            objects = wizards.make(where["wizard"], where["namespace"], where["service"], form)
        except LookupError as e:
            raise web.HTTPNotFound(text=str(e.args[0])) from None
        except ValueError as e:
            raise web.HTTPUnprocessableEntity(text=str(e)) from None
        return web.Response(text="---\n".join(map(yamldoc.dump, objects)), content_type="application/yaml")


def sources(text: str) -> list[Source]:
    """The objects of a YAML text. Raises YamlError."""
    out = []
    for document in yamldoc.documents(text):
        value = document.value
        whole = isinstance(value, dict) and isinstance(value.get("metadata"), dict)
        if not whole or not all(isinstance(value.get(k), str) and value[k] for k in ("apiVersion", "kind")):
            line, column = document.position(())
            raise yamldoc.YamlError("expected an object with apiVersion, kind and metadata", line, column)
        out.append(Source(document.value, "editor", document.position))
    if not out:
        raise yamldoc.YamlError("there is no object: expected apiVersion, kind and metadata", 1, 1)
    return out


def _there(found: Any, kind: str, namespace: str, name: str) -> Any:
    if found is None:
        where = f" in namespace {namespace}" if namespace else ""
        raise web.HTTPNotFound(text=f"there is no {kind} {name}{where}; it may have been deleted")
    return found
