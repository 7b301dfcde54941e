"""What serves a Service, by its EndpointSlices, whoever has written them. Pure; follows kube-proxy and CoreDNS."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from lateen.cluster.controllers.slices import SERVICE
from lateen.kit.jsons import Json, dig
from lateen.kube.informer import Key


@dataclass(frozen=True)
class Endpoint:
    """``ports``: (name, protocol, number). ``ready``: it gets connections; ``leaving``: it is about to end and still
    answers."""

    address: str
    host: str
    ports: tuple[tuple[str, str, int], ...]
    ready: bool
    leaving: bool


def by_service(slices: Iterable[Json]) -> dict[Key, list[Endpoint]]:
    """By namespace and name of the Service: endpoints with an IPv4 address, each once for each set of ports."""
    out: dict[Key, dict[Endpoint, None]] = {}
    for piece in slices:
        name = dig(piece, "metadata", "labels", SERVICE)
        if name and piece.get("addressType", "IPv4") == "IPv4":
            found = out.setdefault((piece["metadata"]["namespace"], str(name)), {})
            found |= dict.fromkeys(_endpoints(piece))
    return {key: list(found) for key, found in out.items()}


def _endpoints(piece: Json) -> Iterable[Endpoint]:
    ports = tuple(
        (str(p.get("name") or ""), str(p.get("protocol") or "TCP"), int(p["port"]))
        for p in piece.get("ports") or []
        if p.get("port") is not None
    )
    for e in piece.get("endpoints") or []:
        says = e.get("conditions") or {}
        ready = says.get("ready") is not False  # what is not said of an endpoint is taken for granted
        leaving = bool(says.get("terminating")) and says.get("serving", ready) is not False
        addresses = e.get("addresses") or []
        if addresses and _is_address(addresses[0]):  # further ones have no meaning
            yield Endpoint(addresses[0], str(e.get("hostname") or ""), ports, ready, leaving)


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def backends(endpoints: Iterable[Endpoint], name: str, protocol: str) -> tuple[tuple[str, int], ...]:
    """Where connections to a port of a Service go: to what is ready, or else to what is leaving."""
    found = [(e, number) for e in endpoints for n, p, number in e.ports if (n, p) == (name, protocol)]
    ready = {(e.address, number) for e, number in found if e.ready}
    return tuple(sorted(ready or {(e.address, number) for e, number in found if e.leaving}))
