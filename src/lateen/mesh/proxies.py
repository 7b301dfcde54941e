"""Settings of individual proxies: the mesh's ``defaultConfig``, overridden by ``proxy.istio.io/config`` on the pod.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from lateen.api import objects as o
from lateen.api.mesh import ProxyConfig
from lateen.api.mesh.proxy import Topology, Tracing
from lateen.api.mesh.reading import Invalid, read
from lateen.kit import yamldoc
from lateen.mesh.handling import Handling
from lateen.mesh.handling import handling as of_levels

ANNOTATION = "proxy.istio.io/config"
DRAIN_S, TERMINATION_S = 45.0, 5.0
"""Istio's defaults in seconds: the drain time of a replaced listener's connections, and of a terminating proxy's."""
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A gateway's topology: the proxies between it and its clients."""

    trusted_proxies: int = 0
    """The number of proxies in front whose X-Forwarded-For is trusted."""
    client_certificate: str = "SANITIZE_SET"
    """How X-Forwarded-Client-Cert is handled, in Envoy's terms."""
    proxy_protocol: bool = False
    """Whether connections begin with the PROXY protocol."""


@lru_cache(maxsize=1024)
def _read(text: str) -> ProxyConfig:
    """Decode an annotation; invalid ones are ignored, because injection has rejected them."""
    try:
        return read(ProxyConfig, yamldoc.load(text), ANNOTATION)
    except (Invalid, yamldoc.YamlError):
        return ProxyConfig()


def _levels(defaults: ProxyConfig, notes: tuple[tuple[str, str], ...]) -> tuple[ProxyConfig, ProxyConfig]:
    """The pod's own settings, then the mesh's."""
    return _read(dict(notes).get(ANNOTATION, "")), defaults


def _first(levels: tuple[ProxyConfig, ...], field: Callable[[ProxyConfig], T | None]) -> T | None:
    return next((found for level in levels if (found := field(level)) is not None), None)


def place(defaults: ProxyConfig, pod: o.Pod) -> Place:
    """``gatewayTopology``; each of its fields can be overridden separately."""
    found = [level.gateway_topology or Topology() for level in _levels(defaults, pod.notes)]
    details = [t.forward_client_cert_details for t in found]
    return Place(
        next((t.num_trusted_proxies for t in found if t.num_trusted_proxies), 0),
        next((d for d in details if d and d != "UNDEFINED"), Place.client_certificate),
        any(t.proxy_protocol is not None for t in found),
    )


def handling(defaults: ProxyConfig, pod: o.Pod) -> Handling:
    return of_levels(_levels(defaults, pod.notes))


def tracing(defaults: ProxyConfig, notes: tuple[tuple[str, str], ...]) -> tuple[Tracing, ...]:
    """The pod's own tracing settings, then the mesh's."""
    return tuple(level.tracing for level in _levels(defaults, notes) if level.tracing is not None)


def tracing_service_name(defaults: ProxyConfig, notes: tuple[tuple[str, str], ...]) -> str:
    return _first(_levels(defaults, notes), lambda c: c.tracing_service_name) or "APP_LABEL_AND_NAMESPACE"


def drain(defaults: ProxyConfig, notes: tuple[tuple[str, str], ...] = ()) -> tuple[float, float]:
    """Drain time, in seconds, of a replaced listener's connections, and of a terminating proxy's."""
    found = _levels(defaults, notes)
    replaced = _first(found, lambda c: c.drain_duration)
    ended = _first(found, lambda c: c.termination_drain_duration)
    return (
        DRAIN_S if replaced is None else replaced.seconds,
        TERMINATION_S if ended is None else ended.seconds,
    )
