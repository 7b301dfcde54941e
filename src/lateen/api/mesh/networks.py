"""MeshNetworks: the endpoints of each network, and the gateways through which other networks reach it.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshNetworks (the key ``meshNetworks`` of the
ConfigMap ``istio``).
"""

from __future__ import annotations

from lateen.api.config import Config


class NetworkEndpoints(Config):
    """Either all endpoints of a cluster, or all addresses of a range."""

    from_cidr: str = ""
    from_registry: str = ""


class NetworkGateway(Config):
    """A Service with addresses outside of its cluster, or an address."""

    registry_service_name: str = ""
    address: str = ""
    port: int = 0
    locality: str = ""


class Network(Config):
    endpoints: tuple[NetworkEndpoints, ...] = ()
    gateways: tuple[NetworkGateway, ...] = ()


class MeshNetworks(Config):
    networks: dict[str, Network] = {}
