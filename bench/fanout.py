"""Simulated delta-ADS proxies over real mutual TLS: one endpoint change, one route change. fanout.py [one|wide] [N]

``one``: 1,000 services in a namespace and N = 200 proxies; ``wide``: 100 namespaces that each have a service of one
name, 1,000 services, N = 2,000 proxies of 200 kinds. istiod's own parts run in a process of their own (the gRPC server,
sessions, views, translation); the clients are in this one. Baseline of the same run: a full push of everything.
istiod's CPU time until all proxies are in sync is what a full push costs, its start included.
The cost of a push is split: the change of the mesh, which all proxies share; what is done for each proxy until its
message has left; its acknowledgement; threads other than the event loop's. ``kernel`` is the operating system's part of
all of them (sockets).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # streams that end with the run are no news

import wide
from envoy.service.discovery.v3 import discovery_pb2
from world import report

SERVICES, PORT = 1000, 25012
TIMES = 5
"""Of each change; the medians are reported."""
CHANGES = (("endpoint", TIMES, 250), ("first route", 1, None), ("route", TIMES, 300))
"""(what, how often, the limit of CPU time per push in us)"""
PROXIES = {"one": 200, "wide": 2000}
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def build() -> Any:
    from lateen.api import kinds
    from lateen.api import objects as o
    from lateen.mesh.objects import Objects
    from lateen.mesh.observability import Reporting
    from lateen.mesh.settings import MeshConfig

    services, pods, slices = {}, {}, {}
    for i in range(SERVICES):
        name, address = f"s{i}", f"10.{i // 250}.{i % 250 + 1}"
        services[("d", name)] = o.Service(
            "d", name, f"10.96.{i // 250}.{i % 250 + 1}", (o.ServicePort("http", 80, 8080, "TCP"),), (("app", name),)
        )
        found = []
        for k in range(2):
            pod = o.Pod(
                "d",
                f"{name}-{k}",
                f"u{i}{k}",
                f"{address}.{k + 1}",
                (("app", name), ("security.istio.io/tlsMode", "istio")),
                "default",
                name,
                (("", 8080, "TCP"),),
                True,
            )
            pods[("d", pod.name)] = pod
            found.append(o.Endpoint(pod.address, 8080, pod.name))
        slices[("d", name)] = (name, {"http": tuple(found)})
    return Objects(
        MeshConfig(reporting=Reporting("/dev/stdout")),
        {kinds.SERVICE.id: services, kinds.ENDPOINT_SLICE.id: slices, kinds.POD.id: pods},
    )


def world(name: str) -> Any:
    """(objects, the service whose endpoint changes, the one whose route changes, pods by the proxy's number)"""
    if name == "one":
        return build(), ("d", "s5"), ("d", "s6"), [("d", f"s{i}-0") for i in range(SERVICES)]
    found = wide.build()
    pods = [(f"n{n}", f"s{i}-0") for i in (2, 3) for n in range(wide.NAMESPACES)]
    return found, ("n5", "redis"), ("n5", "s6"), pods


def policies(number: int) -> dict[Any, Any]:
    """One for each service: all of them change at once."""
    from lateen.api import kinds
    from lateen.api import objects as o
    from lateen.api.config import decode
    from lateen.api.security import AuthorizationPolicy

    out = {}
    for i in range(SERVICES):
        rule = {"from": [{"source": {"principals": [f"cluster.local/ns/d/sa/caller-{number}"]}}]}
        spec = decode(AuthorizationPolicy, {"selector": {"matchLabels": {"app": f"s{i}"}}, "rules": [rule]})
        ref = kinds.AUTHORIZATION_POLICY.ref("d", f"p{i}")
        out["d", f"p{i}"] = o.Resource(ref, f"u{i}", str(number), "2026-01-01T00:00:00Z", spec)
    return out


async def serve(pipe: Any, name: str, ca: Any) -> None:
    from lateen.ads import http2
    from lateen.api import kinds
    from lateen.api import objects as o
    from lateen.api.config import decode
    from lateen.api.networking import VirtualService
    from lateen.ca.authority import Identity
    from lateen.control import serving
    from lateen.control.plane import Control
    from lateen.kit import memory
    from lateen.wire import ports
    from lateen.wire.revision import Revision

    ports.XDS = PORT
    control = Control(None, "istio-system", Revision())  # type: ignore[arg-type]
    control.world.objects, changing, routed, _ = world(name)
    control.sides.advance(control.world.objects)
    certificate = serving.Certificate(ca, ["istiod"], Identity("cluster.local", "istio-system", "istiod"))
    server = await serving.xds(certificate, control.ads.accept)
    memory.settle()
    loop = asyncio.get_running_loop()
    read = reading(http2.Connection)
    pipe.send("ready")
    full = control.world.objects.slices[changing]
    number = 0
    while True:
        order = await loop.run_in_executor(None, pipe.recv)
        if order == "stop":
            await server.stop()
            return
        number += 1
        objects = control.world.objects
        if order == "endpoint":
            service, found = full
            moved = o.Endpoint(f"10.200.0.{number}", 8080, "")
            control.world.objects = objects.put(
                kinds.ENDPOINT_SLICE, changing, (service, {"http": (*found["http"], moved)})
            )
        elif order == "policies":
            control.world.objects = objects.replaced(kinds.AUTHORIZATION_POLICY, policies(number))
        elif order.endswith("route"):
            destination = [{"destination": {"host": "s6"}}]
            spec = decode(VirtualService, {"hosts": ["s6"], "http": [{"timeout": f"{number}s", "route": destination}]})
            ref = kinds.VIRTUAL_SERVICE.ref(*routed)
            made = o.Resource(ref, "u", str(number), "2026-01-01T00:00:00Z", spec)
            control.world.objects = objects.replaced(kinds.VIRTUAL_SERVICE, {routed: made})
        read()
        before, kernel, here = time.process_time(), os.times().system, time.thread_time()
        split = {}
        if order != "usage":
            control.sides.advance(control.world.objects)
            split["mesh"] = time.thread_time() - here
            await control.ads.push()
            await asyncio.sleep(1.0)
            split["acknowledgements"] = read()
            split["push"] = time.thread_time() - here - sum(split.values())
        cpu = time.process_time() - before
        split["threads"] = cpu - sum(split.values())
        split["kernel"] = os.times().system - kernel
        pipe.send((cpu, split, time.process_time(), memory.resident_mb()))


def reading(link: Any) -> Callable[[], float]:
    """How many seconds of CPU time connections have read since the last call."""
    spent, read = [0.0], link.buffer_updated

    def measured(self: Any, size: int) -> None:
        before = time.thread_time()
        read(self, size)
        spent[0] += time.thread_time() - before

    def since() -> float:
        seconds, spent[0] = spent[0], 0.0
        return seconds

    link.buffer_updated = measured
    return since


def server_process(pipe: Any, name: str, ca: Any) -> None:
    asyncio.run(serve(pipe, name, ca))


class Proxy:
    """Subscribes as Envoy does, acknowledges everything, notes bytes and times."""

    def __init__(self, number: int, pod: tuple[str, str], credentials: Any) -> None:
        import grpc.aio  # istiod's process, which begins by importing this module, has no gRPC

        self.number, self.pod, self.bytes = number, pod, 0
        self.first = self.last = 0.0
        """When the last change began to come, and when it was there."""
        options = [
            ("grpc.ssl_target_name_override", "istiod"),
            ("grpc.max_receive_message_length", 64 << 20),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.min_reconnect_backoff_ms", 120_000),  # also how long an attempt to connect may take
            ("grpc.http2.bdp_probe", 0),  # Envoy has wide windows and says rarely that it has read something
            ("grpc.http2.lookahead_bytes", 16 << 20),
        ]
        self.channel = grpc.aio.secure_channel(f"127.0.0.1:{PORT}", credentials, options=options)
        self.asked: set[str] = set()

    async def run(self) -> None:
        from lateen.wire import names

        outbox: asyncio.Queue[discovery_pb2.DeltaDiscoveryRequest] = asyncio.Queue()
        first = discovery_pb2.DeltaDiscoveryRequest(type_url=names.CDS)
        space, name = self.pod
        first.node.id = f"sidecar~10.0.1.{self.number % 250}~{name}.{space}~{space}.svc.cluster.local"
        outbox.put_nowait(first)
        outbox.put_nowait(discovery_pb2.DeltaDiscoveryRequest(type_url=names.LDS))
        outbox.put_nowait(discovery_pb2.DeltaDiscoveryRequest(type_url=names.RDS, resource_names_subscribe=["80"]))
        outbox.put_nowait(discovery_pb2.DeltaDiscoveryRequest(type_url=names.VHDS))

        async def requests() -> AsyncIterator[Any]:
            while True:
                yield await outbox.get()

        call = self.channel.stream_stream(
            METHOD, request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString
        )(requests())
        async for raw in call:
            self.bytes += len(raw)
            now = time.perf_counter()
            if now - self.last > 0.2:
                self.first = now
            self.last = now
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(raw)
            outbox.put_nowait(
                discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
            )
            if response.type_url == names.CDS:
                new = {
                    r.name for r in response.resources if "|" in r.name and r.name.startswith("outbound")
                } - self.asked
                self.asked |= new
                outbox.put_nowait(
                    discovery_pb2.DeltaDiscoveryRequest(type_url=names.EDS, resource_names_subscribe=sorted(new))
                )


async def still(proxies: Any, started: float) -> None:
    """Until every proxy has something and nothing new has come for two seconds."""
    while True:
        await asyncio.sleep(0.5)
        now = time.perf_counter()
        if all(p.bytes for p in proxies) and now - max(p.last for p in proxies) > 2:
            return
        if now - started > 120:
            raise SystemExit("the proxies were not served in 120 s")


async def measure(pipe: Any, name: str, count: int, credentials: Any, orders: Any = ()) -> None:
    loop = asyncio.get_running_loop()
    pods = world(name)[3]
    proxies = [Proxy(i, pods[i % len(pods)], credentials[i % len(credentials)]) for i in range(count)]
    started = time.perf_counter()
    running = [loop.create_task(p.run()) for p in proxies]
    await still(proxies, started)
    full = max(p.bytes for p in proxies)
    pipe.send("usage")
    _, _, synced, rss = await loop.run_in_executor(None, pipe.recv)
    report(
        world=name,
        proxies=count,
        initial_sync_s=round(max(p.last for p in proxies) - started, 2),
        limit_sync_s=None if name == "one" else 30,
        full_configuration_bytes=full,
        istiod_cpu_s=round(synced, 2),
        istiod_rss_mb=rss,
        limit_rss_mb=250 if name == "one" else 1000,
    )
    for order, times, limit in orders or CHANGES:
        firsts, lasts, costs, splits = [], [], [], []
        reached, size, rss = proxies, 0, 0
        for _ in range(times):
            before = [p.bytes for p in proxies]
            started = time.perf_counter()
            pipe.send(order)
            cpu, split, _, rss = await loop.run_in_executor(None, pipe.recv)
            reached = [p for p, b in zip(proxies, before, strict=True) if p.bytes > b]
            size = max(p.bytes - b for p, b in zip(proxies, before, strict=True))
            firsts.append(min(p.first for p in reached if p.first > started) - started)
            lasts.append(max(p.last for p in reached) - started)
            costs.append(cpu)
            splits.append(split)
        report(
            world=name,
            change=order,
            times=times,
            reached=len(reached),
            of=count,
            first_byte_ms=round(statistics.median(firsts) * 1000, 1),
            all_within_ms=round(statistics.median(lasts) * 1000),
            bytes_per_proxy=size,
            ratio_to_full_push=round(size / full, 6),
            cpu_ratio_to_full_push=round(statistics.median(costs) / len(reached) / (synced / count), 5),
            istiod_cpu_us_per_push=round(statistics.median(costs) / len(reached) * 1e6),
            limit_us_per_push=limit,
            of_it={part: round(statistics.median(s[part] for s in splits) / len(reached) * 1e6) for part in splits[0]},
            istiod_rss_mb=rss,
        )
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    pipe.send("stop")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "one"
    if name not in PROXIES:
        sys.exit(f"there is no world {name}; there are: {', '.join(PROXIES)}")
    run(name, int(sys.argv[2]) if len(sys.argv) > 2 else PROXIES[name])


def run(name: str, count: int, orders: Any = ()) -> None:
    import grpc

    from lateen.ca.authority import Authority
    from lateen.kit import certs, times

    ca = Authority.create(times.now(), "cluster.local")
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=server_process, args=(theirs, name, ca))
    child.start()
    theirs.close()  # so that the end of the server is noticed
    try:
        if not ours.poll(120) or ours.recv() != "ready":
            raise SystemExit("the server did not start")
        ids = ["spiffe://cluster.local/ns/d/sa/default"] if name == "one" else []
        ids = ids or [f"spiffe://cluster.local/ns/n{n}/sa/default" for n in range(wide.NAMESPACES)]
        credentials = []
        for identity in ids:
            leaf = certs.issue(ca.state.signer.pair, [identity], times.now(), timedelta(hours=1))
            made = grpc.ssl_channel_credentials(ca.root.encode(), leaf.key.encode(), leaf.certificate.encode())
            credentials.append(made)
        asyncio.run(measure(ours, name, count, credentials, orders))
    finally:
        child.join(10)
        if child.is_alive():
            child.terminate()


if __name__ == "__main__":
    main()
