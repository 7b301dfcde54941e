"""The runtime: PID 1 of the node's namespaces.

It forks containers on request, reaps them, keeps their logs and reports their exits; it knows nothing of
Kubernetes. The node daemon (API server, controllers, kubelet) is its child and is started again when it dies, so
pods outlive it. Requests come as JSON datagrams over one socket pair; standard streams of ``exec`` come along as
file descriptors. Programs written in Python that are listed as entries run in the fork itself: they share this
process's memory instead of starting an interpreter.

When the portal (our parent outside) goes away, this process ends, and the kernel ends everything in
the PID namespace with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lateen.cluster.runtime import shim
from lateen.kit import jsons

LOG_LIMIT = 10 * 1024 * 1024
MESSAGE_LIMIT = 256 * 1024


class Container:
    """One forked command; ``log`` is its log file, None for ``exec``."""

    def __init__(self, key: str, pid: int, log: Path | None, started: float) -> None:
        self.key, self.pid, self.log, self.started = key, pid, log, started
        self.code: int | None = None
        self.finished = 0.0
        self.pipe = -1
        self.size = 0

    def state(self) -> dict[str, Any]:
        return {"id": self.key, "pid": self.pid, "code": self.code, "started": self.started, "finished": self.finished}


class Runtime:
    def __init__(
        self, lifeline: int, portal: int, node_argv: list[str], entries: dict[str, Callable[[], None]]
    ) -> None:
        self._lifeline, self._portal, self._node_argv, self._entries = lifeline, portal, node_argv, entries
        self._containers: dict[str, Container] = {}
        self._by_pid: dict[int, Container] = {}
        self._selector = selectors.DefaultSelector()
        self._node: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._node_started = 0.0

    def run(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: self._signal(wake_read))
        self._selector.register(self._lifeline, selectors.EVENT_READ, lambda: os._exit(0))
        gc.freeze()
        self._start_node()
        while True:
            for key, _ in self._selector.select():
                try:
                    key.data()
                except Exception as e:  # noqa: BLE001 - PID 1 outlives any single failure: every pod hangs on it
                    print(f"lateen-runtime: {type(e).__name__}: {e}", file=sys.stderr, flush=True)

    # --- the node daemon -------------------------------------------------------------------------------------

    def _start_node(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            ours.setsockopt(socket.SOL_SOCKET, option, 4 * 1024 * 1024)
            theirs.setsockopt(socket.SOL_SOCKET, option, 4 * 1024 * 1024)
        with theirs:
            self._node = subprocess.Popen(
                [*self._node_argv, str(theirs.fileno()), str(self._portal)],
                pass_fds=(theirs.fileno(), self._portal),
                stdin=subprocess.DEVNULL,
            )
        self._node_started = time.monotonic()
        self._socket = ours
        self._selector.register(ours, selectors.EVENT_READ, self._receive)

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
            if self._node and pid == self._node.pid:
                self._node_died(status)
            elif container := self._by_pid.pop(pid, None):
                container.code = os.waitstatus_to_exitcode(status)
                if container.code < 0:
                    container.code = 128 - container.code
                container.finished = time.time()
                self._drain(container)
                self._send({"event": "exit", **container.state()})
                if container.log is None:
                    self._containers.pop(container.key, None)

    def _node_died(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if code == 0 or (code == 70 and not self._containers):
            os._exit(0)
        print(f"lateen-runtime: the node daemon ended with {code}; starting it again", file=sys.stderr, flush=True)
        self._hang_up()
        if time.monotonic() - self._node_started < 2:
            time.sleep(0.5)
        self._start_node()

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
            answer = {"error": str(e) if e.filename is None else f"{e.strerror}: {e.filename}"}
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
        return {"error": f"unknown operation {request['op']}"}

    def _send(self, message: dict[str, Any]) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # a dead node daemon asks for the list when it is back
            self._socket.send(jsons.dumps(message))

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        spec = request["spec"]
        log = Path(spec["log"])
        log.parent.mkdir(parents=True, exist_ok=True)
        read, write = os.pipe2(os.O_CLOEXEC)
        if spec["uid"]:
            os.fchown(write, spec["uid"], -1)  # /dev/stdout is opened again by its path
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            pid = self._fork(spec, (null, write, write), lambda: self._enter_new(spec))
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
            os.close(null)
        container = Container(request["id"], pid, log, time.time())
        container.pipe = read
        os.set_blocking(read, False)
        container.size = log.stat().st_size if log.exists() else 0
        self._selector.register(read, selectors.EVENT_READ, lambda: self._read_log(container))
        self._containers[request["id"]] = self._by_pid[pid] = container
        return {"pid": pid, "started": container.started}

    def _exec(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        target = self._containers.get(request["in"])
        if target is None or target.code is not None:
            raise OSError(3, "the container is not running")
        spec = request["spec"]
        if spec["uid"]:
            for fd in fds[1:]:
                with contextlib.suppress(OSError):
                    os.fchown(fd, spec["uid"], -1)
        streams = (fds[0], fds[1], fds[2] if len(fds) > 2 else fds[1])
        pid = self._fork(spec, streams, lambda: self._enter_existing(target.pid), spec.get("tty", False))
        container = Container(request["id"], pid, None, time.time())
        self._containers[request["id"]] = self._by_pid[pid] = container
        return {"pid": pid}

    def _fork(
        self, spec: dict[str, Any], streams: tuple[int, int, int], enter: Callable[[], None], tty: bool = False
    ) -> int:
        """Fork twice, as a PID namespace only takes in children; the outer process reports the inner one's id."""
        read, write = os.pipe2(os.O_CLOEXEC)
        outer = os.fork()
        if outer == 0:
            try:
                os.setsid()
                signal.set_wakeup_fd(-1)
                shim.reset_signals()
                enter()
                inner = os.fork()
                if inner != 0:
                    os.write(write, f"{inner}\n".encode())
                    os._exit(0)
                if tty:
                    os.setsid()
                self._inside(spec, streams, write, tty)
            except BaseException as e:  # noqa: BLE001 - reported to the parent, then gone
                with contextlib.suppress(OSError):
                    os.write(write, f"!{e.args[1] if isinstance(e, OSError) and len(e.args) > 1 else e}".encode())
            finally:
                os._exit(127)
        os.close(write)
        answer = b""
        while part := os.read(read, 4096):
            answer += part
        os.close(read)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(outer, 0)
        first, _, rest = answer.partition(b"\n")
        error = first[1:] if first.startswith(b"!") else rest[1:] if rest.startswith(b"!") else b""
        if error:
            if first.isdigit():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(first), 0)
            raise OSError(8, error.decode(errors="replace"))
        return int(first)

    def _inside(self, spec: dict[str, Any], streams: tuple[int, int, int], report: int, tty: bool) -> None:
        if spec.get("root"):
            shim.build_root(spec)
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        if tty:
            import fcntl
            import termios

            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.closerange(3, report)
        os.closerange(report + 1, 4096)
        shim.drop(spec)
        shim.become(spec, self._entries, report)

    @staticmethod
    def _enter_new(spec: dict[str, Any]) -> None:
        shim.setns(spec["netns"], shim.CLONE_NEWNET)
        shim.unshare(shim.CLONE_NEWNS | shim.CLONE_NEWUTS | shim.CLONE_NEWIPC | shim.CLONE_NEWPID)
        socket.sethostname(spec["hostname"])

    @staticmethod
    def _enter_existing(pid: int) -> None:
        fds = [os.open(f"/proc/{pid}/ns/{n}", os.O_RDONLY | os.O_CLOEXEC) for n in ("net", "uts", "ipc", "pid", "mnt")]
        for fd in fds:
            shim._check(shim._libc.setns(fd, 0), "setns")
        os.chdir("/")

    # --- logs ------------------------------------------------------------------------------------------------

    def _read_log(self, container: Container) -> None:
        if container.pipe == -1:
            return  # closed by _drain in the same round of events
        try:
            data = os.read(container.pipe, 262144)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(container.pipe)
            os.close(container.pipe)
            container.pipe = -1
            return
        self._append(container, data)

    def _append(self, container: Container, data: bytes) -> None:
        """Each line gets the time at which it was read; at the limit the file is rotated, one old one is kept."""
        assert container.log is not None
        now = time.time()
        prefix = (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09d}Z ").encode()
        lines = prefix + data.rstrip(b"\n").replace(b"\n", b"\n" + prefix) + b"\n"
        with contextlib.suppress(OSError):  # a full disk loses log lines, never the container
            with open(container.log, "ab") as f:
                f.write(lines)
            container.size += len(lines)
            if container.size > LOG_LIMIT:
                container.log.replace(container.log.with_suffix(".old"))
                container.size = 0

    def _drain(self, container: Container) -> None:
        while container.pipe != -1:
            try:
                data = os.read(container.pipe, 262144)
            except BlockingIOError:
                return
            if not data:
                self._selector.unregister(container.pipe)
                os.close(container.pipe)
                container.pipe = -1
                return
            self._append(container, data)


def main(lifeline: int, portal: int, node_argv: list[str], entries: dict[str, Callable[[], None]]) -> None:
    """``lifeline`` reads the end of the portal; ``portal`` is handed on to the node daemon. Never returns."""
    Runtime(lifeline, portal, node_argv, entries).run()
