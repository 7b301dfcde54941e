"""The standard streams of a container, which outlive the node daemon and everybody who attaches to them."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from typing import Any

from lateen.cluster.runtime.logs import Log, Output


class Stdio:
    """Our ends of a container's streams: ``theirs`` are the container's (stdin, stdout, stderr) until it is started.

    ``spec``: ``tty`` for a terminal, else pipes; ``stdin`` keeps the input open from the start, and with ``stdinOnce``
    until the first who has attached to it goes (Kubernetes' container of these names).
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._tty, self._once, self._wanted = bool(spec["tty"]), bool(spec["stdinOnce"]), bool(spec["stdin"])
        self._input = -1
        self._reads: tuple[int, ...] = ()
        self._outputs: list[Output] = []
        if self._tty:
            self._terminal, connection = (end.detach() for end in socket.socketpair())
            self.theirs = (connection, connection, connection)
            return
        (out, their_out), (err, their_err) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        self._reads = (out, err)
        if self._wanted:
            given, self._input = os.pipe2(os.O_CLOEXEC)
        else:
            given = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.theirs = (given, their_out, their_err)
        if spec["uid"] and not spec["nested"]:
            for fd in self.theirs if self._wanted else self.theirs[1:]:
                os.fchown(fd, spec["uid"], -1)  # programs reopen /dev/stdout by its path

    def forked(self) -> None:
        """Close our copies of the container's ends: its process has them, or could not be created."""
        for fd in set(self.theirs):
            os.close(fd)

    def abandon(self) -> None:
        for fd in (*self._reads, self._terminal if self._tty else -1, self._input):
            if fd >= 0:
                os.close(fd)

    def log(self, selector: selectors.BaseSelector, log: Log) -> None:
        """Start reading. The master of the container's terminal has arrived by now."""
        if self._tty:
            with socket.socket(fileno=self._terminal) as peer:
                _, fds, _, _ = socket.recv_fds(peer, 1, 1, socket.MSG_DONTWAIT)
            self._input = os.dup(fds[0])
            os.set_inheritable(self._input, False)
            self._reads = (fds[0],)
        self._outputs = [Output(selector, fd, log) for fd in self._reads]

    def attach(self, out: int, err: int, connection: int, stdin: bool) -> bool:
        """Copy the outputs to ``out`` and ``err`` from now on, and send the terminal or the input over ``connection``;
        the caller keeps its descriptors. Returns whether there was one to send."""
        for output, fd in zip(self._outputs, (out, err), strict=False):
            output.follow(os.dup(fd))
        if self._input < 0 or not (stdin or self._tty):
            return False
        with socket.socket(fileno=os.dup(connection)) as peer:
            socket.send_fds(peer, [b"i"], [self._input])
        if self._once and not self._tty:
            self._shut()  # the input ends together with the client that holds it
        return True

    def exited(self) -> None:
        for output in self._outputs:
            output.drain()
            output.close()  # a process of another container may have got its other end
        self._shut()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            if self._input >= 0:
                os.close(self._input)
        self._input = -1
