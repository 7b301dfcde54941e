"""The kubelet's own API, of which a control plane elsewhere asks for logs, commands in containers and ports of pods.

Paths and parameters are those of Kubernetes' kubelet (pkg/kubelet/server); only the API server's client certificate is
let in. Commands and ports are upgrades to SPDY/3.1, which is what kube-apiserver speaks to kubelets.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from urllib.parse import parse_qs, urlsplit

from lateen.cluster.apiserver import auth, streams
from lateen.cluster.apiserver.access import LogOptions, PodAccess, Running
from lateen.cluster.apiserver.errors import ApiError, bad_request, unknown_path
from lateen.cluster.apiserver.front_door import FrontDoor, listen
from lateen.kit import times
from lateen.kit.digits import digits
from lateen.kit.later import web
from lateen.kit.spdy import Session

log = logging.getLogger("lateen.kubelet.api")

API_SERVER = "kube-apiserver-kubelet-client"
"""The name in the certificate by which the API server asks, as kubeadm has it."""
Query = dict[str, list[str]]


class NodeApi:
    def __init__(self, access: PodAccess) -> None:
        self._access = access
        self._http = web.Server(self._handle, keepalive_timeout=75)

    async def serve(self, address: str, port: int, context: ssl.SSLContext) -> None:
        await listen(lambda: FrontDoor(lambda: self._http(), self._spdy), (address, port), context)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            _authorize(request.transport)
            parts = request.path.strip("/").split("/")
            query = parse_qs(request.query_string, keep_blank_values=True)
            if parts == ["healthz"]:
                return web.Response(text="ok")
            if parts[0] == "containerLogs" and len(parts) == 4:
                return await self._log(request, parts[1], parts[2], parts[3], query)
            raise unknown_path()
        except ApiError as e:  # as text, which the API server puts into its own Status
            return web.Response(text=e.message, status=e.code)

    async def _log(
        self, request: web.BaseRequest, namespace: str, pod: str, container: str, query: Query
    ) -> web.StreamResponse:
        chunks = self._access.logs(namespace, pod, container, _log_options(query))
        try:
            first = await anext(chunks, None)
        except LookupError as e:
            raise bad_request(str(e.args[0])) from e
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(first or b"")
        async for chunk in chunks:
            await response.write(chunk)
        return response

    async def _spdy(
        self, head: str, transport: asyncio.Transport, reader: asyncio.StreamReader, write: streams.Write
    ) -> None:
        first, *rest = head.split("\r\n")
        headers = [(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in rest)]
        try:
            _authorize(transport)
            url = urlsplit(first.split(" ")[1])
            query = parse_qs(url.query, keep_blank_values=True)
            what, *target = url.path.strip("/").split("/")
            chosen = streams.version(headers)
            if not chosen or (what, len(target)) not in (("exec", 3), ("attach", 3), ("portForward", 2)):
                raise unknown_path()
            running = await self._run(what, target, query) if what != "portForward" else None
        except ApiError as e:
            await streams.refuse(write, e)
            return

        async def serve(session: Session) -> None:
            if running is None:
                await streams.forward(session, self._access, target[0], target[1])
            else:
                tty = _flag(query, "tty")
                wanted = 1 + _flag(query, "input") + _flag(query, "output") + (tty or _flag(query, "error"))
                await streams.spdy_exec(session, running, wanted)

        await streams.upgraded(reader, write, chosen, serve)

    async def _run(self, what: str, target: list[str], query: Query) -> Running:
        namespace, pod, container = target
        try:
            if what == "attach":
                return await self._access.attach(namespace, pod, container, _flag(query, "input"))
            command, tty, stdin = query.get("command", []), _flag(query, "tty"), _flag(query, "input")
            return await self._access.execute(namespace, pod, container, command, tty, stdin)
        except LookupError as e:
            raise bad_request(str(e.args[0])) from e
        except OSError as e:
            raise ApiError(500, "InternalError", str(e)) from e


def _authorize(transport: asyncio.BaseTransport | None) -> None:
    """Raises ApiError."""
    user = auth.from_certificate(transport.get_extra_info("peercert") if transport else None)
    if user is None or user.name != API_SERVER:
        raise ApiError(401, "Unauthorized", "only the API server may ask a kubelet")


def _flag(query: Query, name: str) -> bool:
    return query.get(name, [""])[-1] in ("1", "true")


def _number(query: Query, name: str) -> int | None:
    text = query.get(name, [""])[-1]
    if text and not digits(text):
        raise bad_request(f"the parameter {name} must be a non-negative whole number")
    return int(text) if text else None


def _log_options(query: Query) -> LogOptions:
    since: float | None = _number(query, "sinceSeconds")
    if text := query.get("sinceTime", [""])[-1]:
        try:
            since = (times.now() - times.parse(text)).total_seconds()
        except ValueError:
            raise bad_request("sinceTime is not a time (RFC 3339)") from None
    follow, timestamps, previous = (_flag(query, n) for n in ("follow", "timestamps", "previous"))
    return LogOptions(follow, _number(query, "tailLines"), since, timestamps, previous, _number(query, "limitBytes"))
