"""A request as reported by the proxies on its path (``wire.tap``): source, destination, result, and the user's objects
involved. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from lateen.api.decoding import owner
from lateen.dump import failures
from lateen.dump.tables import ROUTES, cluster_name, rule_of
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig
from lateen.wire import tap

_CONFIG = re.compile(r"/apis/([^/]+)/[^/]+/namespaces/([^/]+)/([^/]+)/([^/]+)$")
_IDENTITY = re.compile(r"^spiffe://[^/]+/ns/([^/]+)/sa/([^/]+)$")
_KINDS = {
    "virtual-service": "VirtualService",
    "destination-rule": "DestinationRule",
    "gateway": "Gateway",
    "ingress": "Ingress",
    "service-entry": "ServiceEntry",
    **ROUTES,
}


class Peer(NamedTuple):
    """One end of a request; without a namespace it is an address or a host outside of the cluster."""

    workload: str
    namespace: str = ""
    pod: str = ""

    def __str__(self) -> str:
        return f"{self.workload}.{self.namespace}" if self.namespace else self.workload or "unknown"

    def is_called(self, wanted: str) -> bool:
        """``wanted``: a workload, a pod, either with ``.namespace``, with ``kind/`` before it, or ``ns/NAMESPACE``."""
        kind, _, name = wanted.rpartition("/")
        if kind in ("ns", "namespace", "namespaces"):
            return self.namespace == name
        return name in (self.workload, self.pod, f"{self.workload}.{self.namespace}", f"{self.pod}.{self.namespace}")


class Pods:
    """Maps addresses to workloads."""

    def __init__(self, pods: Iterable[Json]) -> None:
        self._by_ip: dict[str, Peer] = {}
        for pod in pods:
            ip = dig(pod, "status", "podIP")
            if ip and not dig(pod, "spec", "hostNetwork"):
                self._by_ip[str(ip)] = peer_of(pod)

    def at(self, address: str) -> Peer | None:
        return self._by_ip.get(host_of(address))


def peer_of(pod: Json) -> Peer:
    meta = pod["metadata"]
    return Peer(owner(pod), str(meta.get("namespace", "")), str(meta["name"]))


def host_of(address: str) -> str:
    """The host of an address with port; IPv6 addresses are in brackets."""
    host, _, port = address.rpartition(":")
    return (host if digits(port) and host else address).strip("[]")


@dataclass(frozen=True)
class Request:
    """One proxy's report about one request: ``seen`` has the keys of ``wire.tap``."""

    seen: Json = field(hash=False)
    proxy: Peer
    pods: Pods = field(hash=False)

    def text(self, key: str) -> str:
        value = self.seen.get(key)
        return "" if value is None or value == "-" else str(value)

    @property
    def inbound(self) -> bool:
        return self.seen.get(tap.SIDE) == tap.SERVER

    @property
    def status(self) -> int:
        """The status code; 0 if the client disconnected before there was a response."""
        found = self.seen.get("status")
        return found if isinstance(found, int) else 0

    @property
    def failed(self) -> bool:
        grpc = self.seen.get("grpcStatus")
        return failures.failed(self.status, self.text("flags"), grpc if isinstance(grpc, int) else None)

    @property
    def milliseconds(self) -> float:
        us = self.seen.get("durationUs")
        if isinstance(us, (int, float)):
            return us / 1000
        ms = self.seen.get("durationMs")
        return float(ms) if isinstance(ms, (int, float)) else 0.0

    @cached_property
    def source(self) -> Peer:
        address = self.text("source")
        if not self.inbound and host_of(address).startswith("127."):
            return self.proxy
        known = self.pods.at(address)
        if known is None and not self.inbound and self.proxy.workload and not self.text("sourceTls"):
            known = self.proxy if host_of(address) == host_of(self.text("local")) else None
        identity = _IDENTITY.match(self.text("sourceIdentity"))
        if known is None and identity:
            return Peer(f"sa/{identity[2]}", identity[1])
        return known or Peer(host_of(address))

    @cached_property
    def destination(self) -> Peer:
        if self.inbound:
            return self.proxy
        if known := self.pods.at(self.text("destination")):
            return known
        return Peer(self.service or host_of(self.text("destination")))

    @property
    def service(self) -> str:
        """The host that it was sent to, by the cluster's name; the authority if no cluster was selected."""
        return cluster_name(self.text("cluster")).host if "|" in self.text("cluster") else self.text("authority")

    @property
    def secured(self) -> bool:
        return bool(self.text("sourceIdentity" if self.inbound else "destinationIdentity"))

    @property
    def tls(self) -> str:
        """``mutual_tls`` in the mesh; TLS of another kind by its version; ``none``."""
        return "mutual_tls" if self.secured else self.text("sourceTls" if self.inbound else "destinationTls") or "none"

    @property
    def objects(self) -> list[str]:
        """The user's objects that routed it: ``VirtualService reviews.default``."""
        return [found for key in ("routeConfig", "clusterConfig") if (found := object_of(self.text(key)))]

    @property
    def route(self) -> str:
        return self.text("route") or "default"


