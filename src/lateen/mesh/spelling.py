"""How clients spell the names of hosts, and which host owns a spelling that several hosts claim."""

from __future__ import annotations

from lateen.mesh.view import HostView


def spellings(host: str, namespace: str, name: str) -> tuple[str, ...]:
    """Every way in which clients write a service's name. The full name also stands with the dot of an absolute DNS
    name, as in Istio (``ENABLE_ABSOLUTE_FQDN_VHOST_DOMAIN``)."""
    own = (host,) if host == "*" or _is_address(host) or host.endswith(".") else (host, f"{host}.")
    if host == f"{name}.{namespace}.svc.cluster.local":
        return (*own, name, f"{name}.{namespace}", f"{name}.{namespace}.svc")
    return own


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def silenced(hosts: list[HostView], namespace: str) -> frozenset[tuple[str, str]]:
    """(host, spelling) of spellings that a host must not claim, since Envoy allows each of them once. A full name stays
    with its host. A bare short name means a service of the client's ``namespace``, as in its DNS, even where no other
    namespace has a service of that name; an empty ``namespace`` stands for clients that share a view, for whom a bare
    name is free while one host alone claims it. An address is the first host's."""
    full = {h.host for h in hosts}
    claims: dict[str, dict[str, str]] = {}
    for h in hosts:
        found = [(s, h.namespace) for s in (*spellings(h.host, h.namespace, h.name), *h.addresses)]
        for space, name in h.aliases:
            found += [(s, space) for s in spellings(f"{name}.{space}.svc.cluster.local", space, name)]
        for spelling, space in found:
            claims.setdefault(spelling, {}).setdefault(h.host, space)
    out = []
    for spelling, claimed in claims.items():
        if spelling in full:
            owner = spelling
        elif "." in spelling or ":" in spelling or (len(claimed) == 1 and not namespace):
            owner = next(iter(claimed))
        else:
            owner = next((host for host, space in claimed.items() if space == namespace), "")
        out += [(host, spelling) for host in claimed if host != owner]
    return frozenset(out)
