"""How a proxy identifies itself: the node id and metadata of its bootstrap."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

ISTIO_VERSION = "1.32.0"
"""The Istio version that proxies report, for EnvoyFilters that match on one."""
CLUSTER_HEADER = "clusterid"
"""The header with which an agent names its cluster in requests to istiod, as in Istio."""
SIDECAR, ROUTER = "sidecar", "router"
"""Kinds of proxies; a router is a gateway."""


@dataclass(frozen=True)
class NodeId:
    """``sidecar~10.244.0.5~reviews-v1-x.default~default.svc.cluster.local``"""

    kind: str
    address: str
    pod: str
    namespace: str
    domain: str

    def __str__(self) -> str:
        return f"{self.kind}~{self.address}~{self.pod}.{self.namespace}~{self.domain}"


def parse(text: str) -> NodeId:
    """Raises ValueError."""
    parts = text.split("~")
    if len(parts) != 4 or parts[0] not in (SIDECAR, ROUTER) or "." not in parts[2]:
        raise ValueError(f'"{text[:200]}" is not a node id (kind~address~pod.namespace~domain)')
    ipaddress.ip_address(parts[1])  # a proxy's claims become part of names
    pod, _, namespace = parts[2].rpartition(".")
    return NodeId(parts[0], parts[1], pod, namespace, parts[3])


PEER_HEADERS = (
    ("workload", "x-lateen-peer-workload"),
    ("namespace", "x-lateen-peer-namespace"),
    ("service", "x-lateen-peer-service"),
    ("revision", "x-lateen-peer-revision"),
    ("app", "x-lateen-peer-app"),
    ("version", "x-lateen-peer-version"),
)
"""The description of the client's workload that its sidecar sends to the server's: (key, request header). The last two
are sent only if they differ from service and revision, because every header costs both proxies time."""
PEER_FALLBACK = {"app": "service", "version": "revision"}


def own_key(key: str) -> str:
    """The name of the filter state object with a property of the workload that a connection originates in."""
    return f"lateen.{key}"


def peer_key(key: str) -> str:
    """The same for a property that is sent to the server; absent if equal to its fallback."""
    return f"lateen.peer.{key}" if key in PEER_FALLBACK else own_key(key)
