"""The kubelet's end of the runtime's socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from lateen.kit import jsons
from lateen.kit.jsons import Json

MESSAGE_LIMIT = 256 * 1024


class ContainerError(OSError):
    """The runtime could not carry out a request; the message says why."""


class NotStarted(ContainerError):
    """The command cannot be run: it, its interpreter or its directory is missing, or it is not executable."""


class RuntimeClient:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._n = 0
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self.on_exit: dict[str, Callable[[Json], None]] = {}
        sock.setblocking(False)

    def start_reading(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        try:
            raw = self._socket.recv(MESSAGE_LIMIT)
        except BlockingIOError:
            return
        if not raw:
            raise SystemExit("the runtime has exited")
        message = jsons.loads(raw)
        if "reply" in message:
            future = self._waiting.pop(message["reply"], None)
            if future and not future.done():
                if "error" in message:
                    kind = NotStarted if message["notStarted"] else ContainerError
                    future.set_exception(kind(message["errno"], message["error"]))
                else:
                    future.set_result(message)
        elif (handler := self.on_exit.pop(message["id"], None)) is not None:
            handler(message)

    async def call(self, op: str, fds: list[int] | None = None, **arguments: Any) -> Json:
        """Raises ContainerError."""
        self._n += 1
        n = self._n
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[n] = future
        raw = jsons.dumps({"n": n, "op": op, **arguments})
        if len(raw) > MESSAGE_LIMIT:
            raise ContainerError(7, "the container's specification is too large (environment or arguments)")
        socket.send_fds(self._socket, [raw], fds or [])
        async with asyncio.timeout(60):
            return await future
