"""The embedded API server: start of an empty cluster, requests a second, a long list, a watched change, 200 pods.

The client speaks HTTP/1.1 over TLS on 16 connections, in a process of its own. Limits: start 1 s; 5,000 gets and 1,000
creations a second; a list of 1,800 objects in 15 ms; a change at 100 watchers after 20 ms; 200 pods without sidecars
Ready in 10 s with 1 MB of ours each. Where LATEEN_BENCH_KUBECONFIG names another API server's kubeconfig (with a client
certificate or a token), the same requests go there in the same run, and the ratios are printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from pods import descendants, memory
from world import cluster, lateen, report

from lateen.kit import tasks
from lateen.kube.kubeconfig import from_file

CONNECTIONS, SECONDS, OBJECTS, WATCHERS, PODS = 16, 3.0, 1800, 100, 200
LIMITS = {"get_per_s": 5000, "create_per_s": 1000, "list_ms": 15, "watch_ms": 20}
PLACE = "/api/v1/namespaces/default/configmaps"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"labels": {"app": "bench"}, "annotations": {"sidecar.istio.io/inject": "false"}},
    "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "sleep", "image": "lateen/sleep"}]},
}


class Server:
    """An API server, with what a client needs to be let in."""

    def __init__(self, kubeconfig: str) -> None:
        found = from_file(Path(kubeconfig))
        self.host, self.port = str(found.url.host), found.url.port
        self.context, self.auth = found.context, found.auth
        self.headers: dict[str, str] = {}

    async def connect(self) -> Connection:
        self.headers = self.headers or dict(await self.auth.headers())
        return Connection(self, *await asyncio.open_connection(self.host, self.port, ssl=self.context))


class Connection:
    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer

    async def send(self, method: str, path: str, body: object = None) -> bytes:
        """The answer's body. Raises RuntimeError where it is none of the 200s."""
        self.ask(method, path, body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            out = b"".join([c async for c in self.chunks()])
        else:
            out = await self.reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        if head.split()[1][:1] != b"2":
            raise RuntimeError(f"{method} {path}: {out[:300]!r}")
        return out

    def ask(self, method: str, path: str, body: object = None) -> None:
        raw = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: api", f"Content-Length: {len(raw)}", "Accept: application/json"]
        lines += ["Content-Type: application/json"] if raw else []
        lines += [f"{k}: {v}" for k, v in self.server.headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + raw)

    async def chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)


def config_map(name: str, value: str = "x") -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value * 100}}


async def rate(server: Server, request: Callable[[Connection, int], Awaitable[bytes]]) -> float:
    """Requests a second; ``request`` gets a connection and a number that grows."""
    numbers, deadline = iter(range(10**9)), time.perf_counter() + SECONDS

    async def work() -> int:
        connection, done = await server.connect(), 0
        while time.perf_counter() < deadline:
            await request(connection, next(numbers))
            done += 1
        connection.writer.close()
        return done

    begun = time.perf_counter()
    return sum(await asyncio.gather(*(work() for _ in range(CONNECTIONS)))) / (time.perf_counter() - begun)


async def watched(server: Server, one: Connection) -> float:
    """Milliseconds from a change until the last of the watchers has it, the median of ten changes."""
    found = [await server.connect() for _ in range(WATCHERS)]
    seen: list[asyncio.Event] = [asyncio.Event() for _ in found]

    async def watch(connection: Connection, event: asyncio.Event) -> None:
        connection.ask("GET", f"{PLACE}?watch=true&fieldSelector=metadata.name=watched&timeoutSeconds=60")
        await connection.reader.readuntil(b"\r\n\r\n")
        async for _ in connection.chunks():
            event.set()

    await one.send("POST", PLACE, config_map("watched"))
    running = [tasks.spawn(watch(c, e), "watcher") for c, e in zip(found, seen, strict=True)]
    await asyncio.gather(*(e.wait() for e in seen))  # the first event is that it is there
    took = []
    for i in range(10):
        for event in seen:
            event.clear()
        begun = time.perf_counter()
        await one.send("PUT", f"{PLACE}/watched", config_map("watched", str(i)))
        await asyncio.gather(*(e.wait() for e in seen))
        took.append((time.perf_counter() - begun) * 1000)
    for task in running:
        task.cancel()
    for connection in found:
        connection.writer.close()
    return statistics.median(took)


