"""The node daemon of a worker node in another control plane's cluster: the kubelet, DNS and service addresses, on
kube-apiserver's API. Nothing is scheduled, controlled or stored here.

``$LATEEN_HOME/control-plane`` has the two kubeconfigs that the control plane has given: ``kubelet`` (a node's:
``system:node:NAME`` of ``system:nodes``) and ``network`` (reads services, pods and network policies, writes the status
of services); and ``kubelet.crt`` with ``kubelet.key``, by which the API server knows the kubelet.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys

from lateen.cluster import machine
from lateen.cluster.apiserver import http
from lateen.cluster.home import Home
from lateen.cluster.kubelet.access import Access
from lateen.cluster.kubelet.kubelet import Kubelet
from lateen.cluster.kubelet.registration import PORT
from lateen.cluster.network import links, plan, portal
from lateen.cluster.node_api import NodeApi
from lateen.cluster.pki import NAME, Pki
from lateen.cluster.runtime.client import RuntimeClient
from lateen.kit import log, memory, tasks
from lateen.kit.files import write_atomic
from lateen.kube import kubeconfig

logger = logging.getLogger("lateen.worker")


async def run(home: Home, runtime_fd: int, portal_fd: int) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    given, pki = home.control_plane, Pki(home.pki)
    of_kubelet = kubeconfig.from_file(given / "kubelet")
    of_network = kubeconfig.from_file(given / "network")

    await links.setup_node()
    runtime = RuntimeClient(socket.socket(fileno=runtime_fd))
    runtime.start_reading()
    node = machine.node(home, NAME, of_kubelet, of_network, runtime)
    kubelet = Kubelet(node, schedules=False)
    context = http.tls(str(given / "kubelet.crt"), str(given / "kubelet.key"), str(pki.ca_file))
    await NodeApi(Access(kubelet)).serve(plan.NODE_IP, PORT, context)

    # The control plane runs beside the pods; users reach it through the portal.
    ports = portal.HostPorts(socket.socket(fileno=portal_fd))
    wanted = int(os.environ.get("LATEEN_API_PORT", "0"))
    control_plane = await portal.Forwarder(ports).open("127.0.0.1", wanted, (plan.NODE_IP, plan.API_PORT))
    proxy, resolver = machine.services(home, of_network, portal.Forwarder(ports), NAME)
    await resolver.serve(plan.DNS_IP)
    running = [
        tasks.spawn(tasks.forever(work, name), name)
        for name, work in (("policies", node.policies.run), ("kubelet", kubelet.run), ("proxy", proxy.run))
    ]
    tasks.spawn(kubelet.collect(), "cleaning up after earlier pods")
    write_atomic(home.kubeconfig, pki.kubeconfig(control_plane), 0o600)
    logger.info("the control plane is expected at %s:%d", plan.NODE_IP, plan.API_PORT)
    await stop.wait()
    await tasks.cancel(*running)
    await of_kubelet.close()
    await of_network.close()


def main() -> None:
    """``python -m lateen.cluster.worker RUNTIME_FD PORTAL_FD`` (started by the runtime)."""
    log.setup()
    memory.settle()
    memory.bound_connections()
    try:
        asyncio.run(run(Home.default(), int(sys.argv[1]), int(sys.argv[2])))
    except (OSError, kubeconfig.ConfigError) as e:
        print(str(e) or type(e).__name__, file=sys.stderr)
        sys.exit(70)


if __name__ == "__main__":
    main()
