"""The identities that clients expect of the servers of a cluster."""

from __future__ import annotations

from lateen.api.networking.traffic_policy import ClientTLS
from lateen.mesh.outbound_view import HostView, Security


def expected(view: HostView, secured: Security, found: ClientTLS | None) -> tuple[str, ...]:
    """Those that the DestinationRule names, else the endpoints' own; a ServiceEntry's names are expected beside these,
    as in Istio. Empty if any of the mesh will do."""
    domain = view.transport.trust_domains[0]
    accounts = (f"spiffe://{domain}/ns/{namespace}/sa/{account}" for namespace, account in secured.accounts)
    return (found.subject_alt_names if found else ()) or tuple(dict.fromkeys((*accounts, *view.sans)))
