"""Applies a proxy's patches to its resources.

Patches are ordered: the root namespace's before the workload's, by priority, then by age. A resource that no patch
changes stays the same object, with the same bytes, as for all other proxies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.service.discovery.v3 import discovery_pb2

from lateen.kit.derived import held
from lateen.mesh.view import Patch
from lateen.wire import names
from lateen.wire.resource import Resource, ResourceSet
from lateen.xds import pb
from lateen.xds.filters import slots
from lateen.xds.patches import matching, values
from lateen.xds.patches.operations import (
    MERGES,
    Patches,
    Work,
    in_context,
    in_list,
    merge,
    operation_of,
    value_of,
    whole,
)

Sets = tuple[ResourceSet, ...]
_LISTENER = ("LISTENER", "LISTENER_FILTER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER")
_ROUTES = ("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE")
_KINDS = {
    names.CDS: (("CLUSTER",), "CLUSTER"),
    names.LDS: ((*_LISTENER, *_ROUTES), "LISTENER"),
    names.RDS: (_ROUTES, "ROUTE_CONFIGURATION"),
    names.VHDS: (_ROUTES, "VIRTUAL_HOST"),
}
"""Type -> (what is patched there, the message that it consists of)"""


@dataclass(frozen=True)
class Patched:
    sets: Mapping[str, Sets]
    touched: Mapping[tuple[str, str], Patches] = field(default_factory=dict)
    """(type, resource) -> the patches that have changed it"""

    def matched(self) -> set[Patch]:
        return {p for found in self.touched.values() for p in found}


def apply(sets: Mapping[str, Sets], patches: Patches, gateway: bool) -> Patched:
    """``patches`` without those whose values ``parsed`` cannot parse."""
    wanted = {t: tuple(p for p in patches if p.spec.apply_to in kinds) for t, (kinds, _) in _KINDS.items()}
    out: dict[str, Sets] = dict(sets)
    touched: dict[tuple[str, str], Patches] = {}
    for type_url, mine in wanted.items():
        if mine and type_url in sets:
            made = [_set(s, type_url, mine, gateway) for s in sets[type_url]]
            added, names_ = _added(type_url, mine, gateway)
            out[type_url] = (*(s for s, _ in made), *([added] if added else []))
            for _, found in made:
                touched |= {(type_url, name): p for name, p in found}
            touched |= {(type_url, name): (p,) for name, p in names_}
    extensions = tuple(p for p in patches if p.spec.apply_to == "EXTENSION_CONFIG")
    if extensions:
        out[names.ECDS] = (*out.get(names.ECDS, ()), _extensions(extensions))
        touched |= {(names.ECDS, value_of(p).name): (p,) for p in extensions}
    return Patched(out, touched)


@lru_cache(maxsize=256)
def _set(found: ResourceSet, type_url: str, patches: Patches, gateway: bool) -> tuple[ResourceSet, tuple[Any, ...]]:
    kept: dict[str, Resource] = {}
    touched = []
    for name, resource in found.resources.items():
        new, by = _resource(resource, type_url, patches, gateway)
        if by:
            touched.append((name, by))
        if new is not None:
            kept[name] = new
    return (ResourceSet(kept) if touched else found), tuple(touched)


@lru_cache(maxsize=65536)
def _resource(resource: Resource, type_url: str, patches: Patches, gateway: bool) -> tuple[Resource | None, Patches]:
    message = values.KINDS[_KINDS[type_url][1]]()
    message.ParseFromString(discovery_pb2.Resource.FromString(resource.wrapped).resource.value)
    work = Work(message, _context(type_url, message, gateway))
    if type_url == names.CDS:
        _cluster(work, patches)
    elif type_url == names.LDS:
        _listener(work, patches)
    elif type_url == names.RDS:
        _routes(work, message, message.name, patches)
    else:
        _virtual_host(work, message, resource.name.partition("/")[0], patches)
    if not work.touched:
        return resource, ()
    by = tuple(work.touched)
    if work.removed:
        return None, by
    origins = tuple(dict.fromkeys((*resource.origin, *(str(p.ref) for p in by))))
    return pb.resource(resource.name, message, origins, resource.rank), by


def _context(type_url: str, message: Any, gateway: bool) -> str:
    if gateway:
        return "GATEWAY"
    if type_url == names.CDS:
        return "SIDECAR_INBOUND" if message.name.startswith(("inbound|", "Inbound")) else "SIDECAR_OUTBOUND"
    if type_url == names.LDS and message.traffic_direction == 1:
        return "SIDECAR_INBOUND"
    return "SIDECAR_OUTBOUND"


# --- clusters and what is added ----------------------------------------------------------------------------------


def _cluster(work: Work, patches: Patches) -> None:
    name = work.message.name
    found = [(p, p.spec.match.cluster if p.spec.match else None) for p in in_context(patches, "CLUSTER", work.context)]
    whole(work, [p for p, m in found if matching.cluster(m, name)])


@lru_cache(maxsize=256)
def _added(type_url: str, patches: Patches, gateway: bool) -> tuple[ResourceSet | None, tuple[tuple[str, Patch], ...]]:
    """Whole clusters and listeners."""
    kind = {names.CDS: "CLUSTER", names.LDS: "LISTENER"}.get(type_url)
    out: dict[str, Resource] = {}
    by = []
    for p in patches:
        context = p.spec.match.context if p.spec.match else "ANY"
        fits = context in ("ANY", "GATEWAY") if gateway else context != "GATEWAY"
        if p.spec.apply_to == kind and operation_of(p) == "ADD" and fits:
            message = value_of(p)
            if message.name not in out:
                out[message.name] = pb.resource(message.name, message, (str(p.ref),))
                by.append((message.name, p))
    return (ResourceSet(out) if out else None), tuple(by)


@held
def _extensions(patches: Patches) -> ResourceSet:
    out = {}
    for p in patches:
        found: extension_pb2.TypedExtensionConfig = value_of(p)
        out[found.name] = pb.resource(found.name, found, (str(p.ref),))
    return ResourceSet(out)


# --- listeners ---------------------------------------------------------------------------------------------------


def _listener(work: Work, patches: Patches) -> None:
    message = work.message

    def those(kind: str) -> list[tuple[Patch, Any]]:
        found = [(p, p.spec.match.listener if p.spec.match else None) for p in in_context(patches, kind, work.context)]
        return [(p, m) for p, m in found if matching.listener(m, message)]

    if whole(work, [p for p, _ in those("LISTENER")]):
        return
    for p, m in those("LISTENER_FILTER"):
        wanted = m.listener_filter if m else ""
        in_list(work, message.listener_filters, p, lambda f, w=wanted: not w or f.name == w, bool(wanted))
    for p, m in those("FILTER_CHAIN"):
        in_list(work, message.filter_chains, p, lambda c, m=m: matching.chain(m, message, c), True)
        rest = _rest(message)
        if rest and operation_of(p) in MERGES and matching.chain(m, message, rest[0]):
            merge(work, rest[0], p)
    chains = [*message.filter_chains, *_rest(message)]
    for p, m in those("NETWORK_FILTER"):
        for c in chains:
            if matching.chain(m, message, c) or (_inserts(p) and matching.chain(_without_filter(m), message, c)):
                named = bool(m and m.filter_chain and m.filter_chain.filter)
                in_list(work, c.filters, p, lambda f, m=m: matching.network_filter(m, f), named)
    http = those("HTTP_FILTER")
    inline = [p for kind in _ROUTES for p in in_context(patches, kind, work.context)]
    if http or inline:
        for c in chains:
            _managers(work, c, [(p, m) for p, m in http if matching.chain(m, message, c)], patches if inline else ())


def _rest(listener: Any) -> list[Any]:
    return [listener.default_filter_chain] if listener.HasField("default_filter_chain") else []


def _inserts(patch: Patch) -> bool:
    return operation_of(patch) in ("ADD", "INSERT_FIRST")


def _without_filter(m: Any) -> Any:
    import msgspec

    if m is None or m.filter_chain is None:
        return m
    return msgspec.structs.replace(m, filter_chain=msgspec.structs.replace(m.filter_chain, filter=None))


def _managers(work: Work, chain: Any, http: list[tuple[Patch, Any]], routed: Patches) -> None:
    """The HTTP connection managers of a chain: their filters and their own routes."""
    for f in chain.filters:
        if f.name not in matching.HCM:
            continue
        manager = hcm.HttpConnectionManager()
        f.typed_config.Unpack(manager)
        before = len(work.touched), manager.SerializeToString(deterministic=True)
        for p, m in http:
            wanted = matching.http_filter(m)
            end = _end(manager.http_filters, p.spec.patch.filter_class if p.spec.patch else "")
            in_list(work, manager.http_filters, p, lambda h, w=wanted: not w or _called(h, w), bool(wanted), end)
        if routed and manager.HasField("route_config"):
            _routes(work, manager.route_config, manager.route_config.name, routed)
        if (len(work.touched), manager.SerializeToString(deterministic=True)) != before:
            f.typed_config.CopyFrom(pb.any_of(manager))


def _called(filter_: Any, name: str) -> bool:
    """A filter whose configuration is delivered separately can also be named by its kind."""
    return name in (filter_.name, slots.kind(filter_.name))


_AUTHN = ("envoy.filters.http.jwt_authn", "envoy.filters.http.ext_authz")
_AUTHZ = (*_AUTHN, "envoy.filters.http.rbac")


def _end(filters: Any, filter_class: str) -> int:
    """Where ADD inserts: after authentication or authorization if its filterClass says so, else before the router,
    which must be last."""
    after = {"AUTHN": _AUTHN, "AUTHZ": _AUTHZ}.get(filter_class)
    if after is not None:
        return max((i + 1 for i, f in enumerate(filters) if (slots.kind(f.name) or f.name) in after), default=0)
    return max(0, len(filters) - 1)


# --- routes ------------------------------------------------------------------------------------------------------


def _routes(work: Work, message: Any, name: str, patches: Patches) -> None:
    def those(kind: str) -> list[tuple[Patch, Any]]:
        found = [
            (p, p.spec.match.route_configuration if p.spec.match else None)
            for p in in_context(patches, kind, work.context)
        ]
        return [(p, m) for p, m in found if matching.routes(m, name)]

    for p, _ in those("ROUTE_CONFIGURATION"):
        if operation_of(p) in MERGES:
            merge(work, message, p)
    for p, m in those("VIRTUAL_HOST"):
        in_list(work, message.virtual_hosts, p, lambda h, m=m: matching.virtual_host(m, h), True)
    for host in message.virtual_hosts:
        _own_routes(work, host, those("HTTP_ROUTE"))


def _virtual_host(work: Work, host: Any, name: str, patches: Patches) -> None:
    """A virtual host that is a resource of its own, of the route configuration ``name``."""
    found = [
        (p, p.spec.match.route_configuration if p.spec.match else None) for p in patches if p.spec.apply_to in _ROUTES
    ]
    mine = [
        (p, m) for p, m in found if matching.routes(m, name) and p in in_context(patches, p.spec.apply_to, work.context)
    ]
    if whole(work, [p for p, m in mine if p.spec.apply_to == "VIRTUAL_HOST" and matching.virtual_host(m, host)]):
        return
    _own_routes(work, host, [(p, m) for p, m in mine if p.spec.apply_to == "HTTP_ROUTE"])


def _own_routes(work: Work, host: Any, patches: Iterable[tuple[Patch, Any]]) -> None:
    for p, m in patches:
        if matching.virtual_host(m, host):
            named = bool(m and m.vhost and m.vhost.route)
            in_list(work, host.routes, p, lambda r, m=m: matching.route(m, r), named)
