"""The cluster's DNS domain, its name and the mesh's trust domain: the one place of their defaults.

They are Istio's (``global.proxy.clusterDomain``, ``global.multiCluster.clusterName`` and ``meshConfig.trustDomain``).
The two domains are equal by chance and mean different things: the first ends the names of services, the second begins
the identities of workloads.
"""

from __future__ import annotations

CLUSTER_DOMAIN = "cluster.local"
CLUSTER_NAME = "Kubernetes"
TRUST_DOMAIN = "cluster.local"


def service_suffix(domain: str) -> str:
    """What the full names of the cluster's services end with: ``.svc.cluster.local``."""
    return f".svc.{domain}"


def service_host(name: str, namespace: str, domain: str) -> str:
    """``reviews.default.svc.cluster.local``"""
    return f"{name}.{namespace}.svc.{domain}"
