"""Where VirtualServices apply: at gateways' servers and for hosts in the mesh, the oldest first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lateen.analysis.hosts import matches
from lateen.analysis.snapshot import Snapshot, Source
from lateen.api import kinds
from lateen.kit.jsons import Json

MESH = "mesh"
NEW = "9"
"""The sort key of objects from files, which have no creation time: after existing ones."""


class Served(NamedTuple):
    """A server of a Gateway to which a VirtualService is bound."""

    gateway: Source
    at: int
    server: Json
    hosts: tuple[str, ...]
    """The VirtualService's hosts that the server serves."""

    @property
    def port(self) -> object:
        return (self.server.get("port") or {}).get("number")


def age(s: Source) -> tuple[str, str, str]:
    """As ``api.objects`` sorts mesh objects."""
    return str(s.meta.get("creationTimestamp") or NEW), s.name, s.namespace


def for_mesh(vs: Source) -> bool:
    gateways = vs.spec.get("gateways") or []
    return not gateways or MESH in gateways


def gateway_name(vs: Source, name: str) -> tuple[str, str]:
    namespace, slash, gateway = name.partition("/")
    return (namespace, gateway) if slash else (vs.namespace, name)


def offered(gateway: Source, server: Json, namespace: str) -> list[str]:
    """A server's hosts that rules of ``namespace`` may use."""
    out = []
    for entry in server.get("hosts") or []:
        where, slash, name = str(entry).partition("/")
        if not slash:
            out.append(where)
        elif where in ("*", namespace) or (where == "." and gateway.namespace == namespace):
            out.append(name)
    return out


def served(snapshot: Snapshot, vs: Source) -> Iterator[Served]:
    hosts = [str(h) for h in vs.spec.get("hosts") or []]
    for name in vs.spec.get("gateways") or []:
        gateway = None if name == MESH else snapshot.get(kinds.GATEWAY, *gateway_name(vs, str(name)))
        for i, server in enumerate((gateway.spec.get("servers") or []) if gateway else []):
            assert gateway is not None
            known = offered(gateway, server, vs.namespace)
            mine = tuple(h for h in hosts if any(matches(o, h) for o in known))
            if mine:
                yield Served(gateway, i, server, mine)


def meetings(snapshot: Snapshot) -> dict[tuple[str, str], list[Source]]:
    """(place, host) -> the VirtualServices that apply there, the oldest first. A place is ``mesh`` or a Gateway."""

    def make() -> dict[tuple[str, str], list[Source]]:
        out: dict[tuple[str, str], list[Source]] = {}
        for vs in sorted(snapshot.all(kinds.VIRTUAL_SERVICE), key=age):
            places = {MESH} if for_mesh(vs) else set()
            places |= {f"Gateway {s.gateway.full}" for s in served(snapshot, vs)}
            for place in places:
                for host in dict.fromkeys(snapshot.full_host(h, vs.namespace) for h in vs.spec.get("hosts") or []):
                    out.setdefault((place, host), []).append(vs)
        return out

    return snapshot.index("meetings", make)
