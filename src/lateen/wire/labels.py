"""All labels of a sample in one: how Envoy passes Istio's labels to the agent, which takes them apart.

Envoy formats each label of each metric anew for every request: the 25 labels of Istio's four metrics cost a pair of
sidecars a fifth of its throughput. What is constant, or known together, is therefore joined to one text:

    reporter|cluster|source|principal|destination|principal|service|protocol|code|gRPC status|flags|security

``source`` and ``destination`` are a workload's description (``PARTS``), ``service`` is ``SERVICE``; both are joined by
semicolons. ``cluster`` is the reporter's own. What is not known is empty or ``-``.
"""

from __future__ import annotations

METADATA = "LATEEN_LABELS"
"""The key of the node metadata with which an agent declares (``true``) that it takes labels apart."""
NAME = "labels"
"""The label with all others."""
PIECE, PART = "|", ";"
PARTS = ("workload", "namespace", "service", "revision", "app", "version")
"""The description of a workload, which is also in its certificate; it may be followed by its cluster."""
SERVICE = ("host", "name", "namespace")
OF_DESCRIPTION = "said"
"""The metadata of an endpoint with the description of its workload; and the part of the name of the filter state object
with that of the proxy's own and, as a second piece, its principal."""
OF_SERVICE = "called"
"""The metadata of a cluster with the description of its service."""
PIECES = 12
ENVOY_METRICS_PATH = "/stats/envoy"
"""Where the agent has Envoy's metrics alone, with Istio's labels; on port 15090 they are at ``/stats/prometheus``."""


def joined(values: tuple[str, ...]) -> str:
    """A description; empty if a value contains a separator, because it could impersonate another workload. Neither
    object names nor labels contain one, but names in ownerReferences are not validated."""
    return "" if any(PIECE in v or PART in v for v in values) else PART.join(values)
