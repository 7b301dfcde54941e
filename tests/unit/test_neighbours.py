"""Embedded clusters of one machine that know of each other."""

import asyncio
import struct

from lateen.cluster.controllers import service_proxy
from lateen.cluster.home import Home
from lateen.cluster.network import neighbours, services


def test_connections_for_neighbours_end_at_the_node_with_their_destination_kept():
    text = services.rules([], ["10.97.1.2"])
    assert "-A LATEEN-SERVICES -d 10.97.1.2/32 -p tcp -j DNAT --to-destination 10.97.1.2:15099" in text.splitlines()
    assert "10.97." not in services.rules([])


def test_a_cluster_has_an_address_of_its_own_for_others(tmp_path):
    a, b = Home(tmp_path / "a"), Home(tmp_path / "b")
    assert a.outside.startswith("10.97.")
    assert a.outside == Home(tmp_path / "a").outside != b.outside
    assert a.named_neighbours() is None
    a.create()
    a.neighbours.write_text(f'["{b.root}"]')
    assert a.named_neighbours() == {b.outside: b.root}


def test_the_door_leads_to_the_port_that_is_asked_for_and_nowhere_else(tmp_path):
    home = tmp_path / ("long" * 40)  # longer than the path of a Unix socket may be
    home.mkdir()

    async def answer(reader, writer):
        writer.write(b"echo " + await reader.read(100))
        writer.close()

    async def ask(port):
        with neighbours._reachable(home) as folder:
            reader, writer = await asyncio.open_unix_connection(f"{folder}/{neighbours.DOOR}")
        writer.write(struct.pack("!H", port))
        if await reader.read(1):
            writer.write(b"hello")
            return await reader.read(100)
        return None

    async def run():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, await neighbours.Door(home, "127.0.0.1").listen():
            assert await ask(port) == b"echo hello"
            server.close()
            await asyncio.sleep(0)
            assert await ask(port) is None

    asyncio.run(run())


def test_connections_to_a_service_lead_to_its_tcp_port_at_the_neighbour_and_to_no_other():
    """Of two services with one address and port, connections are those of the first, as by the rules."""
    there = "10.97.0.1"
    ports = [
        services.ServicePort("10.96.0.9", "TCP", 53, ((there, 5300), ("10.244.0.2", 1))),
        services.ServicePort("10.96.0.9", "UDP", 53, ((there, 9999),)),
        services.ServicePort("10.96.0.9", "TCP", 53, ((there, 7777),)),
        services.ServicePort("10.96.0.10", "UDP", 53, ((there, 9999),)),
    ]
    assert service_proxy.behind(ports, [there]) == {("10.96.0.9", 53, there): 5300}
