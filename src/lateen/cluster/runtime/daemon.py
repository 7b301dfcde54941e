"""The runtime: PID 1 of the node's namespaces.

It forks containers on request, reaps them, keeps their logs and reports their exits; it knows nothing of
Kubernetes. The node daemon (API server, controllers, kubelet) is its child and is started again when it dies, so
pods outlive it. Requests come as JSON datagrams over one socket pair; standard streams of ``exec`` come along as
file descriptors (with a terminal: one socket, over which the terminal's own descriptor goes back). Programs written
in Python that are listed as entries run in the fork itself: they share this process's memory instead of starting an
interpreter.

When the portal (our parent outside) goes away, this process ends, and the kernel ends everything in
the PID namespace with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

from lateen.cluster.runtime import kernel, privileges, root, shim
from lateen.kit import beneath, jsons

LOG_LIMIT = 10 * 1024 * 1024
MESSAGE_LIMIT = 256 * 1024
TIOCSPTLCK, TIOCGPTPEER = 0x40045431, 0x5441
"""Unlock a terminal's other side, and open it without a path (asm-generic/ioctls.h)."""


class Container:
    """One forked command; ``log`` is its log: a trusted directory and a path below it. None for ``exec``."""

    def __init__(self, key: str, pid: int, log: tuple[str, str] | None) -> None:
        self.key, self.pid, self.log, self.started = key, pid, log, time.time()
        self.code: int | None = None
        self.finished = 0.0
        self.pipe = -1

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
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a pipe for each container
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
        with contextlib.suppress(OSError):  # a dead node daemon asks for the list when it is back
            self._socket.send(jsons.dumps(message))

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        spec = request["spec"]
        read, write = os.pipe2(os.O_CLOEXEC)
        if spec["uid"] and not spec["nested"]:
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
        container = Container(request["id"], pid, (spec["directory"], spec["log"]))
        container.pipe = read
        os.set_blocking(read, False)
        self._selector.register(read, selectors.EVENT_READ, lambda: self._read_log(container))
        self._containers[request["id"]] = self._by_pid[pid] = container
        return {"pid": pid, "started": container.started}

    def _exec(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        target = self._containers.get(request["in"])
        if target is None or target.code is not None:
            raise OSError(3, "the container is not running")
        spec = request["spec"]
        if spec["uid"] and not spec["nested"]:
            for fd in fds[1:]:
                with contextlib.suppress(OSError):
                    os.fchown(fd, spec["uid"], -1)
        streams = (fds[0], fds[min(1, len(fds) - 1)], fds[-1])
        users = os.open(f"/proc/{target.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC) if spec["nested"] else -1
        try:
            pid = self._fork(spec, streams, lambda: self._enter_existing(target.pid), users)
        finally:
            if users >= 0:
                os.close(users)
        container = Container(request["id"], pid, None)
        self._containers[request["id"]] = self._by_pid[pid] = container
        return {"pid": pid}

    def _fork(
        self, spec: dict[str, Any], streams: tuple[int, int, int], enter: Callable[[], None], users: int = -1
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
                self._inside(spec, streams, write, users)
            except BaseException as e:  # noqa: BLE001 - reported to the parent, then gone
                number = e.errno or 0 if isinstance(e, OSError) else 0
                text = e.args[1] if isinstance(e, OSError) and len(e.args) > 1 else str(e) or type(e).__name__
                if isinstance(e, OSError) and e.filename:
                    text = f"{text}: {e.filename}"
                kind = "command" if isinstance(e, shim.NotStarted) else "container"
                with contextlib.suppress(OSError):
                    os.write(write, f"!{kind} {number} {text}"[:4000].encode())
            finally:
                os._exit(127)
        os.close(write)
        answer = b""
        while part := os.read(read, 4096):
            answer += part
        os.close(read)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(outer, 0)
        pid, bang, error = answer.partition(b"!")
        if bang or not pid.strip().isdigit():
            if pid.strip().isdigit():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(pid), 0)
            kind, code, says = [*error.decode(errors="replace").split(" ", 2), "0", ""][:3]
            failure = shim.NotStarted if kind == "command" else OSError
            raise failure(int(code) if code.isdigit() else 0, says or "the container could not be forked")
        return int(pid)

    def _inside(self, spec: dict[str, Any], streams: tuple[int, int, int], report: int, users: int) -> None:
        if spec["build"]:
            root.build(spec)
        if spec.get("tty"):
            streams = self._terminal(streams[0], spec["uid"] if not spec["nested"] else 0)
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        if spec.get("tty"):
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        keep = sorted(fd for fd in (report, users) if fd >= 0)
        for first, last in zip([2, *keep], [*keep, 1 << 20], strict=True):
            os.closerange(first + 1, last)
        privileges.apply(spec, users)
        if users >= 0:
            os.close(users)
        shim.become(spec, self._entries, report)

    @staticmethod
    def _terminal(connection: int, uid: int) -> tuple[int, int, int]:
        """A terminal of the container's own /dev/pts, so that its name is known in there; the other side of
        ``connection`` gets the master."""
        master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.major(os.fstat(master).st_rdev) != 5:
            raise OSError(0, "/dev/pts/ptmx is no terminal device")  # a container may have put something else there
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        with contextlib.suppress(OSError):
            os.fchown(slave, uid, -1)
        with socket.socket(fileno=os.dup(connection)) as peer:
            socket.send_fds(peer, [b"t"], [master])
        return slave, slave, slave

    @staticmethod
    def _enter_new(spec: dict[str, Any]) -> None:
        kernel.enter_network(spec["netns"])
        for name, value in spec["sysctls"].items():
            with open(f"/proc/sys/{name}", "w") as f:
                f.write(value)
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID)
        socket.sethostname(spec["hostname"])

    @staticmethod
    def _enter_existing(pid: int) -> None:
        fds = [os.open(f"/proc/{pid}/ns/{n}", os.O_RDONLY | os.O_CLOEXEC) for n in ("net", "uts", "ipc", "pid", "mnt")]
        # Root in the container shall not reach this process by its /proc, for as long as it is the runtime's program.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        for fd in fds:
            kernel.setns(fd)
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
        directory, path = container.log
        *above, name = beneath.parts(path)
        with (
            contextlib.suppress(OSError),  # a full disk loses log lines, never the container
            beneath.Directory.open(directory) as pod,
            pod.walk(above, make=True) as logs,
        ):
            fd = logs.open_file(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            with open(fd, "ab") as f:
                f.write(lines)
                size = f.tell()
            if size > LOG_LIMIT:
                old = name.removesuffix(".log") + ".old"
                os.rename(name, old, src_dir_fd=logs.fd, dst_dir_fd=logs.fd)

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