def object_of(path: str, route: Json | None = None) -> str:
    """``/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`` -> ``VirtualService
    reviews.default``. ``route``: with the rule of the Gateway API's routes: ``HTTPRoute reviews.default rule 2``."""
    found = _CONFIG.search(path)
    if not found:
        return ""
    rule = rule_of(route, found[2], found[4]) if route and found[3] in ROUTES else ""
    return f"{_KINDS.get(found[3], found[3])} {found[4]}.{found[2]}{rule}"


class BadFilter(ValueError):
    """An invalid filter; the message names it and the correct form."""


@dataclass(frozen=True)
class Filter:
    """Selects requests; empty fields match everything."""

    method: str = ""
    path: str = ""
    """A prefix."""
    authority: str = ""
    status: str = ""
    """``503``, ``5xx``, ``400-499``, several with commas."""
    to: str = ""
    source: str = ""
    min_ms: float = 0.0

    def __post_init__(self) -> None:
        statuses(self.status)

    def passes(self, r: Request) -> bool:
        wanted = statuses(self.status)
        return (
            (not self.method or r.text("method") == self.method.upper())
            and r.text("path").startswith(self.path)
            and (not self.authority or r.text("authority") == self.authority)
            and (not wanted or any(low <= r.status <= high for low, high in wanted))
            and (not self.to or r.destination.is_called(self.to) or _is_service(r, self.to))
            and (not self.source or r.source.is_called(self.source))
            and r.milliseconds >= self.min_ms
        )


def _is_service(r: Request, wanted: str) -> bool:
    kind, _, name = wanted.rpartition("/")
    host = r.service
    return kind in ("", "svc", "service", "services") and (host == name or host.startswith(f"{name}."))


def _within(text: str, low: int, high: int) -> tuple[int, int]:
    """Raises BadFilter where no response can have the status; 0 is for those that had none."""
    if low > high or high > 599 or 0 < low < 100:
        raise BadFilter(f'--status: no response has "{text}"; write 503, 5xx or 400-499, several with commas')
    return low, high


def statuses(text: str) -> list[tuple[int, int]]:
    """Inclusive ranges. Raises BadFilter."""
    out = []
    for part in filter(None, (p.strip().lower() for p in text.split(","))):
        low, dash, high = part.partition("-")
        if re.fullmatch(r"[0-9]xx", part):
            out.append(_within(part, int(part[0]) * 100, int(part[0]) * 100 + 99))
        elif digits(low) and (digits(high) if dash else True):
            out.append(_within(part, int(low), int(high or low)))
        else:
            raise BadFilter(f'--status: "{part}" is not a status; write 503, 5xx or 400-499, several with commas')
    return out
