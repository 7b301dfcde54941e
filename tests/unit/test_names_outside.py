"""The cluster's DNS server: what is the cluster's is answered here, everything else by the machine's servers."""

import asyncio
import errno
import socket

import apiserver
import pytest
from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from lateen.cluster import machine
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.home import Home
from lateen.cluster.network import portal, services
from lateen.cluster.network.dns import Resolver
from lateen.cluster.network.forwarding import Forwarding, Unanswered
from lateen.kit import tasks

SHOP = "shop.default.svc.cluster.local"


class Cluster:
    def lookup(self, name):
        return {"web.default.svc.cluster.local": ["10.96.0.7"]}.get(name)

    def reverse(self, address):
        return {"10.96.0.7": "web.default.svc.cluster.local"}.get(address)

    def srv(self, _):
        return []

    def alias(self, name):
        return "shop.example" if name == SHOP else None

    def has(self, namespace):
        return namespace in ("default", "shop")


class Outside(asyncio.DatagramProtocol):
    """A DNS server that knows shop.example; ``lost``: how many questions it does not answer first."""

    def __init__(self, lost=0):
        self.asked, self._lost = [], lost

    def connection_made(self, transport):
        self._transport = transport

    def answer(self, data):
        query = DNSRecord.parse(data)
        self.asked.append(str(query.q.qname))
        reply = query.reply()
        if self.asked[-1] == "shop.example.":
            reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A("192.0.2.9"), ttl=1))
        else:
            reply.header.rcode = RCODE.NXDOMAIN
        return reply.pack()

    def datagram_received(self, data, addr):
        if self._lost:
            self._lost -= 1
            self._transport.sendto(b"??" + data[2:], addr)  # somebody's guess
        else:
            self._transport.sendto(self.answer(data), addr)

    async def stream(self, reader, writer):
        size = int.from_bytes(await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(size))
        writer.write(len(answer).to_bytes(2) + answer)


async def served(server):
    """The server at a port that is free for both protocols, which the first one that the kernel offers need not be."""
    loop = asyncio.get_running_loop()
    while True:
        transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
        at = transport.get_extra_info("sockname")
        try:
            return at, transport, await asyncio.start_server(server.stream, *at)
        except OSError as e:
            transport.close()
            if e.errno != errno.EADDRINUSE:
                raise


def ask(*questions, outside=None, stream=False, beyond=True):
    """The answers: of each its code, and the data of its records."""

    async def work():
        server = outside or Outside()
        at, transport, streams = await served(server)
        resolver = Resolver(Cluster(), Forwarding(at) if beyond else None)
        try:
            packets = [await resolver.answer(DNSRecord.question(*q).pack(), stream) for q in questions]
        finally:
            transport.close()
            streams.close()
        found = [DNSRecord.parse(p) for p in packets]
        return [(RCODE[f.header.rcode], [str(r.rdata) for r in f.rr]) for f in found], server.asked

    return asyncio.run(work())


@pytest.mark.parametrize("stream", [False, True])
def test_other_names_are_asked_of_the_machines_servers(stream):
    answers, asked = ask(("shop.example",), ("nobody.example",), stream=stream)
    assert answers == [("NOERROR", ["192.0.2.9"]), ("NXDOMAIN", [])]
    assert asked == ["shop.example.", "nobody.example."]


def test_without_a_way_out_nobody_is_asked():
    assert ask(("shop.example",), (SHOP,), beyond=False) == ([("NXDOMAIN", [])] * 2, [])


def test_a_pods_name_says_its_address():
    names = ("10-244-0-9.shop", "10-244-0-256.shop", "web.shop", "10-244-0-9.nowhere")
    answers, asked = ask(*((f"{name}.pod.cluster.local",) for name in names))
    assert answers == [("NOERROR", ["10.244.0.9"]), *[("NXDOMAIN", [])] * 3]
    assert asked == []


def test_names_and_addresses_of_the_cluster_do_not_leave_it():
    ours = [("web.default.svc.cluster.local",), ("shop.example.default.svc.cluster.local",), ("web",)]
    reverse = [("7.0.96.10.in-addr.arpa", "PTR"), ("9.9.244.10.in-addr.arpa", "PTR")]
    answers, asked = ask(*ours, *reverse)
    assert [code for code, _ in answers] == ["NOERROR", "NXDOMAIN", "NXDOMAIN", "NOERROR", "NXDOMAIN"]
    assert asked == []
    assert ask(("9.2.0.192.in-addr.arpa", "PTR"))[1] == ["9.2.0.192.in-addr.arpa."]


