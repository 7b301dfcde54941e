"""Requests of agents other than for certificates: the table of names, bootstrap patches, a machine's probe."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from google.protobuf import json_format

from lateen.ca.authority import Refused
from lateen.control import registration
from lateen.control.ca_service import Caller, CaService, TooMany, read
from lateen.control.offering import may_be
from lateen.kit import jsons
from lateen.kube.client import KubeError
from lateen.mesh import proxies
from lateen.mesh.views import Views, patches
from lateen.mesh.workloads import BOTH, IPV4, IPV6
from lateen.wire.node import parse
from lateen.xds.patches import merging, values
from lateen.xds.patches.operations import parsed

log = logging.getLogger("lateen.control.agents")

NAMES_S = 30.0
"""The longest that a request for names waits for a change, in seconds."""
MOST_WAITING = 20
"""How many of them one caller may have waiting, also those whose connections it has closed; an agent has one."""


Answer = Callable[[Caller, jsons.Json], Awaitable[jsons.Json]]


class Agents:
    def __init__(self, ca: CaService, views: Callable[[str], Views | None], registrar: registration.Registrar) -> None:
        """``views``: a cluster's view of the mesh (``Sides.of``)."""
        self._ca, self._views, self._registrar = ca, views, registrar
        self._changed = asyncio.Event()
        self._waiting = Counter[str]()
        """How many requests for names of a caller (``Caller.counted``) are waiting."""

    def changed(self) -> None:
        """Called after the mesh has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def names(self, request: web.Request) -> web.Response:
        """``{"version", "outside", "families"}`` -> ``{"version", "names": {host: [address]}}``, at once if the version
        differs. ``outside``: whether Services are asked for, too. ``families``: those that are redirected to the proxy
        (``4``, ``6``, ``46``, or empty); IPv4 of an agent that does not say, which is an earlier version's."""

        async def answer(who: Caller, body: jsons.Json) -> jsons.Json:
            families = str(body.get("families", IPV4))
            if families not in ("", IPV4, IPV6, BOTH):
                raise ValueError(f'families: "{families[:20]}" is not 4, 6, 46 or empty')
            if self._waiting[who.counted] >= MOST_WAITING:
                raise TooMany("too many requests for names are waiting already")
            self._waiting[who.counted] += 1
            try:
                return await self._names(who, families, bool(body.get("outside")), body.get("version"))
            finally:
                self._waiting[who.counted] -= 1
                if not self._waiting[who.counted]:
                    del self._waiting[who.counted]

        return await self._answered(request, answer)

    async def _names(self, who: Caller, families: str, outside: bool, known: object) -> jsons.Json:
        loop = asyncio.get_running_loop()
        end = loop.time() + NAMES_S
        while True:
            changed = self._changed
            version, found = self._seen(who).versioned_names(who.identity.namespace, families, outside)
            left = end - loop.time()
            if version != known or left <= 0:
                return {"version": version, "names": found}
            try:
                async with asyncio.timeout(left):
                    await changed.wait()
            except TimeoutError:
                pass

    async def probe(self, request: web.Request) -> web.Response:
        """``{"node", "group"}`` -> ``{"probe"}`` of the machine's WorkloadGroup, null if it has none."""

        async def answer(who: Caller, body: jsons.Json) -> jsons.Json:
            parse(str(body["node"]))
            group = self._registrar.group(who.identity.namespace, {registration.GROUP: str(body["group"])})
            return {"probe": msgspec.to_builtins(group.spec.probe) if group and group.spec.probe else None}

        return await self._answered(request, answer)

    async def health(self, request: web.Request) -> web.Response:
        """``{"node", "group", "healthy", "says"}``: the result of a machine's probe."""

        async def answer(caller: Caller, body: jsons.Json) -> jsons.Json:
            node, who = parse(str(body["node"])), caller.identity
            says_no = self._registrar.refuses(node, {registration.GROUP: str(body["group"])}, who.service_account)
            if says_no is not None or node.namespace != who.namespace:
                raise Refused(says_no or f"the token is for namespace {who.namespace}, not {node.namespace}")
            name = registration.entry_name(str(body["group"]), node.address)
            await self._registrar.health(who.namespace, name, body["healthy"] is True, str(body.get("says", "")))
            return {}

        return await self._answered(request, answer)

    async def bootstrap(self, request: web.Request) -> web.Response:
        """``{"node", "bootstrap"}`` -> ``{"bootstrap", "drain"}``: null if no EnvoyFilter patches it, and seconds
        (see ``mesh.proxies.drain``)."""

        async def answer(who: Caller, body: jsons.Json) -> jsons.Json:
            node = parse(str(body["node"]))
            mesh = self._seen(who).mesh
            pod = mesh.objects.pods.get((node.namespace, node.pod))
            if pod is None or not may_be(node.kind, pod, str(who.identity)):
                return {"bootstrap": None, "drain": proxies.drain(mesh.proxy_defaults)}
            drain = proxies.drain(mesh.proxy_defaults, pod.notes)
            found = mesh.envoy_filters(pod.namespace, pod.label_map)
            metadata = {k: v for k, v in body["bootstrap"]["node"]["metadata"].items() if isinstance(v, str)}
            mine = [p for p in patches(found, metadata) if p.spec.apply_to == "BOOTSTRAP"]
            if not mine:
                return {"bootstrap": None, "drain": drain}
            out = values.message("BOOTSTRAP", body["bootstrap"])
            for p in mine:
                value = parsed(p)
                if not isinstance(value, str):
                    merging.merge(out, value)
            return {"bootstrap": json_format.MessageToDict(out, preserving_proto_field_name=True), "drain": drain}

        return await self._answered(request, answer)

    def _seen(self, who: Caller) -> Views:
        """Raises OSError."""
        found = self._views(who.cluster)
        if found is None:
            raise OSError(f"the cluster {who.cluster} has not been read yet")
        return found

    async def _answered(self, request: web.Request, answer: Answer) -> web.Response:
        try:
            body = jsons.loads(await read(request))
            return web.json_response(await answer(await self._ca.caller(request), body))
        except Refused as e:
            return web.json_response({"error": str(e)}, status=429 if isinstance(e, TooMany) else 403)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            return web.json_response({"error": str(e)}, status=400)
        except (KubeError, OSError) as e:
            return web.json_response({"error": f"this cannot be answered at the moment: {e}"}, status=503)
