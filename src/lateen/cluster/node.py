"""The node daemon: API server, controllers, kubelet, DNS and service addresses in one process."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import socket
import sys

from lateen.cluster import machine
from lateen.cluster.apiserver import http
from lateen.cluster.apiserver.admission import Webhooks
from lateen.cluster.apiserver.api import Api
from lateen.cluster.apiserver.auth import Tokens
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.strategies import Allocator
from lateen.cluster.bootstrap import bootstrap
from lateen.cluster.controllers.manager import controllers
from lateen.cluster.home import Home
from lateen.cluster.kubelet.access import Access
from lateen.cluster.kubelet.claims import Folders
from lateen.cluster.kubelet.events import Recorder
from lateen.cluster.kubelet.kubelet import Kubelet
from lateen.cluster.network import links, plan, portal
from lateen.cluster.network.neighbours import Door, Ways
from lateen.cluster.pki import NAME, Pki
from lateen.cluster.runtime.client import RuntimeClient
from lateen.cluster.store.objects import Store
from lateen.cluster.store.sqlite import Sqlite
from lateen.kit import later, log, memory, tasks
from lateen.kit.files import write_atomic

logger = logging.getLogger("lateen.node")

HOST_PORT = 6443


async def run(home: Home, runtime_fd: int, portal_fd: int) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    # Storage: SQLite, all objects in memory, and the API's verbs on top.
    database = Sqlite(home.database)
    rv, rows = database.load()
    store = Store(database.write, rv, rows)
    memory.settle()
    memory.bound_connections()
    pki = Pki(home.pki, home.outside)
    registry = Registry()
    webhooks = Webhooks(store, registry)
    api = Api(store, registry, webhooks, Tokens(pki.token_key, store), Allocator(store, plan.SERVICE_NET))
    neighbours = home.named_neighbours()
    addresses = tasks.spawn(
        links.setup_node([home.outside, *neighbours] if neighbours is not None else []), "addresses of the node"
    )
    await bootstrap(DirectClient(api, "kube-apiserver"))
    client = DirectClient(api, "kube-controller-manager")
    on_node = DirectClient(api, "kubelet")

    # The node: its addresses, the runtime that holds the pods, the kubelet.
    await addresses
    runtime = RuntimeClient(socket.socket(fileno=runtime_fd))
    runtime.start_reading()
    node = machine.node(home, NAME, on_node, on_node, runtime, tuple(neighbours or ()))
    kubelet = Kubelet(node)

    # The API server: inside for pods, and on the host through the portal.
    ports = portal.HostPorts(socket.socket(fileno=portal_fd))
    access = Access(kubelet)
    server = http.Server(api, access)
    context = http.tls(str(pki.server), str(pki.server_key), str(pki.ca_file))
    listener, port = await _host_listener(ports)
    await http.listen(server.protocol, (plan.NODE_IP, plan.API_PORT), context)
    await http.listen(server.protocol, listener, context)
    ways = Ways(neighbours or {})
    if neighbours is not None:
        await http.listen(server.protocol, (home.outside, plan.API_PORT), context)
        await Door(home.root, home.outside).listen()
        await ways.listen()
    write_atomic(home.kubeconfig, pki.kubeconfig(port), 0o600, durable=False)

    # Service addresses, DNS, controllers.
    outside = home.outside if neighbours is not None else ""
    proxy, resolver = machine.services(home, client, portal.Forwarder(ports), NAME, outside, tuple(neighbours or ()))
    ways.behind = proxy.behind
    await resolver.serve(plan.DNS_IP)
    told = functools.partial(Recorder, client)
    loop_of_controllers = controllers(client, told, pki.authority(), access.usage, api.tokens.of_secret)
    running = [
        tasks.spawn(tasks.forever(work, name), name)
        for name, work in (
            ("policies", node.policies.run),
            ("kubelet", kubelet.run),
            ("volumes", Folders(on_node, home.volumes, node.events).run),
            ("controllers", loop_of_controllers.run),
            ("proxy", proxy.run),
        )
    ]
    tasks.spawn(kubelet.collect(), "cleaning up after earlier pods")
    tasks.spawn(asyncio.to_thread(later.load), "what only some requests need")
    logger.info("the API server is listening at https://127.0.0.1:%d", port)
    await stop.wait()
    server.ends()
    await tasks.cancel(*running)
    await webhooks.close()
    await server.close()
    database.close()


async def _host_listener(ports: portal.HostPorts) -> tuple[socket.socket, int]:
    """6443 if it is free, else any free port; the kubeconfig has the actual one."""
    wanted = int(os.environ.get("LATEEN_API_PORT", HOST_PORT))
    try:
        sock = await ports.bind("127.0.0.1", wanted)
    except OSError as e:
        logger.warning("%s; using another port", portal.explain(e, "127.0.0.1", wanted))
        sock = await ports.bind("127.0.0.1", 0)
    return sock, int(sock.getsockname()[1])


def main() -> None:
    """``python -m lateen.cluster.node RUNTIME_FD PORTAL_FD`` (started by the runtime)."""
    log.setup()
    try:
        asyncio.run(run(Home.default(), int(sys.argv[1]), int(sys.argv[2])))
    except OSError as e:  # disk, network or tool failure: one sentence; an immediate retry would not help
        print(f"{type(e).__name__}: {e}" if not str(e) else str(e), file=sys.stderr)
        sys.exit(70)


if __name__ == "__main__":
    main()
