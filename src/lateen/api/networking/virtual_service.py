"""VirtualService: https://istio.io/latest/docs/reference/config/networking/virtual-service/"""

from __future__ import annotations

import msgspec

from lateen.api.config import Config
from lateen.api.networking.common import Destination
from lateen.api.networking.http import Headers, Percent, RequestMatch, RouteSettings


class HTTPMatchRequest(RequestMatch):
    name: str = ""
    port: int | None = None
    source_labels: dict[str, str] = {}
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()


class HTTPRouteDestination(Config):
    destination: Destination
    weight: int | None = None
    headers: Headers | None = None


class Delegate(Config):
    name: str
    namespace: str = ""


class HTTPMirrorPolicy(Config):
    destination: Destination
    percentage: Percent | None = None


class HTTPRoute(RouteSettings):
    name: str = ""
    match: tuple[HTTPMatchRequest, ...] = ()
    route: tuple[HTTPRouteDestination, ...] = ()
    delegate: Delegate | None = None
    mirror: Destination | None = None
    mirror_percent: int | None = None
    mirror_percent_old: int | None = msgspec.field(default=None, name="mirror_percent")
    mirror_percentage: Percent | None = None
    mirrors: tuple[HTTPMirrorPolicy, ...] = ()


class L4MatchAttributes(Config):
    destination_subnets: tuple[str, ...] = ()
    port: int | None = None
    source_labels: dict[str, str] = {}
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""
    source_subnet: str = ""


class TLSMatchAttributes(Config):
    sni_hosts: tuple[str, ...]
    destination_subnets: tuple[str, ...] = ()
    port: int | None = None
    source_labels: dict[str, str] = {}
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""


class RouteDestination(Config):
    destination: Destination
    weight: int | None = None


class TLSRoute(Config):
    match: tuple[TLSMatchAttributes, ...]
    route: tuple[RouteDestination, ...] = ()


class TCPRoute(Config):
    match: tuple[L4MatchAttributes, ...] = ()
    route: tuple[RouteDestination, ...] = ()


class VirtualService(Config):
    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    http: tuple[HTTPRoute, ...] = ()
    tls: tuple[TLSRoute, ...] = ()
    tcp: tuple[TCPRoute, ...] = ()
    export_to: tuple[str, ...] = ()
