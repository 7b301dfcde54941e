"""Gateways and their listeners: https://gateway-api.sigs.k8s.io/reference/spec/#gateway"""

from __future__ import annotations

from typing import Annotated, Literal

from lateen.api.config import Defaulted, Limits
from lateen.api.gateway_api.common import (
    GROUP,
    Experimental,
    Group,
    Hostname,
    KindName,
    LabelSelector,
    LocalObjectReference,
    Namespace,
    ObjectName,
    ObjectReference,
    Option,
    PortNumber,
    SecretObjectReference,
    SectionName,
)

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_PATH = r"\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+"
Protocol = Annotated[
    str,
    Limits(
        pattern=rf"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|{_DOMAIN}\/[A-Za-z0-9]+$",
        min_length=1,
        max_length=255,
        says="HTTP, HTTPS, TLS, TCP, UDP, or domain/name",
    ),
]
AddressType = Annotated[
    str,
    Limits(
        pattern=f"^Hostname|IPAddress|NamedAddress|{_DOMAIN}{_PATH}$",
        min_length=1,
        max_length=253,
        says="IPAddress, Hostname, or domain/name",
    ),
]
ControllerName = Annotated[
    str,
    Limits(
        pattern=f"^{_DOMAIN}{_PATH}$", min_length=1, max_length=253, says="domain/path, as istio.io/gateway-controller"
    ),
]


LabelValue = Annotated[
    str, Limits(pattern="^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", max_length=63, says="a label's value")
]


TERMINATE_MODE, CIPHERS = "gateway.istio.io/tls-terminate-mode", "gateway.istio.io/tls-cipher-suites"
"""Istio's TLS options of listeners (pilot/pkg/config/kube/gateway/conversion.go)."""
TERMINATE_MODES = ("SIMPLE", "MUTUAL", "ISTIO_MUTUAL")


class RouteGroupKind(Defaulted, kw_only=True):
    group: Group = GROUP
    kind: KindName


class RouteNamespaces(Defaulted, kw_only=True):
    from_: Literal["All", "Selector", "Same"] = "Same"
    selector: LabelSelector | None = None


class AllowedRoutes(Defaulted, kw_only=True):
    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: Annotated[tuple[RouteGroupKind, ...], Limits(max_items=8)] = ()


class ListenerTLS(Defaulted, kw_only=True):
    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: Annotated[tuple[SecretObjectReference, ...], Limits(max_items=64)] = ()
    options: dict[str, Option] = {}


class Listener(Defaulted, kw_only=True):
    name: SectionName
    hostname: Hostname | None = None
    port: PortNumber
    protocol: Protocol
    tls: ListenerTLS | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewayAddress(Defaulted, kw_only=True):
    type: AddressType = "IPAddress"
    value: Annotated[str, Limits(max_length=253)] | None = None


class GatewayInfrastructure(Defaulted, kw_only=True):
    labels: dict[str, LabelValue] = {}
    annotations: dict[str, Option] = {}
    parameters_ref: LocalObjectReference | None = None


class ListenerNamespaces(Defaulted, kw_only=True):
    from_: Literal["All", "Selector", "Same", "None"] = "None"
    selector: LabelSelector | None = None


class AllowedListeners(Defaulted, kw_only=True):
    namespaces: ListenerNamespaces = ListenerNamespaces()


class FrontendValidation(Defaulted, kw_only=True):
    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], Limits(min_items=1, max_items=16)]
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = "AllowValidOnly"


class FrontendTLS(Defaulted, kw_only=True):
    validation: FrontendValidation | None = None


class PortTLS(Defaulted, kw_only=True):
    port: PortNumber
    tls: FrontendTLS


class FrontendTLSConfig(Defaulted, kw_only=True):
    default: FrontendTLS
    per_port: Annotated[tuple[PortTLS, ...], Limits(max_items=64)] = ()


class BackendTLS(Defaulted, kw_only=True):
    client_certificate_ref: SecretObjectReference | None = None


class GatewayTLS(Defaulted, kw_only=True):
    backend: BackendTLS | None = None
    frontend: FrontendTLSConfig | None = None


class Gateway(Defaulted, kw_only=True):
    gateway_class_name: ObjectName
    listeners: Annotated[tuple[Listener, ...], Limits(min_items=1, max_items=64)]
    addresses: Annotated[tuple[GatewayAddress, ...], Limits(max_items=16)] = ()
    infrastructure: GatewayInfrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTLS | None = None
    default_scope: Annotated[Literal["All", "None"] | None, Experimental] = None


class ParametersReference(Defaulted, kw_only=True):
    group: Group
    kind: KindName
    name: ObjectName
    namespace: Namespace | None = None


class GatewayClass(Defaulted, kw_only=True):
    controller_name: ControllerName
    parameters_ref: ParametersReference | None = None
    description: Annotated[str, Limits(max_length=64)] | None = None


class ParentGatewayReference(Defaulted, kw_only=True):
    group: Group = GROUP
    kind: KindName = "Gateway"
    name: ObjectName
    namespace: Namespace | None = None


class ListenerSet(Defaulted, kw_only=True):
    parent_ref: ParentGatewayReference
    listeners: Annotated[tuple[Listener, ...], Limits(min_items=1, max_items=64)]
