"""The types of the Gateway API's kinds, the experimental group's too, with the constraints of their CRDs."""

from lateen.api.gateway_api.connections import TCPRoute, TLSRoute, UDPRoute
from lateen.api.gateway_api.gateway import Gateway, GatewayClass, ListenerSet
from lateen.api.gateway_api.policies import BackendTLSPolicy, ReferenceGrant
from lateen.api.gateway_api.requests import GRPCRoute, HTTPRoute
from lateen.api.gateway_api.traffic import XBackendTrafficPolicy

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
    "XBackendTrafficPolicy",
]
