"""Rules about ports that their service does not have, or of another kind: they are accepted, and nothing happens."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.hosts import Host, Hosts
from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.api import kinds
from lateen.api.reading import port_protocol
from lateen.kit.jsons import Json, dig

REQUESTS = ("http", "http2", "grpc", "grpc-web", "http_proxy")
"""Protocols whose requests are routed"""
MESH = ["mesh"]
"""The gateways of rules for sidecars, which is also what a VirtualService has that names none."""


@analyzer("virtualservice.PortAnalyzer", "Checks that ports in matches are ports of the VirtualService's hosts")
def matched(snapshot: Snapshot) -> Iterator[Message]:
    hosts = Hosts.of(snapshot)
    for vs in snapshot.all(kinds.VIRTUAL_SERVICE):
        if not (known := _known(hosts, vs)):
            continue
        ports = {p for host in known for p in host.ports}
        for path, match in _matches(vs):
            if match.get("port") not in (None, 0, *ports):
                yield _unknown(vs, match["port"], known, "the match", (*path, "port"))


def _known(hosts: Hosts, vs: Source) -> list[Host]:
    """The hosts of a VirtualService; none if one of them is not known, as it may have any port."""
    names = [str(h) for h in vs.spec.get("hosts") or []]
    found = [hosts.find(name, vs.namespace, {vs.namespace}) for name in names]
    known = [host for host in found if host is not None]
    return [] if len(known) < len(found) or any("*" in name for name in names) else known


@analyzer(
    "virtualservice.PortKindAnalyzer", "Checks that routes for sidecars are of a kind that ports of the hosts use"
)
def kinds_of_routes(snapshot: Snapshot) -> Iterator[Message]:
    hosts = Hosts.of(snapshot)
    for vs in snapshot.all(kinds.VIRTUAL_SERVICE):
        if (vs.spec.get("gateways") or MESH) != MESH:
            continue
        ports = {n: p for host in _known(hosts, vs) for n, p in _protocols(host).items()}
        for kind in ("http", "tls", "tcp"):
            for i, rule in enumerate(vs.spec.get(kind) or []):
                asked = [(m or {}).get("port") for m in (rule or {}).get("match") or [{}]]
                mine = {n: p for n, p in ports.items() if n in asked or not all(asked)}
                if mine and not any(_takes(p, kind) for p in mine.values()):
                    shown = ", ".join(f"{n} ({p})" for n, p in sorted(mine.items()))
                    other = "tls and tcp" if kind == "http" else "http"
                    yield message("LAT0127", vs, f"{kind}[{i}]", shown, other, path=("spec", kind, i))


def _protocols(host: Host) -> dict[int, str]:
    """Number -> what the port declares; empty if the protocol is detected."""
    ports = host.source.spec.get("ports") or []
    if host.source.kind == kinds.SERVICE.kind:
        return {p["port"]: port_protocol(p) for p in ports if p.get("port") in host.ports}
    declared = {p.get("number"): str(p.get("protocol") or "").lower() for p in ports}
    return {n: declared.get(n, "") for n in host.ports}  # another ServiceEntry of the same host may have it


def _takes(protocol: str, kind: str) -> bool:
    return protocol in ("", "hbone") or (protocol in REQUESTS) == (kind == "http")


def _matches(vs: Source) -> Iterator[tuple[Path, Json]]:
    """Those that concern sidecars alone."""
    for kind in ("http", "tls", "tcp"):
        for i, rule in enumerate(vs.spec.get(kind) or []):
            for j, match in enumerate((rule or {}).get("match") or []):
                if isinstance(match, dict) and (match.get("gateways") or vs.spec.get("gateways") or MESH) == MESH:
                    yield ("spec", kind, i, "match", j), match


@analyzer("destinationrule.PortAnalyzer", "Checks that portLevelSettings are about ports of the DestinationRule's host")
def configured(snapshot: Snapshot) -> Iterator[Message]:
    hosts = Hosts.of(snapshot)
    for dr in snapshot.all(kinds.DESTINATION_RULE):
        name = str(dr.spec.get("host") or "")
        readers = snapshot.visible(dr, dr.spec["exportTo"]) if dr.spec.get("exportTo") else {dr.namespace}
        host = hosts.find(name, dr.namespace, readers) if name and "*" not in name else None
        if host is None:
            continue
        places: list[tuple[Path, Json]] = [(("spec",), dr.spec)]
        places += [(("spec", "subsets", i), s) for i, s in enumerate(dr.spec.get("subsets") or []) if s]
        for path, holder in places:
            for i, settings in enumerate(dig(holder, "trafficPolicy", "portLevelSettings", default=[])):
                number = dig(settings, "port", "number", default=0)
                if number not in (0, *host.ports):
                    at: Path = (*path, "trafficPolicy", "portLevelSettings", i, "port")
                    yield _unknown(dr, number, [host], "the setting", at)


def _unknown(source: Source, port: object, hosts: list[Host], what: str, path: Path) -> Message:
    names = ", ".join(dict.fromkeys(h.source.ref for h in hosts))
    ports = ", ".join(str(p) for p in sorted({p for h in hosts for p in h.ports})) or "none"
    return message("LAT0126", source, port, names, what, ports, path=path)
