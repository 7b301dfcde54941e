"""Logs, exec and connections for the API server, whose protocol this implements."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from lateen.cluster import kernel
from lateen.cluster.kubelet import commands, recipe, streams, usage
from lateen.cluster.kubelet.container import Container, Running, Waiting
from lateen.cluster.kubelet.kubelet import Kubelet
from lateen.cluster.kubelet.pod import Pod
from lateen.cluster.network import links
from lateen.cluster.runtime.client import NotStarted

T = TypeVar("T")
EXIT_CODES = {errno.ENOENT: 127, errno.ENOTDIR: 127}
"""Exit code of a command that could not be run, by errno, as shells have it; 126 otherwise."""


class Options(Protocol):
    """The log options of the Kubernetes API."""

    @property
    def follow(self) -> bool: ...
    @property
    def tail(self) -> int | None: ...
    @property
    def since(self) -> float | None: ...
    @property
    def timestamps(self) -> bool: ...
    @property
    def previous(self) -> bool: ...
    @property
    def limit(self) -> int | None: ...


def _socket_in(netns: str) -> socket.socket:
    """A socket in another network namespace; the calling thread stays in that namespace for good."""
    kernel.enter_network(netns)
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


async def in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread of its own, which exits afterwards."""
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


class Access:
    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet
        self._meter = usage.Meter()

    def _pod(self, namespace: str, name: str) -> Pod:
        found = next((p for p in self._kubelet.pods.values() if p.key == (namespace, name)), None)
        if found is None:
            raise LookupError(f'pod "{name}" does not run on this node')
        return found

    def _container(self, namespace: str, name: str, container: str) -> tuple[Pod, Container]:
        pod = self._pod(namespace, name)
        if not container:
            annotations = pod.sandbox.pod["metadata"].get("annotations") or {}
            container = annotations.get("kubectl.kubernetes.io/default-container") or pod.main[0].name
        found = pod.container(container)
        if found is None:
            names = " ".join(c.name for c in [*pod.main, *pod.init])
            raise LookupError(f'container "{container}" is not valid for pod {name}; it has: {names}')
        return pod, found

    async def connect(self, namespace: str, pod: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port on the pod's loopback interface, as kubelets do, or on its address if only that is
        bound."""
        found = self._pod(namespace, pod)
        async with asyncio.timeout(10):
            inside = await in_thread(lambda: _socket_in(links.path(found.uid)))
            try:
                await asyncio.get_running_loop().sock_connect(inside, ("127.0.0.1", port))
                return await asyncio.open_connection(sock=inside)
            except OSError:
                inside.close()
            return await asyncio.open_connection(found.sandbox.address, port)

    async def execute(
        self, namespace: str, pod: str, container: str, command: list[str], tty: bool, stdin: bool
    ) -> streams.Command:
        worker, found = self._container(namespace, pod, container)
        if found.running is None:
            raise LookupError(f'container "{found.name}" of pod "{pod}" is not running')
        spec = {**await recipe.of_command(worker.sandbox, found, command), "tty": tty}
        if tty:
            spec["env"] = {"TERM": "xterm", **spec["env"]}
        node = self._kubelet.node
        key = f"exec/{worker.uid}/{node.next_exec()}"
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        node.runtime.on_exit[key] = lambda m: commands.finish(done, m)
        ours, theirs = streams.connection() if tty else streams.pipes(stdin)
        try:
            await node.runtime.call("exec", theirs, **{"in": found.running.id, "id": key, "spec": spec})
            if tty:
                ours = [streams.received(ours[0])] * 2
        except OSError as e:
            node.runtime.on_exit.pop(key, None)
            for fd in set(ours) - {-1}:
                os.close(fd)
            if isinstance(e, NotStarted):
                done.set_result(EXIT_CODES.get(e.errno or 0, 126))
                return streams.Command(node.runtime, key, done).not_started(str(e.strerror))
            raise
        finally:
            for fd in set(theirs):
                os.close(fd)
        running = streams.Command(node.runtime, key, done, ours[0], ours[0] if tty else -1)
        running.out = await running.read(os.dup(ours[1]) if tty else ours[1])
        if not tty:
            running.err = await running.read(ours[2])
        return running

    async def attach(self, namespace: str, pod: str, container: str, stdin: bool) -> streams.Attachment:
        _, found = self._container(namespace, pod, container)
        if found.running is None:
            raise LookupError(f"container {found.name} not found in pod {pod}_{namespace}")
        node, tty = self._kubelet.node, bool(found.spec.get("tty"))
        stdin = stdin and bool(found.spec.get("stdin"))
        (ours,), (theirs,) = streams.connection()
        (_, out, err), (null, their_out, their_err) = streams.pipes(stdin=False)
        given = -1
        try:
            answer = await node.runtime.call(
                "attach", [theirs, their_out, their_err], **{"in": found.running.id, "stdin": stdin}
            )
            if answer["input"]:
                given, ours = streams.received(ours), -1
        except OSError:
            os.close(out)
            os.close(err)
            raise
        finally:
            for fd in {theirs, null, their_out, their_err, ours} - {-1}:
                os.close(fd)
        once = bool(found.spec.get("stdinOnce"))
        running = streams.Attachment(given if stdin else -1, given if tty else -1, once)
        running.out = await running.read(out)
        running.err = await running.read(err)
        return running

    async def usage(self) -> usage.Measured:
        """What the running containers and the machine use. Raises OSError."""
        listed = (await self._kubelet.node.runtime.call("list"))["containers"]
        pids = {str(c["id"]): int(c["pid"]) for c in listed if c["code"] is None}
        running = {
            (pod.key, c.name): pids[c.running.id]
            for pod in self._kubelet.pods.values()
            for c in [*pod.main, *pod.init]
            if c.running and c.running.id in pids
        }
        used, window = await self._meter.read(sorted(running.values()))
        containers: dict[tuple[str, str], dict[str, tuple[float, int]]] = {}
        seconds: dict[tuple[str, str], dict[str, float]] = {}
        for (pod_key, name), pid in running.items():
            if pid in used:
                containers.setdefault(pod_key, {})[name] = (used[pid].cpu, used[pid].memory)
                seconds.setdefault(pod_key, {})[name] = used[pid].seconds
        return usage.Measured((used[0].cpu, used[0].memory), containers, window, used[0].seconds, seconds)

    async def logs(self, namespace: str, pod: str, container: str, options: Options) -> AsyncGenerator[bytes]:
        worker, found = self._container(namespace, pod, container)
        attempt = _attempt(found, pod, options.previous)
        path = worker.sandbox.directory / "logs" / found.name / f"{attempt}.log"
        yield b""
        left = options.limit if options.limit is not None else 1 << 62
        async for chunk in _read(path, options, lambda: bool(found.running) and found.attempt == attempt):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return


def _attempt(c: Container, pod: str, previous: bool) -> int:
    """Which run's log is meant, decided as in Kubernetes: the current one, or the last one while the container
    waits."""
    now = c.state.id if not isinstance(c.state, Waiting) else ""
    last = c.last.id if c.last else ""
    if previous and not last:
        raise LookupError(f'previous terminated container "{c.name}" in pod "{pod}" not found')
    chosen = last if previous else now or last
    if not chosen:
        why = c.state.reason if not isinstance(c.state, Running) else ""
        says = getattr(c.state, "message", "")
        raise LookupError(f'container "{c.name}" in pod "{pod}" is waiting to start: {says or why}')
    return int(chosen.rpartition("/")[2])


def _wanted(line: bytes, earliest: float) -> bool:
    if not earliest:
        return True
    try:
        return datetime.fromisoformat(line[:26].decode() + "+00:00").timestamp() >= earliest
    except ValueError:
        return True


async def _read(path: Path, options: Options, alive: object) -> AsyncGenerator[bytes]:
    """The lines of one log, including its rotated file; with ``follow`` until the container exits, and something empty
    while it is quiet."""
    earliest = time.time() - options.since if options.since else 0.0
    lines: deque[bytes] | list[bytes] = deque(maxlen=options.tail) if options.tail is not None else []
    for part in (path.with_suffix(".old"), path):
        if part.exists():
            with part.open("rb") as f:
                lines.extend(line for line in f if _wanted(line, earliest))

    def text(line: bytes) -> bytes:
        return line if options.timestamps else line.partition(b" ")[2]

    if lines:
        yield b"".join(text(line) for line in lines)
    if not options.follow:
        return
    position = path.stat().st_size if path.exists() else 0
    assert callable(alive)
    while True:
        running = alive()
        size = path.stat().st_size if path.exists() else 0
        if size < position:
            position = 0
        if size > position:
            with path.open("rb") as f:
                f.seek(position)
                data = f.read(262144)
            data = data[: data.rfind(b"\n") + 1]
            position += len(data)
            if data:
                yield b"".join(text(line) for line in data.splitlines(keepends=True))
                continue
        if not running:
            return
        yield b""
        await asyncio.sleep(0.1)
