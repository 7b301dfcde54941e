"""Our ends of the standard streams of a command in a container, and of a container that somebody is attached to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios

from lateen.cluster.runtime.client import RuntimeClient
from lateen.kit import tasks

LAST_WORDS_S = 0.5
"""Seconds for which output is still copied once a client that stays attached to nothing has closed its input."""


class Streams:
    """``stdin`` and ``terminal`` are -1 if there is none; with a terminal they are the same descriptor.

    Output is read only as fast as the client takes it; beyond that, the other end of the pipe blocks.
    """

    def __init__(self, stdin: int = -1, terminal: int = -1) -> None:
        self._stdin, self._terminal = stdin, terminal
        self.out = asyncio.StreamReader()
        self.err: asyncio.StreamReader | None = None
        self._transports: list[asyncio.ReadTransport] = []
        for fd in {stdin, terminal} - {-1}:
            os.set_blocking(fd, False)

    async def read(self, fd: int) -> asyncio.StreamReader:
        """A reader of a pipe or terminal, which is closed with the others."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: _Reader(reader), os.fdopen(fd, "rb", 0))
        self._transports.append(transport)
        return reader

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._stdin >= 0:
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await asyncio.sleep(0.01)
            except OSError:
                return

    def close_stdin(self) -> None:
        if self._stdin >= 0 and self._stdin != self._terminal:
            os.close(self._stdin)
            self._stdin = -1

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def release(self) -> None:
        for fd in {self._stdin, self._terminal} - {-1}:
            os.close(fd)
        self._stdin = self._terminal = -1
        for transport in self._transports:
            transport.close()


class Command(Streams):
    """A command running in a container; ``done`` is its exit code."""

    def __init__(
        self, runtime: RuntimeClient, key: str, done: asyncio.Future[int], stdin: int = -1, terminal: int = -1
    ) -> None:
        super().__init__(stdin, terminal)
        self._runtime, self._key, self._done = runtime, key, done

    def not_started(self, why: str) -> Command:
        """End this command as one that could not be started."""
        self.err = asyncio.StreamReader()
        self.err.feed_data(f"exec failed: unable to start container process: {why}\n".encode())
        self.err.feed_eof()
        self.out.feed_eof()
        return self

    async def wait(self) -> int:
        try:
            return await self._done
        finally:
            self.release()

    def kill(self) -> None:
        if not self._done.done():
            tasks.spawn(self._runtime.call("kill", id=self._key, signal=9), "kill exec")


class Attachment(Streams):
    """A container that somebody is attached to; ``once``: its input ends with theirs (``stdinOnce``)."""

    def __init__(self, stdin: int, terminal: int, once: bool) -> None:
        super().__init__(stdin, terminal)
        self._once = once
        self._ending: asyncio.TimerHandle | None = None

    def close_stdin(self) -> None:
        """Where the container's own input does not end, the end of the client's is the end of the session, as in
        containerd."""
        attached, stays = self._stdin >= 0, self._once and self._terminal < 0
        super().close_stdin()
        if attached and not stays and self._ending is None:
            self._ending = asyncio.get_running_loop().call_later(LAST_WORDS_S, self.release)

    async def wait(self) -> int:
        """Being attached always succeeds; how the container has ended is in the pod's status."""
        self.release()
        return 0

    def kill(self) -> None:
        self.release()

    def release(self) -> None:
        if self._ending:
            self._ending.cancel()
        super().release()


class _Reader(asyncio.StreamReaderProtocol):
    def connection_lost(self, exc: Exception | None) -> None:
        """The master of a terminal reports EIO once nobody holds the slave any more."""
        super().connection_lost(None if isinstance(exc, OSError) and exc.errno == errno.EIO else exc)


def pipes(stdin: bool) -> tuple[list[int], list[int]]:
    """Our ends and theirs of stdin (-1, and /dev/null, if there is none), stdout and stderr."""
    out, err = os.pipe(), os.pipe()
    if not stdin:
        return [-1, out[0], err[0]], [os.open("/dev/null", os.O_RDONLY), out[1], err[1]]
    given = os.pipe()
    return [given[1], out[0], err[0]], [given[0], out[1], err[1]]


def connection() -> tuple[list[int], list[int]]:
    """Our end and the runtime's of a connection over which a descriptor comes back."""
    ours, theirs = socket.socketpair()
    return [ours.detach()], [theirs.detach()]


def received(ours: int) -> int:
    """The descriptor that the runtime has sent over a ``connection``, which is closed."""
    with socket.socket(fileno=ours) as peer:
        peer.setblocking(False)
        _, fds, _, _ = socket.recv_fds(peer, 1, 1)
    return fds[0]
