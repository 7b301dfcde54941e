"""How clients write the names of hosts, and whose a spelling is that several have."""

from __future__ import annotations

from lateen.mesh.view import HostView


def spellings(host: str, namespace: str, name: str) -> tuple[str, ...]:
    """Every way in which clients write a service's name."""
    if host == f"{name}.{namespace}.svc.cluster.local":
        return (host, name, f"{name}.{namespace}", f"{name}.{namespace}.svc")
    return (host,)


def silenced(hosts: list[HostView], namespace: str) -> frozenset[tuple[str, str]]:
    """(host, spelling) where hosts share a spelling and another one has it. Full names stay with their hosts. A short
    name is that of the client's own namespace, as in its DNS, and nobody's where two others share it; an address is
    the first host's."""
    full = {h.host for h in hosts}
    claims: dict[str, list[HostView]] = {}
    for h in hosts:
        found = [*spellings(h.host, h.namespace, h.name), *h.addresses]
        for space, name in h.aliases:
            found += spellings(f"{name}.{space}.svc.cluster.local", space, name)
        for spelling in found:
            claims.setdefault(spelling, []).append(h)
    out = []
    for spelling, found_by in claims.items():
        if len(found_by) == 1:
            continue
        if spelling in full:
            owner = spelling
        elif "." in spelling or ":" in spelling:
            owner = found_by[0].host
        else:
            owner = next((h.host for h in found_by if h.namespace == namespace), "")
        out += [(h.host, spelling) for h in found_by if h.host != owner]
    return frozenset(out)
