"""What determines the filters of one filter chain."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from envoy.config.listener.v3 import listener_components_pb2 as lc
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm

from lateen.api.networking import traffic_policy as api
from lateen.mesh.inbound_view import UNRESTRICTED
from lateen.mesh.observability import Side
from lateen.mesh.plugins import Hook
from lateen.mesh.secured import Secured
from lateen.xds import pb, telemetry

HttpFilter = hcm.HttpFilter
NetworkFilter = lc.Filter
Kind = Literal["inbound", "outbound", "gateway"]


class Guard(NamedTuple):
    """A filter of SecurityPolicies."""

    name: str
    login: Secured | None = None
    """The policy with the login; None for a slot."""
    late: bool = False
    """Whether it runs after all authentication: the slots of rules."""


@dataclass(frozen=True)
class Requests:
    """A chain that routes requests."""

    kind: Kind
    workload: str = ""
    """The workload whose policies apply, if a proxy has several."""
    dynamic: str = ""
    """``HostView.lookup`` if routes may lead to any requested host name (dynamic forward proxy); else empty."""
    paths: str = UNRESTRICTED.paths
    """How paths are normalized, as ``meshConfig.pathNormalization``."""
    questions: int = 1
    """How many slots there are for the providers of CUSTOM policies (``filters.authorization``)."""
    limits: tuple[str, ...] = ()
    """The slots of rate limits (``filters.rate_limit``) at a workload's port."""
    quotas: tuple[str, ...] = ()
    """The slots of the limits that all proxies share (``filters.quota``)."""
    hooks: tuple[Hook, ...] = ()
    """Where plugins run (``filters.plugins``)."""
    guards: tuple[Guard, ...] = ()
    """SecurityPolicies (``filters.security``)"""
    guarded: tuple[str, ...] = ()
    """At gateways: the slots of routes that have some"""
    claimed: tuple[str, ...] = ()
    """At gateways: the headers with what verified tokens say, which clients must not set themselves. Envoy takes them
    away as well, but once it has chosen a route, and it chooses again only where there is a valid token."""
    challenges: bool = False
    """Whether requests of ACME servers are answered."""
    messages: bool = True
    """Whether messages of gRPC are counted, if somebody wants them: not on ports that say they have HTTP/1."""
    envoy_headers: bool = True
    """Whether x-envoy headers are added to requests and responses."""


@dataclass(frozen=True, eq=False)
class Screen:
    """What a workload's AuthorizationPolicies mean for its listeners; equal ones are one object
    (``filters.authorization.screen``)."""

    paths: str
    strict_paths: str
    questions: int
    """See ``Requests`` and ``Authorization``."""
    connections: tuple[NetworkFilter, ...]
    """The filters of connections."""
    origins: tuple[str, ...]
    """The policies."""
    more: tuple[NetworkFilter, ...] = ()
    """Further filters of connections to ports of unknown protocol."""

    @cached_property
    def of_unknown(self) -> Screen:
        """For connections to such ports."""
        return replace(self, connections=(*self.more, *self.connections)) if self.more else self


OPEN = Screen(UNRESTRICTED.paths, UNRESTRICTED.strict_paths, 1, (), ())


@dataclass(frozen=True)
class Option:
    """A DestinationRule's settings for connections to one cluster; times in seconds."""

    idle_s: float | None = None
    longest_s: float | None = None
    tunnel: api.Tunnel | None = field(default=None, hash=False)


@dataclass(frozen=True)
class Connections:
    """A chain that forwards connections."""

    seen: Side
    clusters: tuple[tuple[str, int], ...]
    """(name, weight)"""
    protocol: str = "tcp"
    server: telemetry.Server | None = None
    """None on the client's side and at gateways."""
    option: Option | None = None
    screen: Screen = OPEN
    by_sni: bool = False
    """The SNI is the name of a cluster (AUTO_PASSTHROUGH)."""
    redis: bool = False
    """Whether the protocol ``redis`` is balanced by commands."""
    resolved: tuple[str, int] | None = None
    """The SNI is resolved (``HostView.lookup``), and connected to at this port; None: it is not."""
    bytes_on_http: bool = False
    """Whether the cluster is one for requests, while connections may hold anything."""


def http_filter(name: str, config: Any, disabled: bool = False) -> hcm.HttpFilter:
    """``disabled``: the filter is off until a route has settings for it, since an idle filter costs CPU on every
    request."""
    return hcm.HttpFilter(name=name, typed_config=pb.any_of(config), disabled=disabled)
