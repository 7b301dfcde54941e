"""The runtime: PID 1 of the node's namespaces.

It forks containers on request, reaps them, keeps their logs and reports when they exit; it knows nothing of Kubernetes.
The node daemon (API server, controllers, kubelet) is its child and is restarted when it dies, so that pods outlive it.
Requests arrive as JSON datagrams over a socket pair; the standard streams of an ``exec`` are passed as file descriptors
(with a terminal: one socket, over which the terminal's master comes back), and so are those of an ``attach``: a socket
over which the container's input comes back, and two pipes that its outputs are copied to. Python programs that are
registered as entries run in the fork itself and share this process's memory instead of starting an interpreter.

When the portal (the parent outside of the namespaces) goes away, this process exits, and the kernel kills everything
else in the PID namespace.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from lateen.cluster.runtime import forking, shim
from lateen.cluster.runtime.logs import Log
from lateen.cluster.runtime.starting import Node
from lateen.cluster.runtime.stdio import Stdio
from lateen.kit import jsons

MESSAGE_LIMIT = 256 * 1024
"""Bytes in one request or answer."""


class Container:
    """One forked command; ``stdio`` is None for an ``exec``, whose streams belong to the caller. ``beside``: it is not
    the first process of its namespace, with which the kernel would end all others."""

    def __init__(self, key: str, pid: int, stdio: Stdio | None, groups: list[str], beside: bool = False) -> None:
        self.groups = groups
        self._mounts = forking.mounts_of(pid) if beside else -1
        self.key, self.pid, self.stdio, self.started = key, pid, stdio, time.time()
        self.code: int | None = None
        self.finished = 0.0

    def end_rest(self) -> None:
        """Kill the processes that it has started, now that it has ended; as containerd does."""
        if self._mounts >= 0:
            forking.end_all(self._mounts)
            os.close(self._mounts)
            self._mounts = -1

    def state(self) -> dict[str, Any]:
        """``code`` is None while it runs, 128 + n if signal n killed it; times are seconds since the epoch."""
        return {"id": self.key, "pid": self.pid, "code": self.code, "started": self.started, "finished": self.finished}


class Runtime:
    def __init__(self, lifeline: int, start: Callable[[], Node], first: Node) -> None:
        self._lifeline, self._another = lifeline, start
        self._entries: forking.Entries = {}
        self._containers: dict[str, Container] = {}
        self._by_pid: dict[int, Container] = {}
        self._selector = selectors.DefaultSelector()
        self._socket: socket.socket | None = None
        self._node = self._listen_to(first)
        self._node_started = time.monotonic()

    def run(self, prepare: Callable[[], forking.Entries]) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each container needs a pipe
        self._entries = prepare()  # while the node daemon starts; what it asks for waits in the socket
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: self._signal(wake_read))
        self._selector.register(self._lifeline, selectors.EVENT_READ, lambda: os._exit(0))
        gc.freeze()
        self._reap()
        while True:
            for key, _ in self._selector.select():
                try:
                    key.data()
                except Exception as e:  # noqa: BLE001 - PID 1 survives any single failure: every pod depends on it
                    print(f"lateen-runtime: {type(e).__name__}: {e}", file=sys.stderr, flush=True)

    # --- the node daemon -------------------------------------------------------------------------------------

    def _listen_to(self, node: Node) -> subprocess.Popen[bytes]:
        self._socket = node.socket
        self._selector.register(node.socket, selectors.EVENT_READ, self._receive)
        return node.process

    def _hang_up(self) -> None:
        if self._socket:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _signal(self, fd: int) -> None:
        numbers = os.read(fd, 4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            os._exit(0)
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._node.pid:
                self._node_died(status)
            elif container := self._by_pid.pop(pid, None):
                container.code = os.waitstatus_to_exitcode(status)
                if container.code < 0:
                    container.code = 128 - container.code
                container.finished = time.time()
                container.end_rest()
                if container.stdio:
                    container.stdio.exited()
                self._send({"event": "exit", **container.state()})
                if container.stdio is None:
                    self._containers.pop(container.key, None)

    def _node_died(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if code == 0 or (code == 70 and not self._containers):
            os._exit(0)
        print(f"lateen-runtime: the node daemon exited with code {code}; restarting it", file=sys.stderr, flush=True)
        self._hang_up()
        if time.monotonic() - self._node_started < 2:
            time.sleep(0.5)
        self._node = self._listen_to(self._another())
        self._node_started = time.monotonic()

    # --- requests --------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            raw, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_LIMIT, 4, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            raw, fds = b"", []
        if not raw:
            self._hang_up()
            return
        request = jsons.loads(raw)
        try:
            answer = self._do(request, fds)
        except OSError as e:
            text = e.strerror or str(e)
            text = text if e.filename is None else f"{text}: {e.filename}"
            answer = {"error": text, "errno": e.errno or 0, "notStarted": isinstance(e, shim.NotStarted)}
        finally:
            for fd in fds:
                os.close(fd)
        self._send({"reply": request["n"], **answer})

    def _do(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        match request["op"]:
            case "start":
                return self._start(request)
            case "exec":
                return self._exec(request, fds)
            case "attach":
                target = self._target(request)
                assert target.stdio is not None
                connection, out, err = fds
                return {"input": target.stdio.attach(out, err, connection, request["stdin"])}
            case "kill":
                container = self._containers.get(request["id"])
                if container and container.code is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(container.pid, request["signal"])
                return {}
            case "list":
                return {"containers": [c.state() for c in self._containers.values()]}
            case "forget":
                gone = self._containers.get(request["id"])
                if gone and gone.code is not None:
                    del self._containers[request["id"]]
                return {}
        return {"error": f"unknown operation {request['op']}", "errno": 0, "notStarted": False}

    def _send(self, message: dict[str, Any]) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # a node daemon that died asks for the list once it is back
            self._socket.send(jsons.dumps(message))

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        spec = request["spec"]
        beside = self._target({"in": spec["beside"]}).pid if spec.get("beside") else 0
        stdio = Stdio(spec)
        try:
            pid = forking.fork(
                spec, stdio.theirs, lambda: forking.enter_new(spec, beside), self._entries, spec["cgroups"]
            )
        except OSError:
            stdio.abandon()
            raise
        finally:
            stdio.forked()
        container = Container(request["id"], pid, stdio, spec["cgroups"], bool(beside))
        self._containers[request["id"]] = self._by_pid[pid] = container
        stdio.log(self._selector, Log(spec["directory"], spec["log"]))
        return {"pid": pid, "started": container.started}

    def _target(self, request: dict[str, Any]) -> Container:
        target = self._containers.get(request["in"])
        if target is None or target.code is not None or target.stdio is None:
            raise OSError(3, "the container is not running")
        return target

    def _exec(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        target = self._target(request)
        spec = request["spec"]
        if spec["uid"] and not spec["nested"]:
            for fd in fds[1:]:
                with contextlib.suppress(OSError):
                    os.fchown(fd, spec["uid"], -1)
        streams = (fds[0], fds[min(1, len(fds) - 1)], fds[-1])
        users = os.open(f"/proc/{target.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC) if spec["nested"] else -1
        try:
            pid = forking.fork(
                spec, streams, lambda: forking.enter_existing(target.pid), self._entries, target.groups, users
            )
        finally:
            if users >= 0:
                os.close(users)
        container = Container(request["id"], pid, None, target.groups)
        self._containers[request["id"]] = self._by_pid[pid] = container
        return {"pid": pid}


def main(lifeline: int, start: Callable[[], Node], first: Node, prepare: Callable[[], forking.Entries]) -> None:
    """Run the runtime; never returns.

    ``lifeline`` is a descriptor that becomes readable when the portal exits; ``first`` is the node daemon, and
    ``start`` starts another one when it has died; ``prepare`` loads the programs that containers run as forks of this
    process.
    """
    Runtime(lifeline, start, first).run(prepare)
