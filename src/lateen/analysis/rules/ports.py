"""Rules about ports that their service does not have: they are accepted, and nothing happens."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.hosts import Host, Hosts
from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.api import kinds
from lateen.kit.jsons import Json, dig

MESH = ["mesh"]
"""The gateways of rules for sidecars, which is also what a VirtualService has that names none."""


@analyzer("virtualservice.PortAnalyzer", "Checks that ports in matches are ports of the VirtualService's hosts")
def matched(snapshot: Snapshot) -> Iterator[Message]:
    hosts = Hosts.of(snapshot)
    for vs in snapshot.all(kinds.VIRTUAL_SERVICE):
        names = [str(h) for h in vs.spec.get("hosts") or []]
        found = [hosts.find(name, vs.namespace, {vs.namespace}) for name in names]
        known = [host for host in found if host is not None]
        if not names or len(known) < len(found) or any("*" in name for name in names):
            continue  # what is not known may have any port
        ports = {p for host in known for p in host.ports}
        for path, match in _matches(vs):
            if match.get("port") not in (None, 0, *ports):
                yield _unknown(vs, match["port"], known, "the match", (*path, "port"))


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
