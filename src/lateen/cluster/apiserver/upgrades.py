"""Logs, commands in containers and forwarded ports, over HTTP, WebSocket and SPDY/3.1."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lateen.cluster.apiserver import containers, routing, streams
from lateen.cluster.apiserver.access import PodAccess, Running
from lateen.cluster.apiserver.api import Api
from lateen.cluster.apiserver.auth import User
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import ApiError, bad_request, unknown_path
from lateen.cluster.apiserver.figures import Figures
from lateen.kit.jsons import Json
from lateen.kit.later import web
from lateen.kit.spdy import Session

Identify = Callable[[asyncio.BaseTransport | None, list[tuple[str, str]]], User]
"""The user, by the connection and the headers. Raises ApiError."""


class Upgrades:
    def __init__(self, api: Api, access: PodAccess, identify: Identify, figures: Figures) -> None:
        self._api, self._access, self._identify, self._figures = api, access, identify, figures

    async def serve(self, request: web.Request, c: Call) -> web.StreamResponse:
        """log, and over WebSocket exec, attach and portforward. Raises ApiError."""
        await self._api.get(c)
        if c.subresource == "log":
            return await self._log(request, c)
        await self._api.connect(c, _options(c, list(request.query.getall("command", []))))
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise bad_request("Upgrade request required")
        if c.subresource == "portforward":
            offered = request.headers.get("Sec-WebSocket-Protocol", "")
            if streams.TUNNEL in offered:
                return await streams.websocket_forward(request, self._access, c.namespace, c.name)
            if streams.CHANNELS not in offered:
                raise bad_request(f"port-forward over WebSocket speaks {streams.TUNNEL} and {streams.CHANNELS}")
            return await streams.channels_forward(request, self._access, c.namespace, c.name)
        running = await self._run(c, list(request.query.getall("command", [])))
        return await streams.websocket_exec(request, running)

    async def _run(self, c: Call, command: list[str]) -> Running:
        """Start a command, or attach to the container's own. Raises ApiError."""
        if not any(map(c.flag, ("stdin", "stdout", "stderr"))):
            raise bad_request("you must specify at least one of stdin, stdout, stderr")
        container, stdin = c.query.get("container", ""), c.flag("stdin")
        with containers.refusing():
            if c.subresource == "attach":
                return await self._access.attach(c.namespace, c.name, container, stdin)
            if not command:
                raise bad_request("you must specify at least one command for the container")
            return await self._access.execute(c.namespace, c.name, container, command, c.flag("tty"), stdin)

    async def _log(self, request: web.Request, c: Call) -> web.StreamResponse:
        options = containers.log_options(c.query)
        chunks = self._access.logs(c.namespace, c.name, c.query.get("container", ""), options)
        return await containers.log(request, chunks)

    async def spdy(
        self, head: str, transport: asyncio.Transport, reader: asyncio.StreamReader, write: streams.Write
    ) -> None:
        """One upgraded connection; ``head`` is the request's head."""
        began, known = time.perf_counter(), None
        try:
            asked = containers.asked(head)
            command = asked.query.get("command", [])
            user = self._identify(transport, asked.headers)
            if not routing.is_resource(asked.path):
                raise unknown_path()
            c = routing.call(self._api.registry, asked.path, asked.parameters, user)
            routing.authorize(self._api.store, c, "create")
            known = c
            await self._api.get(c)
            chosen = streams.version(asked.headers)
            if c.subresource not in routing.STREAMS or not chosen:
                raise bad_request("this path cannot be upgraded to SPDY/3.1 with these protocol versions")
            await self._api.connect(c, _options(c, command))
            running = await self._run(c, command) if c.subresource != "portforward" else None
        except ApiError as e:
            self._figures.answered(known, "create", e.code, began, 0)
            await streams.refuse(write, e)
            return

        async def serve(session: Session) -> None:
            if running is None:
                await streams.forward(session, self._access, c.namespace, c.name)
            else:
                wanted = 1 + sum(map(c.flag, ("stdin", "stdout"))) + (1 if c.flag("tty") else c.flag("stderr"))
                await streams.spdy_exec(session, running, wanted)

        try:
            with self._figures.running(c, "create"):
                await streams.upgraded(reader, write, chosen, serve)
        finally:
            self._figures.answered(c, "create", 101, began, 0)


def _options(c: Call, command: list[str]) -> Json:
    """PodExecOptions, PodAttachOptions or PodPortForwardOptions: what admission is asked about."""
    kind = dict(c.resource.subresources)[c.subresource]
    out: Json = {"kind": kind, "apiVersion": "v1", "metadata": {}}
    if c.subresource == "portforward":
        return out
    out |= {flag: True for flag in ("stdin", "stdout", "stderr", "tty") if c.flag(flag)}
    out |= {"container": c.query["container"]} if c.query.get("container") else {}
    return out | ({"command": command} if c.subresource == "exec" else {})
