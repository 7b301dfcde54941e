"""The input of the translator (``xds``): frozen values, which also serve as the keys of its results.

Values are shared between proxies, and between instants of the mesh, for as long as nothing in them changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lateen.api import objects as o
from lateen.api.networking.envoy_filter import EnvoyConfigObjectPatch
from lateen.mesh.cached import Cached
from lateen.mesh.gateway_view import GatewayView
from lateen.mesh.inbound_view import Checks, InboundView
from lateen.mesh.observability import Observability, Side
from lateen.mesh.outbound_view import OutboundView
from lateen.mesh.workloads import Seat


@dataclass(frozen=True)
class Patch:
    """One entry of an EnvoyFilter. Compared by its position."""

    ref: o.Ref
    version: str
    index: int
    spec: EnvoyConfigObjectPatch = field(compare=False)


@dataclass(frozen=True, eq=False)
class Callers(Cached):
    """How outbound listeners describe the proxy's own workloads; the same object for all equal ones."""

    sides: tuple[tuple[Side, Seat], ...] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Own(Cached):
    """The part of a view that is the proxy's own: a gateway's, or one inbound view for each of its workloads."""

    inbound: tuple[InboundView, ...] = field(kw_only=True)
    gateway: GatewayView | None = field(kw_only=True)
    checks: tuple[Checks, ...] = field(kw_only=True)
    """The gateway's, or one for each workload."""
    credentials: tuple[o.Credential, ...] = field(kw_only=True)
    """Secrets of a gateway's TLS servers, and of rules for TLS origination."""
    reports: tuple[Observability, ...] = field(kw_only=True)
    """The gateway's reports, or one for each workload."""
    callers: Callers = field(kw_only=True)


@dataclass(frozen=True)
class View:
    """The complete input for one proxy."""

    outbound: OutboundView
    own: Own
    patches: tuple[Patch, ...] = ()
    """EnvoyFilter patches, applied to the finished resources in order."""

    @property
    def inbound(self) -> tuple[InboundView, ...]:
        return self.own.inbound

    @property
    def gateway(self) -> GatewayView | None:
        return self.own.gateway
