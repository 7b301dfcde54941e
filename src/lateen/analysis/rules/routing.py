"""Routes that are accepted and never used: shadowed by older ones, of a kind that their server has no use for, and
delegates that do not fit. Istio is silent about all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.bindings import MESH, age, meetings, served
from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.kit.jsons import Json

HTTP = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")
ENDS_TLS = ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL")
NARROW = (
    "scheme",
    "method",
    "authority",
    "headers",
    "withoutHeaders",
    "queryParams",
    "port",
    "sourceLabels",
    "sourceNamespace",
    "gateways",
)


def _everything(match: Json) -> bool:
    uri = match.get("uri")
    return not any(match.get(k) for k in NARROW) and (not uri or uri.get("prefix") == "/")


def _catch_all(snapshot: Snapshot, vs: Source, depth: int = 0) -> bool:
    """Whether no HTTP request to its hosts gets past a VirtualService."""
    for rule in vs.spec.get("http") or []:
        if not isinstance(rule, dict):
            continue
        found = rule.get("match") or []
        if found and not any(isinstance(m, dict) and _everything(m) for m in found):
            continue
        wanted = rule.get("delegate")
        if not wanted:
            return True
        delegate = snapshot.get("VirtualService", str(wanted.get("namespace") or vs.namespace), str(wanted.get("name")))
        if delegate is not None and depth == 0 and _catch_all(snapshot, delegate, 1):
            return True
    return False


def _public(vs: Source) -> bool:
    given = vs.spec.get("exportTo") or ["*"]
    return "*" in given


def _takes_connections(vs: Source, kind: str) -> bool:
    """Whether no connection gets past its ``tcp`` routes; ``tls`` routes are told apart by their names."""
    return kind == "tcp" and any(not rule.get("match") for rule in vs.spec.get("tcp") or [] if isinstance(rule, dict))


@analyzer("virtualservice.ShadowedRulesAnalyzer", "Checks for virtual services that an older one shadows")
def shadowed(snapshot: Snapshot) -> Iterator[Message]:
    """For each VirtualService and host, where an older one of the same host takes everything."""
    for (place, host), found in meetings(snapshot).items():
        for kind in ("http", "tcp"):
            first = None
            for vs in found:
                if not vs.spec.get(kind):
                    continue
                if first is not None:
                    yield message("LAT0101", vs, _where(place), host, first.full, path=("spec", "hosts"))
                elif _public(vs) and (_catch_all(snapshot, vs) if kind == "http" else _takes_connections(vs, kind)):
                    first = vs
    yield from _shared_ports(snapshot)


def _where(place: str) -> str:
    return "in the mesh" if place == MESH else f"on {place}"


def _shared_ports(snapshot: Snapshot) -> Iterator[Message]:
    """A plain TCP port does not tell hosts apart: of several VirtualServices with other hosts, the oldest has it."""
    users: dict[tuple[str, object], list[Source]] = {}
    for vs in sorted(snapshot.all("VirtualService"), key=age):
        if not vs.spec.get("tcp"):
            continue
        for s in served(snapshot, vs):
            if str((s.server.get("port") or {}).get("protocol")).upper() == "TCP":
                mine = users.setdefault((f"Gateway {s.gateway.full}", s.port), [])
                if vs not in mine:
                    mine.append(vs)
    for (place, port), found in users.items():
        first = found[0]
        if not _takes_connections(first, "tcp"):
            continue
        for vs in found[1:]:
            if not set(vs.spec.get("hosts") or []) & set(first.spec.get("hosts") or []):  # else it is told by its host
                yield message("LAT0101", vs, _where(place), f"TCP port {port}", first.full, path=("spec", "tcp"))


@analyzer(
    "virtualservice.HiddenWildcardAnalyzer",
    "Checks for virtual services whose exact host keeps requests from one with a wildcard",
)
def hidden(snapshot: Snapshot) -> Iterator[Message]:
    """A proxy takes the most specific host first and does not go back to a wider one: what it does not match is 404."""
    found = meetings(snapshot)
    if not any(host.startswith("*") for _, host in found):
        return
    for (place, host), many in found.items():
        if any(_catch_all(snapshot, vs) for vs in many) or not any(vs.spec.get("http") for vs in many):
            continue
        wider = next(
            (w for at in range(1, len(host) + 1) if (w := f"*{host[at:]}") != host and (place, w) in found), ""
        )
        if wider:
            other = found[place, wider][0]
            if other not in many:
                yield message("LAT0102", many[0], host, other.full, wider, path=("spec", "hosts"))


def _wider(host: str) -> Iterator[str]:
    """The patterns with a wildcard that contain a host, the narrowest first."""
    yield from (f"*{host[at:]}" for at in range(2 if host.startswith("*") else 0, len(host) + 1))


def _uses(server: Json) -> tuple[str, str]:
    """(kind of routes that a server uses, what it is in words)"""
    protocol = str((server.get("port") or {}).get("protocol") or "").upper()
    mode = str((server.get("tls") or {}).get("mode") or "PASSTHROUGH")
    if protocol in HTTP:
        return "http", f"protocol {protocol}"
    if protocol == "HTTPS":
        return ("http", f"HTTPS with TLS mode {mode}") if mode in ENDS_TLS else ("tls", f"HTTPS with TLS mode {mode}")
    if protocol == "TLS":
        return ("tcp", f"TLS with mode {mode}") if mode in ENDS_TLS else ("tls", f"TLS with mode {mode}")
    return "tcp", f"protocol {protocol}"


@analyzer(
    "virtualservice.RouteKindAnalyzer",
    "Checks whether gateways use the kinds of routes that are bound to them",
)
def kinds_of_routes(snapshot: Snapshot) -> Iterator[Message]:
    for vs in snapshot.all("VirtualService"):
        by: dict[str, list[tuple[int, str, str]]] = {}
        for s in served(snapshot, vs):
            kind, words = _uses(s.server)
            by.setdefault(s.gateway.full, []).append((s.at, kind, words))
        for gateway, servers in by.items():
            used = {kind for _, kind, _ in servers}
            given = [k for k in ("http", "tls", "tcp") if vs.spec.get(k)]
            if used & set(given):
                continue  # routes for its other servers are no mistake
            for kind in given:
                at, wanted, words = servers[0]
                path: Path = ("spec", kind)
                yield message("LAT0103", vs, kind, gateway, at, words, wanted, path=path)


@analyzer("virtualservice.DelegateAnalyzer", "Checks whether the delegates of virtual services can be used")
def delegates(snapshot: Snapshot) -> Iterator[Message]:
    used: set[str] = set()
    for vs in snapshot.all("VirtualService"):
        for i, rule in enumerate(vs.spec.get("http") or []):
            wanted = rule.get("delegate") if isinstance(rule, dict) else None
            if not wanted:
                continue
            name, namespace = str(wanted.get("name")), str(wanted.get("namespace") or vs.namespace)
            path: Path = ("spec", "http", i, "delegate")
            found = snapshot.get("VirtualService", namespace, name)
            if found is None:
                yield message("IST0101", vs, "delegate", f"{namespace}/{name}", path=path)
                continue
            used.add(found.full)
            if why := _unfit(vs, rule, found):
                yield message("LAT0104", vs, found.full, why, path=path)
    for vs in snapshot.all("VirtualService"):
        if not vs.spec.get("hosts") and vs.full not in used and vs.spec.get("http"):
            yield message("LAT0104", vs, vs.full, "no VirtualService delegates to it, and it has no hosts of its own")


def _unfit(root: Source, rule: Json, delegate: Source) -> str:
    """Why nothing, or not all, of a delegate is used; empty where it fits."""
    exported = delegate.spec.get("exportTo") or ["*"]
    own = delegate.namespace == root.namespace
    if not ("*" in exported or root.namespace in exported or ("." in exported and own)):
        return f"it is not exported to namespace {root.namespace}"
    if delegate.spec.get("hosts"):
        return "it has hosts of its own, which a delegate must not have"
    rules = [r for r in delegate.spec.get("http") or [] if isinstance(r, dict)]
    if not rules:
        return "it has no http routes"
    if any(r.get("delegate") for r in rules):
        return "it delegates again; there is one level of delegates only"
    outside = [i for i, r in enumerate(rules) if not _fits(rule.get("match") or [], r.get("match") or [])]
    if outside:
        shown = ", ".join(f"spec.http[{i}]" for i in outside)
        return f"the matches of {shown} exclude those of VirtualService {root.full}, so that they are never used"
    return ""


def _fits(root: list[Json], own: list[Json]) -> bool:
    return not root or not own or any(not _excluded(r, m) for r in root for m in own)


def _excluded(root: Json, own: Json) -> bool:
    """Whether two matches cannot both hold; the facts are those of Istio's documentation of ``delegate``."""
    for field in ("uri", "scheme", "method", "authority"):
        if _conflict(root.get(field), own.get(field)):
            return True
    for field in ("headers", "queryParams", "withoutHeaders"):
        known = root.get(field) or {}
        if any(_conflict(known.get(k), v) for k, v in (own.get(field) or {}).items()):
            return True
    port, other = root.get("port"), own.get("port")
    return bool(port and other and port != other)


def _conflict(root: Json | None, own: Json | None) -> bool:
    if not root or not own:
        return False
    if "regex" in root or "regex" in own:
        return True
    if "exact" in root:
        return bool(own.get("exact") != root["exact"])
    return not str(own.get("exact") or own.get("prefix") or "").startswith(str(root.get("prefix") or ""))
