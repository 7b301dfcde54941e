"""Routes for connections and datagrams: TLSRoute, TCPRoute, UDPRoute.

Source: https://gateway-api.sigs.k8s.io/reference/spec/#tlsroute, #tcproute and #udproute.
"""

from __future__ import annotations

from typing import Annotated

from lateen.api.config import Defaulted, Limits
from lateen.api.gateway_api.common import BackendRef, CommonRouteSpec, Hostname, SectionName


class ConnectionRule(Defaulted, kw_only=True):
    name: SectionName | None = None
    backend_refs: Annotated[tuple[BackendRef, ...], Limits(min_items=1, max_items=16)]


Rules = Annotated[tuple[ConnectionRule, ...], Limits(min_items=1, max_items=1)]


class TLSRoute(CommonRouteSpec, kw_only=True):
    hostnames: Annotated[tuple[Hostname, ...], Limits(min_items=1, max_items=1024)]
    rules: Rules


class TCPRoute(CommonRouteSpec, kw_only=True):
    rules: Rules


class UDPRoute(CommonRouteSpec, kw_only=True):
    rules: Rules
