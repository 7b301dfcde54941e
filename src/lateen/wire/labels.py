"""All labels of a sample in one: how Envoy passes Istio's labels to the agent, which takes them apart.

Envoy formats each label of each metric anew for every request: the 25 labels of Istio's four metrics cost a pair of
sidecars a fifth of its throughput. What is constant, or known together, is therefore joined to one text:

    reporter|cluster|source|principal|destination|principal|service|protocol|code|gRPC status|flags|security

``source`` and ``destination`` are a workload's description (``PARTS``), ``service`` is ``SERVICE``; both are joined by
semicolons. ``cluster`` is the reporter's own. What is not known is empty or ``-``. What a peer's certificate says may
contain anything, so pieces are counted from the sides that the reporter itself has written.

Where labels are single ones, that of a workload has its whole description, and that of a cluster the description, ``|``
and the reporter's own cluster.
"""

from __future__ import annotations

from lateen.api import tags

METADATA = "LATEEN_LABELS"
"""The key of the node metadata with which an agent declares (``true``) that it takes labels apart."""
NAME = tags.JOINED
"""The label with all others."""
PIECE, PART = "|", ";"
PARTS = ("workload", "namespace", "service", "revision", "app", "version")
"""The description of a workload, which is also in its certificate; it may be followed by its cluster."""
SERVICE = ("host", "name", "namespace")
OF_DESCRIPTION = "said"
"""The metadata of an endpoint, and the part of a filter state object's name, with the description of a workload."""
OF_IDENTITY = "identity"
"""The part of a filter state object's name with whose connection it is: description, ``|``, and SPIFFE ID. For lines
about requests (``wire.requests``), since each further operator of a format costs."""
OF_SERVICE = "called"
"""The metadata of a cluster with the description of its service."""
PIECES = 12
ENVOY_METRICS_PATH = "/stats/envoy"
"""Where the agent has Envoy's metrics alone, with Istio's labels; on port 15090 they are at ``/stats/prometheus``."""
PEER_HEADER = "x-lateen-peer"
"""The header of requests to port 15090 with the address of the client, which the agent would not know."""


def joined(values: tuple[str, ...]) -> str:
    """A description; empty if a value contains a separator, because it could impersonate another workload. Neither
    object names nor labels contain one, but names in ownerReferences are not validated."""
    return "" if any(PIECE in v or PART in v for v in values) else PART.join(values)
