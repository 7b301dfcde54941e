"""VirtualServices whose routes are defined in another VirtualService (``delegate``).

A delegate has no hosts and no gateways of its own. Its routes replace the root's route, with both matches combined, and
with the root's settings where they have none of their own. Where two matches are mutually exclusive, there is no route.
Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#Delegate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from lateen.api import objects as o
from lateen.api.networking import Destination, HTTPMatchRequest, HTTPRoute, StringMatch, VirtualService
from lateen.mesh.outcomes import Outcome, Problem

Rule = o.Resource[VirtualService]
Find = Callable[[str, str, str], Rule | None]
"""(name, namespace, the root's namespace) -> the delegate, if it exists and is exported to that namespace"""
Resolve = Callable[[str, str], str]

_TEXTS = ("uri", "scheme", "method", "authority")
_MAPS = ("headers", "without_headers", "query_params")
_OWN = ("name", "match", "route", "delegate", "redirect", "direct_response")
_INHERITED = tuple(f for f in HTTPRoute.__struct_fields__ if f not in _OWN)
"""Settings that a delegate's route inherits from the root's if it has none."""


def _conflict(root: StringMatch | None, own: StringMatch | None) -> bool:
    """Whether no text satisfies both, or it is undecidable (regular expressions)."""
    if root is None or own is None:
        return False
    if root.regex or own.regex:
        return True
    if root.exact:
        return own.exact != root.exact
    if root.prefix:
        return not (own.exact or own.prefix or "").startswith(root.prefix)
    return True


def _excluded(root: HTTPMatchRequest, own: HTTPMatchRequest) -> bool:
    if any(_conflict(getattr(root, k), getattr(own, k)) for k in _TEXTS):
        return True
    for k in _MAPS:
        known: Mapping[str, StringMatch] = getattr(root, k)
        if any(_conflict(known.get(name), m) for name, m in getattr(own, k).items()):
            return True
    return (
        root.ignore_uri_case != own.ignore_uri_case
        or bool(root.port and own.port and root.port != own.port)
        or bool(root.source_namespace and own.source_namespace and root.source_namespace != own.source_namespace)
        or any(root.source_labels.get(k, v) != v for k, v in own.source_labels.items())
        or bool(root.gateways and own.gateways and not set(own.gateways) <= set(root.gateways))
    )


def _both(root: HTTPMatchRequest, own: HTTPMatchRequest) -> HTTPMatchRequest:
    values: dict[str, Any] = {
        k: getattr(own, k) or getattr(root, k) for k in (*_TEXTS, "port", "gateways", "source_namespace", "stat_prefix")
    }
    values |= {k: {**getattr(root, k), **getattr(own, k)} for k in (*_MAPS, "source_labels")}
    values["name"] = "-".join(n for n in (root.name, own.name) if n)
    return msgspec.structs.replace(own, **values)


def _matches(
    root: tuple[HTTPMatchRequest, ...], own: tuple[HTTPMatchRequest, ...]
) -> tuple[HTTPMatchRequest, ...] | None:
    """None if no match of the delegate is compatible with one of the root's."""
    if not root or not own:
        return root or own
    found = tuple(_both(r, m) for r in root for m in own if not _excluded(r, m))
    return found or None


def _absolute(route: HTTPRoute, namespace: str, resolve: Resolve) -> HTTPRoute:
    """Resolve short names, which belong to the delegate's own namespace."""

    def full(d: Destination) -> Destination:
        return msgspec.structs.replace(d, host=resolve(d.host, namespace))

    return msgspec.structs.replace(
        route,
        route=tuple(msgspec.structs.replace(r, destination=full(r.destination)) for r in route.route),
        mirror=full(route.mirror) if route.mirror else None,
        mirrors=tuple(msgspec.structs.replace(m, destination=full(m.destination)) for m in route.mirrors),
    )


def _merged(root: HTTPRoute, delegate: Rule, resolve: Resolve) -> Iterator[HTTPRoute]:
    for route in delegate.spec.http:
        match = _matches(root.match, route.match)
        if match is None or route.delegate:  # delegates of delegates are not followed
            continue
        own = _absolute(route, delegate.ref.namespace, resolve)
        inherited = {k: getattr(root, k) for k in _INHERITED if not getattr(own, k)}
        name = "-".join(n for n in (root.name, route.name) if n)
        yield msgspec.structs.replace(own, name=name, match=match, **inherited)


def whole(vs: Rule, find: Find, resolve: Resolve) -> Rule:
    """The rule with its delegates' routes merged in. A missing delegate has no routes."""
    if not any(r.delegate for r in vs.spec.http):
        return vs
    routes: list[HTTPRoute] = []
    versions, parts = [vs.version], []
    for route in vs.spec.http:
        if route.delegate is None:
            routes.append(route)
            continue
        found = find(route.delegate.name, route.delegate.namespace or vs.ref.namespace, vs.ref.namespace)
        if found is not None and not found.spec.hosts:
            versions.append(found.version)
            parts.append(str(found.ref))
            routes += _merged(route, found, resolve)
    version = " ".join(versions)
    return replace(vs, version=version, parts=tuple(parts), spec=msgspec.structs.replace(vs.spec, http=tuple(routes)))


# --- outcomes ----------------------------------------------------------------------------------------------------


def names(vs: Rule) -> Iterator[tuple[str, str]]:
    """(namespace, name) of its delegates."""
    for route in vs.spec.http:
        if route.delegate is not None:
            yield (route.delegate.namespace or vs.ref.namespace, route.delegate.name)


def concerned(vs: Rule) -> bool:
    """Whether it has delegates, or can only be one."""
    return not vs.spec.hosts or any(route.delegate for route in vs.spec.http)


def outcome(vs: Rule, find: Callable[[str, str], Rule | None], exported: Find, used: bool) -> Outcome:
    """Which delegates are missing, or not used in full. ``exported`` finds only those that the rule may use;
    ``used``: whether some rule delegates to this one."""
    problems = []
    for i, route in enumerate(vs.spec.http):
        if route.delegate is None:
            continue
        namespace, name = route.delegate.namespace or vs.ref.namespace, route.delegate.name
        path = ("spec", "http", i, "delegate")
        delegate = find(namespace, name)
        if delegate is None:
            problems.append(Problem("DelegateNotFound", "it is not there", path, f"{namespace}/{name}"))
        elif why := _unfit(vs, route, delegate, exported(name, namespace, vs.ref.namespace) is not None):
            problems.append(Problem("DelegateUnused", why, path, f"{namespace}/{name}"))
    if not vs.spec.hosts and vs.spec.http and not used:
        why = "no VirtualService delegates to it, and it has no hosts of its own"
        problems.append(Problem("DelegateUnused", why, about=f"{vs.ref.namespace}/{vs.ref.name}"))
    return Outcome(vs.ref, tuple(problems))


def _unfit(root: Rule, route: HTTPRoute, delegate: Rule, exported: bool) -> str:
    """Why a delegate is not used, or not in full; empty if it is."""
    if not exported:
        return f"it is not exported to namespace {root.ref.namespace}"
    if delegate.spec.hosts:
        return "it has hosts of its own, which a delegate must not have"
    if not delegate.spec.http:
        return "it has no http routes"
    if any(own.delegate for own in delegate.spec.http):
        return "it delegates again, but only one level of delegation is supported"
    outside = [i for i, own in enumerate(delegate.spec.http) if _matches(route.match, own.match) is None]
    if outside:
        shown = ", ".join(f"spec.http[{i}]" for i in outside)
        return f"the matches of {shown} exclude those of {root.ref}, so its routes are never used"
    return ""
