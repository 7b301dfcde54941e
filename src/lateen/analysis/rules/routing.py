"""Routes that are accepted and never used: shadowed by older ones, or of a kind that their server does not use. Istio
does not report them.
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.bindings import MESH, age, meetings, served
from lateen.analysis.model import model
from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.api import kinds
from lateen.kit.jsons import Json
from lateen.mesh.dialects import istio, source

HTTP = ("HTTP", "HTTP_PROXY", "HTTP2", "GRPC", "GRPC-WEB")
ENDS_TLS = ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL")


def _takes(snapshot: Snapshot, vs: Source, kind: str) -> bool:
    """Whether a VirtualService matches all requests, or all TCP connections, to its hosts."""
    found = model(snapshot).whole(vs.namespace, vs.name)
    if found is None:
        return False
    return istio.takes_requests(found.spec) if kind == "http" else istio.takes_connections(found.spec)


def _is_specific(snapshot: Snapshot, vs: Source) -> bool:
    """Whether requests come to a VirtualService at a gateway although an older one takes all: routes with conditions
    of whichever rule precede those without."""
    found = model(snapshot).whole(vs.namespace, vs.name)
    return found is not None and istio.takes_some(found.spec)


def _routes(snapshot: Snapshot, vs: Source, place: str, kind: str) -> bool:
    """Whether a VirtualService routes something at a place; otherwise its hosts are there as if there were no rule."""
    found = model(snapshot).whole(vs.namespace, vs.name)
    if found is None:
        return bool(vs.spec.get(kind))
    if place == MESH:
        return istio.routes_at(found, kind, istio.MESH)
    for s in served(snapshot, vs):
        if f"Gateway {s.gateway.full}" == place and isinstance(s.port, int):
            names = (s.gateway.name, f"{s.gateway.namespace}/{s.gateway.name}")
            pods = snapshot.gateway_pods(s.gateway)
            rules = [source.narrowed(found, p.namespace, p.labels) for p in pods] or [found]
            if any(istio.routes_at(r, kind, names, (s.port,)) for r in rules):
                return True
    return False


def _at_port(snapshot: Snapshot, vs: Source, port: object) -> tuple[bool, bool]:
    """Whether the ``tcp`` routes of a VirtualService may match connections to a port, and whether they match all."""
    found = model(snapshot).whole(vs.namespace, vs.name)
    if found is None or not isinstance(port, int):
        return False, False
    return istio.is_for_port(found.spec, port), istio.takes_connections(found.spec, port)


def _public(snapshot: Snapshot, vs: Source) -> bool:
    return "*" in snapshot.visible(vs, vs.spec.get("exportTo") or [])


@analyzer("virtualservice.ShadowedRulesAnalyzer", "Checks for virtual services that an older one shadows")
def shadowed(snapshot: Snapshot) -> Iterator[Message]:
    """For each VirtualService and host that is shadowed by an older VirtualService."""
    for (place, host), found in meetings(snapshot).items():
        for kind in ("http", "tcp"):
            first = None
            for vs in found:
                if not vs.spec.get(kind):
                    continue
                if first is not None and not (kind == "http" and place != MESH and _is_specific(snapshot, vs)):
                    if not _routes(snapshot, vs, place, kind):
                        continue
                    yield message("LAT0101", vs, _where(place), host, first.full, path=("spec", "hosts"))
                if first is None and _public(snapshot, vs) and _takes(snapshot, vs, kind):
                    first = vs
    yield from _shared_ports(snapshot)


def _where(place: str) -> str:
    return "in the mesh" if place == MESH else f"on {place}"


def _shared_ports(snapshot: Snapshot) -> Iterator[Message]:
    """A plain TCP port cannot distinguish hosts: of several VirtualServices, the oldest one gets it."""
    users: dict[tuple[str, object], list[Source]] = {}
    for vs in sorted(snapshot.all(kinds.VIRTUAL_SERVICE), key=age):
        if not vs.spec.get("tcp"):
            continue
        for s in served(snapshot, vs):
            if str((s.server.get("port") or {}).get("protocol")).upper() == "TCP":
                mine = users.setdefault((f"Gateway {s.gateway.full}", s.port), [])
                if vs not in mine:
                    mine.append(vs)
    for (place, port), all_of_it in users.items():
        found = [vs for vs in all_of_it if _at_port(snapshot, vs, port)[0]]
        if not found or not _at_port(snapshot, first := found[0], port)[1]:
            continue
        for vs in found[1:]:
            # otherwise it is distinguished by host
            if not set(vs.spec.get("hosts") or []) & set(first.spec.get("hosts") or []):
                yield message("LAT0101", vs, _where(place), f"TCP port {port}", first.full, path=("spec", "tcp"))


@analyzer(
    "virtualservice.HiddenWildcardAnalyzer",
    "Checks for virtual services whose exact host keeps requests from one with a wildcard",
)
def hidden(snapshot: Snapshot) -> Iterator[Message]:
    """A proxy uses the most specific host and does not fall back to a more general one: unmatched requests get 404."""
    found = meetings(snapshot)
    if not any(host.startswith("*") for _, host in found):
        return
    for (place, host), many in found.items():
        if any(_takes(snapshot, vs, "http") for vs in many):
            continue
        mine = [vs for vs in many if _routes(snapshot, vs, place, "http")]
        if not mine:
            continue
        wider = next(
            (w for at in range(1, len(host) + 1) if (w := f"*{host[at:]}") != host and (place, w) in found), ""
        )
        if wider:
            other = next((vs for vs in found[place, wider] if _routes(snapshot, vs, place, "http")), None)
            if other is not None and other not in many:
                yield message("LAT0102", mine[0], host, other.full, wider, path=("spec", "hosts"))


def _uses(server: Json) -> tuple[str, str]:
    """(the kind of routes that a server uses, a description of the server)"""
    protocol = str((server.get("port") or {}).get("protocol") or "").upper()
    mode = str((server.get("tls") or {}).get("mode") or "PASSTHROUGH")
    if protocol in HTTP:
        return "http", f"protocol {protocol}"
    if protocol == "HTTPS":
        return ("http", f"HTTPS with TLS mode {mode}") if mode in ENDS_TLS else ("tls", f"HTTPS with TLS mode {mode}")
    if protocol == "TLS":
        return ("tcp", f"TLS with mode {mode}") if mode in ENDS_TLS else ("tls", f"TLS with mode {mode}")
    return "tcp", f"protocol {protocol}"


def _far(kind: str, words: str) -> int:
    """How unlikely it is that routes of a kind are meant for a server, which keeps TLS, HTTPS and the others apart."""
    order = {"http": ("HTTPS", "protocol HTTP"), "tls": ("TLS", "HTTPS"), "tcp": ("TLS", "protocol TCP")}[kind]
    return next((i for i, start in enumerate(order) if words.startswith(start)), len(order))


@analyzer(
    "virtualservice.RouteKindAnalyzer",
    "Checks whether gateways use the kinds of routes that are bound to them",
)
def kinds_of_routes(snapshot: Snapshot) -> Iterator[Message]:
    for vs in snapshot.all(kinds.VIRTUAL_SERVICE):
        by: dict[str, list[tuple[int, str, str]]] = {}
        for s in served(snapshot, vs):
            kind, words = _uses(s.server)
            by.setdefault(s.gateway.full, []).append((s.at, kind, words))
        for gateway, servers in by.items():
            used = {kind for _, kind, _ in servers}
            given = [k for k in ("http", "tls", "tcp") if vs.spec.get(k)]
            if used & set(given):
                continue  # not a mistake: they are for its other servers
            for kind in given:
                at, wanted, words = min(servers, key=lambda s: _far(kind, s[2]))
                path: Path = ("spec", kind)
                yield message("LAT0103", vs, kind, gateway, at, words, wanted, path=path)