async def figures(kubeconfig: str) -> dict[str, float]:
    server = Server(kubeconfig)
    one = await server.connect()
    await one.send("POST", PLACE, config_map("one"))
    gets = await rate(server, lambda c, _: c.send("GET", f"{PLACE}/one"))
    creations = await rate(server, lambda c, i: c.send("POST", PLACE, config_map(f"bench-{i}")))
    await one.send("DELETE", PLACE)
    for i in range(OBJECTS):
        await one.send("POST", PLACE, config_map(f"listed-{i}"))
    took = []
    for _ in range(10):
        begun = time.perf_counter()
        await one.send("GET", PLACE)
        took.append((time.perf_counter() - begun) * 1000)
    out = {"get_per_s": gets, "create_per_s": creations, "list_ms": statistics.median(took)}
    out["watch_ms"] = await watched(server, one)
    await one.send("DELETE", PLACE)
    return {k: round(v, 1) for k, v in out.items()}


def client(kubeconfig: str) -> dict[str, float]:
    """The figures, by a process of the client's own."""
    done = subprocess.run([sys.executable, __file__, kubeconfig], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return dict(json.loads(done.stdout))


async def until_all(server: Server, done: Callable[[dict[str, Any]], bool], act: list[str], text: str = "") -> float:
    """The seconds from the start of a kubectl command until one watch has seen ``done`` of every pod."""
    watcher, left = await server.connect(), {f"bench-{i}" for i in range(PODS)}
    watcher.ask("GET", "/api/v1/namespaces/default/pods?watch=true&labelSelector=app%3Dbench&timeoutSeconds=300")
    await watcher.reader.readuntil(b"\r\n\r\n")
    begun = time.perf_counter()
    kubectl = await asyncio.create_subprocess_exec(
        "kubectl", *act, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    sending = tasks.spawn(kubectl.communicate(text.encode()), "kubectl")
    async for chunk in watcher.chunks():
        for line in chunk.splitlines():
            event = json.loads(line)
            if done(event):
                left.discard(event["object"]["metadata"]["name"])
        if not left:
            break
    took = time.perf_counter() - begun
    await sending
    if kubectl.returncode:
        sys.exit(f"kubectl {act}: {kubectl.returncode}")
    watcher.writer.close()
    return took


def is_ready(event: dict[str, Any]) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in event["object"]["status"].get("conditions") or []
    )


def cpu(pid: int) -> float:
    """Seconds of a process's own."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pods(environment: dict[str, str]) -> None:
    """The seconds until all are Ready (their program is ``sleep``, which needs next to nothing itself), and until all
    are gone; what a pod needs of ours: its agent's memory above the runtime's, and the node daemon's CPU time."""
    items = [POD | {"metadata": POD["metadata"] | {"name": f"bench-{i}"}} for i in range(PODS)]  # type: ignore[operator]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    server = Server(environment["KUBECONFIG"])
    portal = int((Path(environment["LATEEN_HOME"]) / "cluster.pid").read_text().split()[0])
    node = next(p for p in descendants(portal) if b"lateen.cluster.node" in Path(f"/proc/{p}/cmdline").read_bytes())
    before = cpu(node)
    took = asyncio.run(until_all(server, is_ready, ["create", "-f", "-"], text))
    used = cpu(node) - before
    ours = [p for p in descendants(portal) if b"lateen" in Path(f"/proc/{p}/cmdline").read_bytes()]
    pss = sum(memory(Path(f"/proc/{p}"))[1] for p in ours)
    report(
        pods=PODS,
        ready_s=round(took, 1),
        node_cpu_ms_each=round(used / PODS * 1000, 1),
        ours_mb_each=round(pss / PODS, 2),
        limit_s=10,
        limit_mb=1,
    )
    act = ["delete", "pods", "-l", "app=bench", "--wait=false"]
    report(pods=PODS, gone_s=round(asyncio.run(until_all(server, lambda e: e["type"] == "DELETED", act)), 1))


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(figures(sys.argv[1]))))
        return
    with cluster(demo=False) as environment:
        lateen(environment, "cluster", "stop")
        begun = time.perf_counter()
        lateen(environment, "cluster", "start")
        report(empty_cluster_s=round(time.perf_counter() - begun, 2), limit_s=1)
        found = client(environment["KUBECONFIG"])
        report(server="embedded", **found, limits=LIMITS)
        if other := os.environ.get("LATEEN_BENCH_KUBECONFIG"):
            there = client(other)
            report(server=other, **there)
            report(ratio={k: round(found[k] / there[k], 3) for k in found})
        pods(environment)


if __name__ == "__main__":
    main()
