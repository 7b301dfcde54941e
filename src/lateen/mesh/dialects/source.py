"""Rules for some clients only: ``sourceLabels`` and ``sourceNamespace`` of a VirtualService's matches.

A proxy gets a rule without the matches for other clients; a route with no matches left is dropped. Of HTTP, matches
with ``gateways`` are for all workloads there, as in Istio ("the gateway match is independent of sourceLabels"), whose
``sourceMatchHTTP`` compares one or the other; of TLS and TCP, both count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from lateen.api import objects as o
from lateen.api.networking import VirtualService
from lateen.api.networking.virtual_service import HTTPMatchRequest


def _matches(spec: VirtualService) -> Iterable[Any]:
    for routes in (spec.http, spec.tls, spec.tcp):
        for route in routes:
            yield from route.match


def asks(vs: o.Resource[VirtualService]) -> tuple[frozenset[str], frozenset[str]]:
    """(client labels that some match uses, namespaces that some match names)"""
    keys: set[str] = set()
    namespaces: set[str] = set()
    for m in _matches(vs.spec):
        keys |= m.source_labels.keys()
        if m.source_namespace:
            namespaces.add(m.source_namespace)
    return frozenset(keys), frozenset(namespaces)


def narrowed(vs: o.Resource[VirtualService], namespace: str, labels: Mapping[str, str]) -> o.Resource[VirtualService]:
    """The rule as it applies to a client in a namespace with these labels."""
    if not any(m.source_labels or m.source_namespace for m in _matches(vs.spec)):
        return vs

    def for_client(m: Any) -> bool:
        if isinstance(m, HTTPMatchRequest) and m.gateways:
            return True
        return (not m.source_namespace or m.source_namespace == namespace) and all(
            labels.get(k) == v for k, v in m.source_labels.items()
        )

    kept: dict[str, Any] = {}
    pattern = []
    for field in ("http", "tls", "tcp"):
        routes = []
        for route in getattr(vs.spec, field):
            mine = tuple(m for m in route.match if for_client(m))
            pattern.append(tuple(for_client(m) for m in route.match))
            if route.match and not mine:
                continue
            plain = tuple(msgspec.structs.replace(m, source_labels={}, source_namespace="") for m in mine)
            routes.append(msgspec.structs.replace(route, match=plain))
        kept[field] = tuple(routes)
    # the same selection of matches returns the same rule object for all clients
    return replace(vs, version=f"{vs.version}/{hash(tuple(pattern)):x}", spec=msgspec.structs.replace(vs.spec, **kept))