def test_queries_that_have_come_together_are_answered_together():
    """On a machine with much to do a turn of the loop takes long: one query in each would be an answer too late."""

    async def work():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            at = free.getsockname()
        await Resolver(Cluster()).serve(*at)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(at)
            client.setblocking(False)
            for _ in range(50):
                client.send(DNSRecord.question("web.default.svc.cluster.local").pack())
            for _ in range(5):
                await asyncio.sleep(0)
            return [RCODE[DNSRecord.parse(client.recv(500)).header.rcode] for _ in range(50)]

    assert asyncio.run(work()) == ["NOERROR"] * 50


def test_an_external_name_is_an_alias_with_the_records_of_its_target():
    answers, _ = ask((SHOP,), (SHOP, "CNAME"))
    assert answers == [("NOERROR", ["shop.example.", "192.0.2.9"]), ("NOERROR", ["shop.example."])]


def test_a_lost_question_is_asked_again_and_a_forged_answer_is_not_taken(monkeypatch):
    monkeypatch.setattr("lateen.cluster.network.forwarding.PATIENCE_S", 2.0)
    assert ask(("shop.example",), outside=Outside(lost=1))[0] == [("NOERROR", ["192.0.2.9"])]


def test_a_server_that_is_silent_is_told_as_a_failure(monkeypatch):
    monkeypatch.setattr("lateen.cluster.network.forwarding.PATIENCE_S", 0.2)
    assert ask(("shop.example",), (SHOP,), outside=Outside(lost=99))[0] == [
        ("SERVFAIL", []),
        ("SERVFAIL", ["shop.example."]),
    ]


def test_questions_are_bounded(monkeypatch):
    monkeypatch.setattr("lateen.cluster.network.forwarding.MOST", 0)

    async def work():
        with pytest.raises(Unanswered):
            await Forwarding(("127.0.0.1", 9)).ask(DNSRecord.question("a.example").pack())

    asyncio.run(work())


def test_the_credentials_of_clouds_are_not_outside():
    text = services.rules([], outbound=True).splitlines()
    assert "-A POSTROUTING -o out0 -j MASQUERADE" in text
    for chain in ("FORWARD", "OUTPUT"):
        for closed in ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"):
            assert f"-A {chain} -o out0 -d {closed} -j REJECT" in text
    assert not any("out0" in line for line in services.rules([]).splitlines())


NAMES = ("shop.example", "10-244-0-9.default.pod.cluster.local", "10-244-0-9.nowhere.pod.cluster.local")


@pytest.mark.parametrize("allowed", [False, True])
def test_a_node_has_the_way_out_that_the_user_has_allowed(allowed, tmp_path, monkeypatch):
    """Whosever its control plane is: both kinds of nodes have their services and DNS from here."""
    installed = []

    async def install(text):
        installed.append(text)

    monkeypatch.setattr("lateen.cluster.network.services.install", install)
    monkeypatch.setattr("lateen.cluster.network.forwarding.MOST", 0)  # nobody is there
    home = Home(tmp_path)
    if allowed:
        home.outbound.touch()

    client = DirectClient(apiserver.Cluster().api, "service-proxy")

    async def work():
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ours:
            proxy, resolver = machine.services(home, client, portal.Forwarder(portal.HostPorts(ours)), "node")
            running = tasks.spawn(proxy.run(), "proxy")
            async with asyncio.timeout(20):
                while not installed or proxy.has("nowhere"):
                    await asyncio.sleep(0.01)
            await tasks.cancel(running)
            packets = [await resolver.answer(DNSRecord.question(name).pack()) for name in NAMES]
            return [RCODE[DNSRecord.parse(packet).header.rcode] for packet in packets]

    codes = asyncio.run(work())
    assert ("-o out0" in installed[0]) is allowed
    assert codes == ["SERVFAIL" if allowed else "NXDOMAIN", "NOERROR", "NXDOMAIN"]
