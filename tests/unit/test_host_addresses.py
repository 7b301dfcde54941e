"""Which address of the host a Service of type LoadBalancer has, and how datagrams get to it."""

import asyncio
import socket
from types import SimpleNamespace

from lateen.api.reading import HOST_PORTS
from lateen.cluster.controllers.pod_ports import PodPort
from lateen.cluster.controllers.service_proxy import HOST, Proxy, hosts, source_ranges
from lateen.cluster.network import datagrams, portal
from lateen.kube.client import KubeError


def service(address, created, asked="", reported=""):
    ingress = [{"ip": reported}] if reported else []
    return {
        "metadata": {"creationTimestamp": created},
        "spec": {"type": "LoadBalancer", "clusterIP": address, **({"loadBalancerIP": asked} if asked else {})},
        "status": {"loadBalancer": {"ingress": ingress}},
    }


def test_the_first_service_is_at_localhost_and_every_other_one_has_an_address_of_its_own():
    a, b, c = service("10.96.0.7", "2"), service("10.96.1.9", "1"), service("10.96.2.3", "3")
    found = hosts({"a": a, "b": b, "c": c}, {})
    assert found == {"a": "127.96.0.7", "b": "127.0.0.1", "c": "127.96.2.3"}
    assert hosts({"a": a, "c": c}, found) == {"a": "127.96.0.7", "c": "127.96.2.3"}
    assert hosts({"a": a, "d": service("10.96.0.8", "4")}, {"a": "127.96.0.7"})["d"] == "127.0.0.1"


def test_what_was_reported_before_a_restart_stays():
    old, older = service("10.96.0.7", "2", reported="127.0.0.1"), service("10.96.0.8", "1")
    assert hosts({"old": old, "older": older}, {}) == {"old": "127.0.0.1", "older": "127.96.0.8"}


def test_an_address_can_be_asked_for_if_this_machine_has_it():
    wanted = {"a": service("10.96.0.7", "1", "127.7.7.7"), "b": service("10.96.0.8", "1", "192.0.2.1")}
    assert hosts(wanted, {"a": "127.96.0.7", "b": "127.0.0.1"}) == {"a": "127.7.7.7", "b": ""}


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data.upper(), addr)


def test_datagrams_of_several_clients_come_back_to_them():
    async def ask(at, *words):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.setblocking(False)
            own.connect(at)
            loop = asyncio.get_running_loop()
            for word in words:
                await loop.sock_sendall(own, word)
            async with asyncio.timeout(10):
                return sorted([await loop.sock_recv(own, 100) for _ in words])

    async def run():
        loop = asyncio.get_running_loop()
        inside, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        outside.bind(("127.0.0.1", 0))
        at = outside.getsockname()
        relay = await datagrams.relay(outside, lambda: inside.get_extra_info("sockname"))
        assert await asyncio.gather(ask(at, b"a", b"b"), ask(at, b"c")) == [[b"A", b"B"], [b"C"]]
        relay.close()
        inside.close()
        await asyncio.sleep(0)

    asyncio.run(run())


class HostPorts:
    """Ports of this machine, as the portal opens them."""

    async def bind(self, address, port, protocol="TCP"):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM)
        made.bind((address, port))
        if protocol == "TCP":
            made.listen()
        made.setblocking(False)
        return made


def test_a_load_balancer_serves_the_networks_that_its_service_names():
    async def answer(reader, writer):
        writer.write((await reader.read(100)).upper())
        writer.close()

    async def ask(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        try:
            return await reader.read(100)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def told(at):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.setblocking(False)
            own.connect(at)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(own, b"a")
            try:
                async with asyncio.timeout(0.5):
                    return await loop.sock_recv(own, 100)
            except TimeoutError:
                return b""

    async def run():
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        inside, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        forwarder = portal.Forwarder(HostPorts())
        target, udp = server.sockets[0].getsockname(), inside.get_extra_info("sockname")
        found = []
        port = port_of_udp = 0
        for ranges in (["10.0.0.0/8"], ["10.0.0.0/8", " 127.0.0.0/8"], []):
            sources = source_ranges({"spec": {"loadBalancerSourceRanges": ranges}})
            port = await forwarder.open("127.0.0.1", port, target, "TCP", sources)
            port_of_udp = await forwarder.open("127.0.0.1", port_of_udp, udp, "UDP", sources)
            found.append((await ask(port), await told(("127.0.0.1", port_of_udp))))
        for place in forwarder.opened():
            forwarder.close(place)
        inside.close()
        server.close()
        return found

    assert asyncio.run(run()) == [(b"", b""), (b"HELLO", b"A"), (b"HELLO", b"A")]


def test_a_service_that_is_no_load_balancer_any_more_has_no_address_outside():
    patches = []

    class Client:
        async def patch(self, _, __, name, change, part=""):
            patches.append((name, part, change))

    forwarder = SimpleNamespace(opened=set)
    proxy = Proxy(Client(), forwarder, None)
    for name, notes in (("was", {HOST_PORTS: "80=8080"}), ("never", {})):
        meta = {"name": name, "namespace": "n", "uid": name, "annotations": notes}
        spec = {"type": "ClusterIP", "clusterIP": "10.96.0.7", "ports": [{"port": 80}]}
        proxy._services.objects["n", name] = {"kind": "Service", "metadata": meta, "spec": spec}
    asyncio.run(proxy._host_ports([]))
    assert patches == [
        ("was", "status", {"status": {"loadBalancer": {"ingress": None}}}),
        ("was", "", {"metadata": {"annotations": {HOST_PORTS: None}}}),
    ]


def test_a_service_whose_status_is_refused_keeps_no_other_one_from_its_ports():
    """By a webhook of the user's; it is written once that lets it pass."""
    refused, patches = True, []

    class Client:
        async def patch(self, _, __, name, ___, part=""):
            if refused and name == "was":
                raise KubeError(403, "Forbidden", "admission webhook denied the request")
            patches.append((name, part))

    opened, closed = [], []

    async def open_(_, port, *__):
        opened.append(port)
        return port

    forwarder = SimpleNamespace(opened=lambda: {(HOST, 8080, "TCP")}, open=open_, close=closed.append)
    proxy = Proxy(Client(), forwarder, None)
    for name, notes in (("was", {HOST_PORTS: "80=8080"}), ("other", {HOST_PORTS: "80=80"})):
        meta = {"name": name, "namespace": "n", "uid": name, "annotations": notes}
        spec = {"type": "ClusterIP", "clusterIP": "10.96.0.7", "ports": [{"port": 80}]}
        proxy._services.objects["n", name] = {"kind": "Service", "metadata": meta, "spec": spec}
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "p"}, "kind": "Pod"}
    port = PodPort(pod, HOST, 9090, "TCP", ("10.244.0.9", 9090))

    async def run():
        nonlocal refused
        await proxy._host_ports([port])
        assert (patches, opened, closed) == ([("other", "status"), ("other", "")], [9090], [(HOST, 8080, "TCP")])
        refused = False
        await asyncio.wait_for(proxy._dirty.wait(), 20)
        await proxy._host_ports([])
        assert patches[2:4] == [("was", "status"), ("was", "")]

    asyncio.run(run())
