"""The parts of a node, of either kind of control plane: images, addresses, control groups, the runtime."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lateen.cluster.controllers.service_proxy import Proxy
from lateen.cluster.home import Home
from lateen.cluster.kubelet import images
from lateen.cluster.kubelet.catalogue import Catalogue
from lateen.cluster.kubelet.chained import Plugins
from lateen.cluster.kubelet.events import Recorder
from lateen.cluster.kubelet.network_policies import Policies
from lateen.cluster.kubelet.sandbox import Node
from lateen.cluster.network import links, plan, portal
from lateen.cluster.network.forwarding import Forwarding
from lateen.cluster.runtime import cgroups
from lateen.cluster.runtime.client import RuntimeClient
from lateen.kit.files import write_atomic
from lateen.kube.client import Client

if TYPE_CHECKING:
    from lateen.cluster.network import dns


def node(
    home: Home, name: str, client: Client, network: Client, runtime: RuntimeClient, neighbours: Sequence[str] = ()
) -> Node:
    """``client`` is the kubelet's, ``network`` that of what watches all pods for NetworkPolicies."""
    images.write_wrappers(home.bin)
    rootless = bool(os.environ.get("LATEEN_ROOTLESS"))
    plugins = Plugins(home.cni, rootless)
    plugins.prepare()
    return Node(
        client,
        runtime,
        Catalogue(home.images, home.bin, home.rootfs, not rootless),
        links.Addresses(),
        Recorder(client, "kubelet", name),
        home.pods,
        home.volumes,
        rootless,
        name,
        Policies(network, Recorder(network, "network-policies", name), neighbours),
        _groups(home),
        plugins,
    )


def services(
    home: Home,
    client: Client,
    forwarder: portal.Forwarder,
    name: str,
    outside: str = "",
    neighbours: Sequence[str] = (),
) -> tuple[Proxy, dns.Resolver]:
    """Service addresses and DNS, with the way out of the machine if there is one. ``client`` reads services and pods;
    for ``outside`` and ``neighbours`` see ``Proxy``."""
    from lateen.cluster.network import dns  # imported late: the API can answer before

    outbound = home.outbound.exists()
    proxy = Proxy(client, forwarder, Recorder(client, "service-proxy", name), outside, neighbours, outbound)
    return proxy, dns.Resolver(proxy, Forwarding((plan.WAY_OUT_DNS, 53)) if outbound else None)


def _groups(home: Home) -> cgroups.Groups:
    """The control groups of this cluster; ``cluster stop`` removes what the file lists."""
    found = cgroups.find(f"lateen-{hashlib.sha256(bytes(home.root)).hexdigest()[:12]}")
    found.sweep()
    write_atomic(home.groups, "".join(f"{base.path}\n" for base in found.bases), 0o600, durable=False)
    return found
