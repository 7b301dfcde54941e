"""Ports of the node that pods ask for (``hostPort``). Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from lateen.kit.jsons import Json, dig

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class PodPort:
    """``host``: the address of the machine that it is opened on; empty for one that is no loopback address."""

    pod: Json
    host: str
    port: int
    protocol: str
    target: tuple[str, int]


def asks(pod: Json | None) -> bool:
    return any(p.get("hostPort") for p in _ports(pod or {}))


def of(listed: Iterable[PodPort]) -> list[PodPort]:
    """Of several that are the same port of the node, the first one."""
    out: dict[tuple[int, str], PodPort] = {}
    for p in listed:
        out.setdefault((p.port, p.protocol), p)
    return list(out.values())


def asked(pods: Iterable[Json]) -> list[PodPort]:
    """Of the pods that have an address of their own, those of the oldest first: it has what several ask for."""
    out: list[PodPort] = []
    for pod in sorted(pods, key=lambda p: (str(p["metadata"].get("creationTimestamp")), p["metadata"]["name"])):
        address = str(dig(pod, "status", "podIP", default=""))
        over = dig(pod, "status", "phase") in ("Succeeded", "Failed")
        if not address or over or dig(pod, "spec", "hostNetwork"):
            continue
        for p in _ports(pod):
            if port := p.get("hostPort"):
                protocol = str(p.get("protocol") or "TCP")
                host = _host(str(p.get("hostIP") or ""))
                out.append(PodPort(pod, host, port, protocol, (address, p["containerPort"])))
    return out


def _ports(pod: Json) -> list[Json]:
    spec = pod.get("spec") or {}
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return [p for c in containers for p in c.get("ports") or []]


def _host(asked: str) -> str:
    try:
        address = ipaddress.IPv4Address(asked or "0.0.0.0")
    except ValueError:
        return ""
    return LOOPBACK if address.is_unspecified else asked if address.is_loopback else ""
