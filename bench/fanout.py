"""1,000 services, 200 simulated delta-ADS proxies over real mutual TLS: one endpoint change, one route change.

istiod's own parts run in a process of their own (the gRPC server, sessions, views, translation); the clients are in
this one. Baseline of the same run: what a full push of everything would cost each proxy.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import time
from datetime import timedelta

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # streams that end with the run are no news

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2
from world import report

SERVICES, PROXIES, PORT = 1000, 200, 25012
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def build():  # type: ignore[no-untyped-def]
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


async def serve(pipe, ca, pair) -> None:  # type: ignore[no-untyped-def]
    from lateen.api import kinds
    from lateen.api import objects as o
    from lateen.api.config import decode
    from lateen.api.networking import VirtualService
    from lateen.control.app import xds_server
    from lateen.control.plane import Control
    from lateen.mesh.model import Mesh
    from lateen.mesh.views import Views
    from lateen.wire import ports

    ports.XDS = PORT
    control = Control(None, "istio-system")  # type: ignore[arg-type]
    control.world.objects = build()
    control.views = Views(Mesh(control.world.objects))
    server, _ = await xds_server(control, ca, pair)
    loop = asyncio.get_running_loop()
    pipe.send("ready")
    while True:
        order = await loop.run_in_executor(None, pipe.recv)
        if order == "stop":
            await server.stop(0)
            return
        objects = control.world.objects
        if order == "endpoint":
            name, found = objects.slices[("d", "s5")]
            control.world.objects = objects.put(kinds.ENDPOINT_SLICE, ("d", "s5"), (name, {"http": found["http"][:1]}))
        elif order == "route":
            spec = decode(
                VirtualService,
                {"hosts": ["s6"], "http": [{"timeout": "3s", "route": [{"destination": {"host": "s6"}}]}]},
            )
            made = o.Resource(kinds.VIRTUAL_SERVICE.ref("d", "s6"), "u", "1", "2026-01-01T00:00:00Z", spec)
            control.world.objects = objects.replaced(kinds.VIRTUAL_SERVICE, {("d", "s6"): made})
        before = resource.getrusage(resource.RUSAGE_SELF)
        if order != "usage":
            control.views.advance(control.world.objects)
            await control.ads.push()
            await asyncio.sleep(1.0)
        after = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/statm") as f:  # noqa: ASYNC230 - procfs never blocks
            rss = int(f.read().split()[1]) * 4 // 1024
        pipe.send(
            (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_utime + after.ru_stime, rss)
        )


def server_process(pipe, ca, pair) -> None:  # type: ignore[no-untyped-def]
    asyncio.run(serve(pipe, ca, pair))


class Proxy:
    """Subscribes as Envoy does, acknowledges everything, notes bytes and times."""

    def __init__(self, number: int, credentials: grpc.ChannelCredentials) -> None:
        self.number, self.bytes, self.last = number, 0, 0.0
        options = [
            ("grpc.ssl_target_name_override", "istiod"),
            ("grpc.max_receive_message_length", 64 << 20),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self.channel = grpc.aio.secure_channel(f"127.0.0.1:{PORT}", credentials, options=options)
        self.asked: set[str] = set()

    async def run(self) -> None:
        from lateen.wire import names

        outbox: asyncio.Queue[discovery_pb2.DeltaDiscoveryRequest] = asyncio.Queue()
        first = discovery_pb2.DeltaDiscoveryRequest(type_url=names.CDS)
        first.node.id = f"sidecar~10.0.1.1~s{self.number}-0.d~d.svc.cluster.local"
        outbox.put_nowait(first)
        outbox.put_nowait(discovery_pb2.DeltaDiscoveryRequest(type_url=names.LDS))
        outbox.put_nowait(discovery_pb2.DeltaDiscoveryRequest(type_url=names.RDS, resource_names_subscribe=["80"]))
        outbox.put_nowait(discovery_pb2.DeltaDiscoveryRequest(type_url=names.VHDS))

        async def requests():  # type: ignore[no-untyped-def]
            while True:
                yield await outbox.get()

        call = self.channel.stream_stream(
            METHOD, request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString
        )(requests())
        async for raw in call:
            self.bytes += len(raw)
            self.last = time.perf_counter()
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


async def measure(pipe, credentials) -> None:  # type: ignore[no-untyped-def]
    loop = asyncio.get_running_loop()
    proxies = [Proxy(i, credentials) for i in range(PROXIES)]
    started = time.perf_counter()
    running = [loop.create_task(p.run()) for p in proxies]
    while not all(p.bytes > 1_500_000 for p in proxies):
        await asyncio.sleep(0.05)
        if time.perf_counter() - started > 120:
            raise SystemExit("the proxies were not served in 120 s")
    await asyncio.sleep(2)
    full = max(p.bytes for p in proxies)
    report(initial_sync_s=round(max(p.last for p in proxies) - started, 2), full_configuration_bytes=full)
    for order in ("endpoint", "route"):
        before = [p.bytes for p in proxies]
        started = time.perf_counter()
        pipe.send(order)
        cpu, _, rss = await loop.run_in_executor(None, pipe.recv)
        reached = [p for p, b in zip(proxies, before, strict=True) if p.bytes > b]
        cost = max(p.bytes - b for p, b in zip(proxies, before, strict=True))
        report(
            change=order,
            reached=len(reached),
            of=PROXIES,
            all_within_ms=round((max(p.last for p in reached) - started) * 1000),
            bytes_per_proxy=cost,
            ratio_to_full_push=round(cost / full, 6),
            istiod_cpu_s=round(cpu, 3),
            istiod_rss_mb=rss,
            limit_ms=1000,
            limit_bytes=10_000,
        )
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    pipe.send("stop")


def main() -> None:
    from lateen.ca.authority import Authority, Identity
    from lateen.kit import certs, times

    ca = Authority.create(times.now(), "cluster.local")
    pair = ca.server_pair(["istiod"], Identity("cluster.local", "istio-system", "istiod"), times.now())
    leaf = certs.issue(ca._root, ["spiffe://cluster.local/ns/d/sa/default"], times.now(), timedelta(hours=1))
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=server_process, args=(theirs, ca, pair))
    child.start()
    try:
        if not ours.poll(60) or ours.recv() != "ready":
            raise SystemExit("the server did not start")
        credentials = grpc.ssl_channel_credentials(ca.root.encode(), leaf.key.encode(), leaf.certificate.encode())
        asyncio.run(measure(ours, credentials))
    finally:
        child.join(10)
        if child.is_alive():
            child.terminate()


if __name__ == "__main__":
    main()
