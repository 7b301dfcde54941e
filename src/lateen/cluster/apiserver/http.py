"""The API over HTTPS: authentication, routing and authorization of requests, and their responses."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import cast

from lateen.cluster.apiserver import (
    answers,
    api_services,
    auth,
    bodies,
    component_statuses,
    impersonation,
    metrics,
    node_proxy,
    owners,
    proxying,
    reading,
    reviews,
    routing,
    watching,
)
from lateen.cluster.apiserver.access import PodAccess
from lateen.cluster.apiserver.api import Api
from lateen.cluster.apiserver.auth import User
from lateen.cluster.apiserver.call import Call, Listing
from lateen.cluster.apiserver.documents import VERSION, Documents
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.cluster.apiserver.figures import Figures
from lateen.cluster.apiserver.front_door import FrontDoor, listen, tls
from lateen.cluster.apiserver.lane import Plain
from lateen.cluster.apiserver.resources import API_SERVICES, METRICS, PARTS
from lateen.cluster.apiserver.upgrades import Upgrades
from lateen.cluster.store.history import Entry
from lateen.kit import servers
from lateen.kit.jsons import Json
from lateen.kit.later import web

__all__ = ["Server", "listen", "tls"]

log = logging.getLogger("lateen.apiserver.http")

WRITES = ("POST", "PUT", "PATCH", "DELETE")
_BEARER = "base64url.bearer.authorization.k8s.io."


@dataclass
class _Work:
    """One request, as far as it is known what it is about. ``began``: of time.perf_counter; ``call`` is there once the
    user is authorized, so that nobody else has a say in which series are counted."""

    began: float
    verb: str
    call: Call | None = None


class Server:
    def __init__(self, api: Api, access: PodAccess) -> None:
        self._api, self._access, self._proxy = api, access, proxying.Proxy()
        self._stops = False
        self._figures = Figures(api.store, VERSION)
        self._documents = Documents(api.store, api.registry, self._figures, lambda: self._stops)
        self._upgrades = Upgrades(api, access, self.user, self._figures)
        self._bodies, self._lines = bodies.Bodies(), answers.Lines()

    @functools.cached_property
    def _http(self) -> web.Server:
        return servers.server(self._handle, keepalive_s=75, lingering_s=2)

    def ends(self) -> None:
        """It answers until ``close``, and is no longer ready."""
        self._stops = True

    async def close(self) -> None:
        await self._proxy.close()

    def protocol(self) -> asyncio.Protocol:
        """A connection: SPDY upgrades go to our own framing, what is not plain to aiohttp."""
        return FrontDoor(self._http, self._upgrades.spdy, self.plain)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        work = _Work(time.perf_counter(), request.method.lower())
        try:
            answer = await self._route(request, work)
        except ConnectionError:
            raise
        except Exception as e:  # noqa: BLE001 - every failure is an answer
            answer = _refused(e, request.method, request.path).web()
        size = len(answer.body) if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else 0
        self._figures.answered(work.call, work.verb, answer.status, work.began, size)
        return answer

    def plain(self, asked: Plain, transport: asyncio.Transport) -> bytes | Coroutine[None, None, bytes] | None:
        """The whole response to a request about objects, at once or later; None for what aiohttp has to answer."""
        work = _Work(time.perf_counter(), asked.method.lower())
        try:
            return self._plain(asked, work, transport)
        except Exception as e:  # noqa: BLE001 - as above
            return self._written(asked, work, _refused(e, asked.method, asked.path))

    def _written(self, asked: Plain, work: _Work, answer: answers.Answer) -> bytes:
        self._figures.answered(work.call, work.verb, answer.code, work.began, len(answer.body))
        return answer.wire(asked.closes)

    def _plain(
        self, asked: Plain, work: _Work, transport: asyncio.Transport
    ) -> bytes | Coroutine[None, None, bytes] | None:
        parts = asked.path.strip("/").split("/")
        if not routing.is_resource(parts):
            return None
        c = routing.call(self._api.registry, parts, asked.query, self.user(transport, asked.headers))
        verb = routing.verb(asked.method, c)
        if verb == "watch" or c.subresource in ("proxy", "log", *routing.STREAMS):
            return None
        c.agent = owners.agent(asked.header("user-agent"))
        routing.authorize(self._api.store, c, verb)
        work.call, work.verb = c, verb
        accept = asked.header("accept")
        if verb in ("get", "list") and self._is_stored(c, verb):
            with self._figures.inflight(verb):
                store = self._api.settled()
                found = reading.entry(store, c) if verb == "get" else reading.listing(store, c)
                return self._written(asked, work, answers.made(answers.body(c, accept, found), 200, c.warnings))
        if asked.method in WRITES:
            kind = asked.header("content-type", "application/octet-stream").partition(";")[0].strip().lower()
            c.body = bodies.decode(asked.body, kind, c, asked.method == "PATCH")
        return self._later(asked, work, c, accept)

    async def _later(self, asked: Plain, work: _Work, c: Call, accept: str) -> bytes:
        try:
            with self._figures.inflight(work.verb):
                obj, code = await self._carry_out(c, work.verb)
            return self._written(asked, work, answers.made(answers.body(c, accept, obj), code, c.warnings))
        except Exception as e:  # noqa: BLE001 - as above
            return self._written(asked, work, _refused(e, asked.method, asked.path))

    def _is_stored(self, c: Call, verb: str) -> bool:
        """Whether the objects of a call are the store's, as they are."""
        return not c.resource.computed and c.subresource == "" and verb in c.resource.verbs and c.resource.uniform

    def user(self, transport: asyncio.BaseTransport | None, headers: list[tuple[str, str]]) -> User:
        """The identity of a request: from its token, else its certificate, else anonymous; then impersonation."""
        token = _token(headers)
        if token is not None:
            found = self._api.tokens.verify(token, [auth.DEFAULT_AUDIENCE])
            if found is None:
                says = "the bearer token is not valid (expired, or its service account or pod is gone)"
                raise ApiError(401, "Unauthorized", says)
            real = found[0]
        else:
            peer = transport.get_extra_info("peercert") if transport else None
            real = auth.from_certificate(peer) or auth.ANONYMOUS
        return impersonation.effective(self._api.store, real, headers)

    async def _route(self, request: web.BaseRequest, work: _Work) -> web.StreamResponse:
        user = self.user(request.transport, list(request.headers.items()))
        path = request.path.rstrip("/") or "/"
        parts = path.strip("/").split("/")
        if routing.is_resource(parts):
            c = routing.call(self._api.registry, parts, dict(request.query), user)
            return await self._resource(request, c, work)
        routing.authorize_path(self._api.store, user, request.method, path)
        with self._figures.inflight(work.verb):
            return self._documents.document(request, path, parts)

    async def _resource(self, request: web.BaseRequest, c: Call, work: _Work) -> web.StreamResponse:
        verb = routing.verb(request.method, c)
        c.agent = owners.agent(request.headers.get("User-Agent", ""))
        routing.authorize(self._api.store, c, verb)
        work.call, work.verb = c, verb
        if c.subresource == "proxy" and c.resource.kind == "Node":
            inside = "".join(f"/{p}" for p in request.path.split("/")[6:])  # /api/v1/nodes/NAME/proxy/…
            store, registry = self._api.settled(), self._api.registry
            return (await node_proxy.answer(store, registry, self._access, c, request.method, inside)).web()
        if c.subresource == "proxy":
            to, inside = proxying.target(self._api.store, c, request.rel_url.raw_path)
            kind = dict(c.resource.subresources)["proxy"]
            options: Json = {"kind": kind, "apiVersion": "v1", "metadata": {}, "path": inside}
            await self._api.connect(c, options)
            with self._figures.running(c, verb):
                return await self._proxy.serve(request, to, inside)
        if c.subresource in routing.STREAMS or c.subresource == "log":
            with self._figures.running(c, verb):
                return await self._upgrades.serve(cast(web.Request, request), c)
        if request.method in WRITES:
            raw = await self._bodies.read(request)
            c.body = bodies.decode(raw, request.content_type, c, request.method == "PATCH")
        if verb == "watch":
            with self._figures.running(c, verb):
                return await watching.watch(self._api, self._lines, self._figures, request, c)
        with self._figures.inflight(verb):
            obj, code = await self._carry_out(c, verb)
        return answers.made(answers.body(c, request.headers.get("Accept", ""), obj), code, c.warnings).web()

    async def _carry_out(self, c: Call, verb: str) -> tuple[Json | Listing | Entry, int]:
        if c.resource.group in reviews.GROUPS and verb == "create" and not c.name:
            return reviews.answer(self._api.settled(), self._api.tokens, c), 201
        if c.resource.computed and verb in c.resource.verbs and not c.subresource:
            return await self._computed(c, verb), 200
        if c.resource.kind == "Binding" and not c.resource.custom and verb == "create" and not c.name:
            return await self._api.bind(c), 201
        if c.subresource not in ("", *PARTS):
            return await self._subresource(c, verb)
        part = c.subresource in PARTS and verb not in ("get", "update", "patch")
        if part or verb not in c.resource.verbs or (verb == "create" and c.name):
            raise _not_allowed()
        match verb:
            case "get":
                return await self._api.entry(c), 200
            case "list":
                return await self._api.list(c), 200
            case "create":
                return await self._api.create(c), 201
            case "update" if c.name:
                return await self._api.update(c), 200
            case "patch" if c.name:
                return await self._api.patch(c), 201 if c.created else 200
            case "delete" if not c.subresource:
                return await self._api.delete(c), 200
            case "deletecollection":
                return await self._api.delete_collection(c), 200
        raise _not_allowed()

    async def _computed(self, c: Call, verb: str) -> Json | Listing:
        store, registry = self._api.settled(), self._api.registry
        if c.resource.group == METRICS:
            return await metrics.answer(store, registry, self._access, c, verb)
        if c.resource.group == API_SERVICES:
            return api_services.answer(store, registry, c, verb)
        return component_statuses.answer(store, c, verb)

    async def _subresource(self, c: Call, verb: str) -> tuple[Json, int]:
        match (verb, c.subresource):
            case ("get", "scale"):
                return await self._api.scale(c), 200
            case ("update" | "patch", "scale"):
                return await self._api.set_scale(c), 200
            case ("update", "finalize"):
                return await self._api.update(c), 200
            case ("create", "token"):
                return await self._api.token(c), 201
            case ("create", "eviction"):
                return await self._api.evict(c), 201
            case ("create", "binding"):
                return await self._api.bind(c), 201
        raise _not_allowed()


def _refused(e: Exception, method: str, path: str) -> answers.Answer:
    if isinstance(e, ApiError):
        return answers.refused(e)
    if isinstance(e, RecursionError):
        return answers.refused(bad_request("the body is nested too deeply"))
    log.error("%s %s", method, path, exc_info=e)  # a bug of ours: the client gets a Status, the log the traceback
    return answers.refused(ApiError(500, "InternalError", f"internal error: {type(e).__name__}"))


def _not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def _token(headers: list[tuple[str, str]]) -> str | None:
    """The bearer token of the Authorization header, or of the WebSocket protocols (browsers cannot send headers)."""
    for key, value in headers:
        if key.lower() == "authorization" and value.lower().startswith("bearer "):
            return value[7:].strip()
        if key.lower() == "sec-websocket-protocol" and _BEARER in value:
            text = next(p.strip() for p in value.split(",") if p.strip().startswith(_BEARER)).removeprefix(_BEARER)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except (binascii.Error, UnicodeDecodeError):
                return ""
    return None
