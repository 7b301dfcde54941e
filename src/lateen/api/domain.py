"""The cluster's DNS domain and the mesh's trust domain: the one place of their defaults.

Both defaults are Istio's (``global.proxy.clusterDomain`` and ``meshConfig.trustDomain``); they are equal by chance and
mean different things: the first ends the names of services, the second begins the identities of workloads.
"""

from __future__ import annotations

CLUSTER_DOMAIN = "cluster.local"
TRUST_DOMAIN = "cluster.local"
SERVICE_SUFFIX = f".svc.{CLUSTER_DOMAIN}"
"""What the full names of services of the cluster end with."""


def service_host(name: str, namespace: str, domain: str = CLUSTER_DOMAIN) -> str:
    """``reviews.default.svc.cluster.local``"""
    return f"{name}.{namespace}.svc.{domain}"
