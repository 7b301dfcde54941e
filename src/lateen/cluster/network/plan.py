"""The embedded cluster's addresses. The node's network namespace is private, so they cannot collide with the host's."""

from __future__ import annotations

from lateen.api.domain import CLUSTER_DOMAIN

POD_NET = "10.244.0.0/16"
SERVICE_NET = "10.96.0.0/16"
NODE_IP = "10.244.0.1"
GATEWAY = "169.254.1.1"
DNS_IP = "10.96.0.10"
API_IP = "10.96.0.1"
API_PORT = 6443
DOMAIN = CLUSTER_DOMAIN
OUTSIDE_NET = "10.97.0.0/16"
"""Where the embedded clusters of one machine have their addresses for each other."""
WAY_OUT, WAY_OUT_MTU = "out0", 65520
"""The link to the outside, where there is one."""
WAY_OUT_NET = "198.18.0.0/24"
"""Its network, which is private to the node (RFC 2544: for benchmarks, so that no host is there)."""
WAY_OUT_DNS = "198.18.0.3"
"""Where slirp4netns passes DNS on to the machine's servers."""
