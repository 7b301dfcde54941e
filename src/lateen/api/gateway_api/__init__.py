"""gateway.networking.k8s.io: the types of the Gateway API's kinds, with the constraints of its CRDs."""

from lateen.api.gateway_api.connections import TCPRoute, TLSRoute, UDPRoute
from lateen.api.gateway_api.gateway import Gateway, GatewayClass, ListenerSet
from lateen.api.gateway_api.policies import BackendTLSPolicy, ReferenceGrant
from lateen.api.gateway_api.requests import GRPCRoute, HTTPRoute

__all__ = [
    "BackendTLSPolicy",
    "GRPCRoute",
    "Gateway",
    "GatewayClass",
    "HTTPRoute",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "UDPRoute",
]
