"""The node daemon: API server, controllers, kubelet, DNS and service addresses in one process."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import secrets
import signal
import socket
import sys
from datetime import timedelta
from pathlib import Path

from lateen.cluster.apiserver import http
from lateen.cluster.apiserver.admission import Webhooks
from lateen.cluster.apiserver.api import Api
from lateen.cluster.apiserver.auth import Tokens
from lateen.cluster.apiserver.direct import DirectClient
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.strategies import Allocator
from lateen.cluster.bootstrap import bootstrap
from lateen.cluster.controllers.manager import controllers
from lateen.cluster.controllers.service_proxy import Proxy
from lateen.cluster.home import Home
from lateen.cluster.kubelet import images
from lateen.cluster.kubelet.access import Access
from lateen.cluster.kubelet.catalogue import Catalogue
from lateen.cluster.kubelet.claims import Folders
from lateen.cluster.kubelet.events import Recorder
from lateen.cluster.kubelet.kubelet import Kubelet
from lateen.cluster.kubelet.network_policies import Policies
from lateen.cluster.kubelet.sandbox import Node
from lateen.cluster.network import dns, links, plan, portal
from lateen.cluster.network.neighbours import Door, Ways
from lateen.cluster.runtime import cgroups
from lateen.cluster.runtime.client import RuntimeClient
from lateen.cluster.store.objects import Store
from lateen.cluster.store.sqlite import Sqlite
from lateen.kit import certs, log, tasks, times, yamldoc
from lateen.kit.files import write_atomic

logger = logging.getLogger("lateen.node")

NAME = "lateen"
HOST_PORT = 6443


class Pki:
    """The cluster's own certificates and the token key, created once."""

    def __init__(self, directory: Path, outside: str = "") -> None:
        """``outside``: an address of the API server besides those that every cluster has."""
        self._outside = outside
        self.ca_file, self.ca_key = directory / "ca.crt", directory / "ca.key"
        self.server, self.server_key = directory / "apiserver.crt", directory / "apiserver.key"
        self.admin, self.admin_key = directory / "admin.crt", directory / "admin.key"
        self._tokens = directory / "tokens.key"
        if not self._tokens.exists():
            self._create()
        self.token_key = self._tokens.read_bytes()

    def _create(self) -> None:
        now = times.now()
        ca = certs.authority("lateen-cluster-ca", now)
        names = [
            "localhost",
            "127.0.0.1",
            plan.API_IP,
            plan.NODE_IP,
            *([self._outside] if self._outside else []),
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{plan.DOMAIN}",
        ]
        ten_years = timedelta(days=3640)
        server = certs.issue(ca, names, now, ten_years, "kube-apiserver", client=False)
        admin = certs.issue(ca, [], now, ten_years, "kubernetes-admin", ("system:masters",), server=False)
        for path, text in (
            (self.ca_file, ca.certificate),
            (self.ca_key, ca.key),
            (self.server, server.certificate),
            (self.server_key, server.key),
            (self.admin, admin.certificate),
            (self.admin_key, admin.key),
        ):
            write_atomic(path, text, 0o600)
        write_atomic(self._tokens, secrets.token_bytes(32), 0o600)

    def authority(self) -> certs.Pair:
        return certs.Pair(self.ca_file.read_text(), self.ca_key.read_text())

    def kubeconfig(self, port: int) -> str:
        def data(path: Path) -> str:
            return base64.b64encode(path.read_bytes()).decode()

        return yamldoc.dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": NAME,
                "preferences": {},
                "clusters": [
                    {
                        "name": NAME,
                        "cluster": {
                            "server": f"https://127.0.0.1:{port}",
                            "certificate-authority-data": data(self.ca_file),
                        },
                    }
                ],
                "users": [
                    {
                        "name": f"{NAME}-admin",
                        "user": {"client-certificate-data": data(self.admin), "client-key-data": data(self.admin_key)},
                    }
                ],
                "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": f"{NAME}-admin"}}],
            }
        )


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
    pki = Pki(home.pki, home.outside)
    registry = Registry()
    webhooks = Webhooks(store, registry)
    api = Api(store, registry, webhooks, Tokens(pki.token_key, store), Allocator(store, plan.SERVICE_NET))
    await bootstrap(DirectClient(api, "kube-apiserver"))
    client = DirectClient(api, "kube-controller-manager")
    on_node = DirectClient(api, "kubelet")

    # The node: its addresses, the runtime that holds the pods, the kubelet.
    neighbours = home.named_neighbours()
    await links.setup_node([home.outside, *neighbours] if neighbours is not None else [])
    runtime = RuntimeClient(socket.socket(fileno=runtime_fd))
    runtime.start_reading()
    images.write_wrappers(home.bin)
    rootless = bool(os.environ.get("LATEEN_ROOTLESS"))
    node = Node(
        on_node,
        runtime,
        Catalogue(home.images, home.bin),
        links.Addresses(),
        Recorder(on_node, "kubelet", NAME),
        home.pods,
        home.volumes,
        rootless,
        NAME,
        Policies(on_node, Recorder(on_node, "network-policies", NAME)),
        _groups(home),
    )
    kubelet = Kubelet(node)

    # The API server: inside for pods, and on the host through the portal.
    ports = portal.HostPorts(socket.socket(fileno=portal_fd))
    access = Access(kubelet)
    server = http.Server(api, access)
    context = http.tls(str(pki.server), str(pki.server_key), str(pki.ca_file))
    listener, port = await _host_listener(ports)
    await http.listen(server.protocol, (plan.NODE_IP, plan.API_PORT), context)
    await http.listen(server.protocol, listener, context)
    if neighbours is not None:
        await http.listen(server.protocol, (home.outside, plan.API_PORT), context)
        await Door(home.root, home.outside).listen()
        await Ways(neighbours).listen()
    write_atomic(home.kubeconfig, pki.kubeconfig(port), 0o600)

    # Service addresses, DNS, controllers.
    outside = home.outside if neighbours is not None else ""
    recorder = Recorder(client, "service-proxy", NAME)
    proxy = Proxy(client, portal.Forwarder(ports), recorder, outside, tuple(neighbours or ()))
    resolver = dns.Resolver(proxy.lookup, proxy.reverse, proxy.srv)
    await resolver.serve(plan.DNS_IP)
    told = Recorder(client, "controllers", NAME)
    loop_of_controllers = controllers(client, told, pki.authority(), access.containers, api.tokens.of_secret)
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
    tasks.spawn(kubelet.collect(), "leftovers of earlier pods")
    logger.info("the API server is listening at https://127.0.0.1:%d", port)
    await stop.wait()
    await tasks.cancel(*running)
    await webhooks.close()
    await server.close()
    database.close()


def _groups(home: Home) -> cgroups.Groups:
    """The control groups of this cluster; ``cluster stop`` removes what the file lists."""
    found = cgroups.find(f"lateen-{hashlib.sha256(bytes(home.root)).hexdigest()[:12]}")
    found.sweep()
    write_atomic(home.groups, "".join(f"{base.path}\n" for base in found.bases), 0o600)
    return found


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
    except OSError as e:  # the disk, the network or a tool: one sentence, and retrying at once would not help
        print(f"{type(e).__name__}: {e}" if not str(e) else str(e), file=sys.stderr)
        sys.exit(70)


if __name__ == "__main__":
    main()
