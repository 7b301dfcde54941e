"""What the servers of a gateway's port demand of their clients' certificates.

TLS chooses a server by the name that the client announces (SNI), a request goes where its Host says. A server that asks
for no certificate, or for others, must therefore not serve the hosts of one that does: it would be a way around it.
Such requests are misdirected (421), also while the demanding server is left out because its Secret is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lateen.api import objects as o
from lateen.api.networking.server_tls import ServerTLS
from lateen.mesh.patterns import covers
from lateen.mesh.routing import Listener

Refused = tuple[tuple[str, o.Ref], ...]
"""Hosts of other servers, each with the Gateway that has it"""


def _demand(tls: ServerTLS | None) -> tuple[object, ...]:
    """Empty if clients need no certificate."""
    if tls is None or tls.mode not in ("MUTUAL", "ISTIO_MUTUAL"):
        return ()
    names = tls.subject_alt_names, tls.verify_certificate_spki, tls.verify_certificate_hash
    return tls.mode, tls.authorities, tls.ca_certificates, *names


def elsewhere(listener: Listener, others: Iterable[Listener]) -> Refused:
    """The hosts that a listener covers but other listeners of its port have, and demand more."""
    own, mine = hosts(listener), _demand(listener.tls)
    found = (
        (host, other.source)
        for other in others
        if (wanted := _demand(other.tls)) and wanted != mine
        for host in hosts(other)
        if host not in own and any(covers(pattern, host) for pattern in own)
    )
    return tuple(sorted(dict(found).items(), key=lambda f: f[0])) if listener.requests else ()


def belongs(host: str, own: Sequence[str], refused: Refused) -> bool:
    """Whether a host's requests are served: ``own`` are the listener's hosts, and the most specific pattern decides."""
    return all(
        not covers(other, host) or any(covers(other, mine) and covers(mine, host) for mine in own)
        for other, _ in refused
    )


def hosts(listener: Listener) -> tuple[str, ...]:
    """The listener's hosts without prefixes of namespaces, in lower case."""
    return tuple(h.rpartition("/")[2].lower() for h in listener.hosts)
