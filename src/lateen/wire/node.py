"""How a proxy identifies itself: the node id and metadata of its bootstrap."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from lateen.wire import connections, labels, requests

ISTIO_VERSION = "1.32.0"
"""The Istio version that proxies report, for EnvoyFilters that match on one."""
CLUSTER_HEADER = "clusterid"
"""The header with which an agent names its cluster in requests to istiod, as in Istio."""
IPV6_REDIRECTED = "LATEEN_IPV6"
"""The key of the node metadata with which an agent declares (``true``) that its pod's IPv6 is redirected."""
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


@dataclass(frozen=True)
class Abilities:
    """What a proxy's agent does for its metrics, and says about its application."""

    counting: bool = True
    """It counts the bytes of open connections (``connections``)."""
    joined: bool = True
    """It takes labels apart (``labels``)."""
    requests: bool = True
    """It counts requests (``requests``)."""
    messages: bool = True
    """It counts messages of gRPC."""
    http10: bool = False
    """Its application speaks HTTP/1.0: ``ISTIO_META_HTTP10`` is 1, as in Istio."""


PRESENT = Abilities()
"""An agent of this version."""


def abilities(metadata: Mapping[str, str]) -> Abilities:
    """``metadata``: of the node."""
    return Abilities(
        counting=metadata.get(connections.METADATA) == "true",
        joined=metadata.get(labels.METADATA) == "true",
        requests=metadata.get(requests.METADATA) == "true",
        messages=metadata.get(requests.MESSAGES_METADATA) == "true",
        http10=metadata.get("HTTP10") == "1",
    )


def own_key(key: str) -> str:
    """The name of the filter state object with a property of the workload that a connection originates in."""
    return f"lateen.{key}"
