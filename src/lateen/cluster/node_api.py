"""The kubelet's own API, of which a control plane elsewhere asks for logs, commands in containers and ports of pods.

Paths and parameters are those of Kubernetes' kubelet (pkg/kubelet/server); only the API server's client certificate is
let in. Commands and ports are upgrades to SPDY/3.1, which is what kube-apiserver speaks to kubelets.
"""

from __future__ import annotations

import asyncio
import logging
import ssl

from lateen.cluster.apiserver import auth, containers, streams
from lateen.cluster.apiserver.access import PodAccess, Running
from lateen.cluster.apiserver.errors import ApiError, unknown_path
from lateen.cluster.apiserver.front_door import FrontDoor, listen
from lateen.kit import servers
from lateen.kit.later import web
from lateen.kit.spdy import Session

log = logging.getLogger("lateen.kubelet.api")

API_SERVER = "kube-apiserver-kubelet-client"
"""The name in the certificate by which the API server asks, as kubeadm has it."""


class NodeApi:
    def __init__(self, access: PodAccess) -> None:
        self._access = access
        self._http = servers.server(self._handle, keepalive_s=75)

    async def serve(self, address: str, port: int, context: ssl.SSLContext) -> None:
        await listen(self.protocol, (address, port), context)

    def protocol(self) -> asyncio.Protocol:
        return FrontDoor(lambda: self._http(), self._spdy)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            _authorize(request.transport)
            parts = request.path.strip("/").split("/")
            if parts == ["healthz"]:
                return web.Response(text="ok")
            if parts[0] == "containerLogs" and len(parts) == 4:
                chunks = self._access.logs(parts[1], parts[2], parts[3], containers.log_options(request.query))
                return await containers.log(request, chunks)
            raise unknown_path()
        except ApiError as e:  # as text, which the API server puts into its own Status
            return web.Response(text=e.message, status=e.code)

    async def _spdy(
        self, head: str, transport: asyncio.Transport, reader: asyncio.StreamReader, write: streams.Write
    ) -> None:
        try:
            _authorize(transport)
            asked = containers.asked(head)
            what, *target = asked.path
            chosen = streams.version(asked.headers)
            if not chosen or (what, len(target)) not in (("exec", 3), ("attach", 3), ("portForward", 2)):
                raise unknown_path()
            running = await self._run(what, target, asked) if what != "portForward" else None
        except ApiError as e:
            await streams.refuse(write, e)
            return

        async def serve(session: Session) -> None:
            if running is None:
                await streams.forward(session, self._access, target[0], target[1])
            else:
                error = asked.flag("tty") or asked.flag("error")
                wanted = 1 + asked.flag("input") + asked.flag("output") + error
                await streams.spdy_exec(session, running, wanted)

        await streams.upgraded(reader, write, chosen, serve)

    async def _run(self, what: str, target: list[str], asked: containers.Asked) -> Running:
        namespace, pod, container = target
        tty, stdin = asked.flag("tty"), asked.flag("input")
        with containers.refusing():
            if what == "attach":
                return await self._access.attach(namespace, pod, container, stdin)
            command = asked.query.get("command", [])
            return await self._access.execute(namespace, pod, container, command, tty, stdin)


def _authorize(transport: asyncio.BaseTransport | None) -> None:
    """Raises ApiError."""
    user = auth.from_certificate(transport.get_extra_info("peercert") if transport else None)
    if user is None or user.name != API_SERVER:
        raise ApiError(401, "Unauthorized", "only the API server may ask a kubelet")
