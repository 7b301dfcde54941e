"""Defaults of the cluster's DNS domain, the cluster's name, and the mesh's trust domain.

They are Istio's (``global.proxy.clusterDomain``, ``global.multiCluster.clusterName`` and ``meshConfig.trustDomain``).
The two domains have the same default but different meanings: the first is the suffix of service names, the second the
first part of workload identities.
"""

from __future__ import annotations

CLUSTER_DOMAIN = "cluster.local"
CLUSTER_NAME = "Kubernetes"
TRUST_DOMAIN = "cluster.local"


def service_suffix(domain: str) -> str:
    """The suffix of the full names of the cluster's services: ``.svc.cluster.local``."""
    return f".svc.{domain}"


def service_host(name: str, namespace: str, domain: str) -> str:
    """``reviews.default.svc.cluster.local``"""
    return f"{name}.{namespace}.svc.{domain}"
