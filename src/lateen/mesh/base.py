"""The mesh's inputs: the tables of its objects and settings, with their indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, cast

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.envoy_gateway import BackendTrafficPolicy, targets
from lateen.api.kinds import GroupKind
from lateen.api.mesh import ProxyConfig as ProxySettings
from lateen.api.networking import (
    DestinationRule,
    Gateway,
    LocalityLb,
    VirtualService,
)
from lateen.api.security_policy import SecurityPolicy
from lateen.kit.queries import Queries
from lateen.kit.tables import Index, Table
from lateen.mesh import visibility
from lateen.mesh.authentication import KeySource
from lateen.mesh.dialects import delegates
from lateen.mesh.dialects.gateway_api.attaching import parents, set_parent
from lateen.mesh.dialects.gateway_api.listeners import service_names
from lateen.mesh.dialects.source import asks
from lateen.mesh.objects import Key, Objects, Tables
from lateen.mesh.observability import Reporting
from lateen.mesh.plugins import Module, ModuleSource
from lateen.mesh.policy import asks_for_place, hashes, levels, originates
from lateen.mesh.policy import tls as client_tls
from lateen.mesh.registry import addresses_of, inline, preferred
from lateen.mesh.selecting import Selecting, workload_labels
from lateen.mesh.settings import Cluster, Exports, IngressSettings, MeshConfig, OutboundPolicy, Transport, Trust
from lateen.mesh.spelling import spellings

Exported = o.Service | o.Resource[VirtualService] | o.Resource[DestinationRule]


class Registry:
    """Services, their endpoints and their pods in one cluster."""

    def __init__(self, cluster: str, objects: Tables) -> None:
        self.cluster, self.objects = cluster, objects
        self.services_of_host = objects.services.index(lambda _, s: (s.host,))
        self.services_in = objects.services.index(lambda key, _: (key[0],))
        self.selecting = objects.services.index(lambda key, s: ((key[0], s.selector[0]),) if s.selector else ())
        """By namespace and first label of the selector, so that a pod has to check only a few."""
        self.standing_for = objects.services.index(lambda _, s: (s.external_name,) if s.external_name else ())
        self.claims = objects.services.index(_spelled if cluster else _service_claims)
        """By every form of its name except the bare one, which only clients of its own namespace use, and in the mesh's
        own cluster by its addresses."""
        self.bare = objects.services.index(lambda key, _: (key[1],))
        self.gateways_of = objects.services.index(lambda _, s: (s.network,) if s.network else ())
        """Services that are gateways to a network (east-west gateways)."""
        self.spaces_preferring = objects.namespaces.index(lambda _, n: (n.near,) if n.near else ())
        self.preferring = objects.services.index(lambda _, s: (s.near,) if s.near else ())
        self.slices_of = objects.slices.index(lambda key, found: ((key[0], found[0]),))
        self.pods_in = objects.pods.index(lambda key, _: (key[0],))


def _spelled(_: Key, s: o.Service) -> Iterable[str]:
    return dict.fromkeys(n for n in spellings(s.host, s.namespace, s.name, s.domain) if n != s.name)


def _service_claims(key: Key, s: o.Service) -> Iterable[str]:
    return dict.fromkeys((*_spelled(key, s), *s.all_addresses))


Written = str | tuple[str, str]
"""A host as written in a rule; a bare name is also found by (the rule's namespace, name), because it means a
service of that namespace."""


def _written(hosts: Iterable[str], namespace: str) -> Iterable[Written]:
    for host in dict.fromkeys(hosts):
        yield host
        if "." not in host and host != "*":
            yield (namespace, host)


def _policy_targets(key: Key, policy: o.Resource[BackendTrafficPolicy] | o.Resource[SecurityPolicy]) -> Iterable[o.Ref]:
    return dict.fromkeys(
        o.Ref("" if t.group == "core" else t.group, t.kind, key[0], t.name) for t in targets(policy.spec)
    )


def _mesh_hosts(key: Key, vs: o.Resource[VirtualService]) -> Iterable[Written]:
    return _written(vs.spec.hosts, key[0]) if not vs.spec.gateways or "mesh" in vs.spec.gateways else ()


def _of_gateways(_: Key, vs: o.Resource[VirtualService]) -> Iterable[Key]:
    return dict.fromkeys(gateway_name(g, vs.ref.namespace) for g in vs.spec.gateways)


def _gateway_labels(_: Key, gateway: o.Resource[Gateway]) -> Iterable[tuple[str, str] | None]:
    """A Gateway is indexed by its first label; without labels, it is for all gateways, as in Istio."""
    return (min(gateway.spec.selector.items(), default=None),)


def _traffic_labels(_: Key, dr: o.Resource[DestinationRule]) -> Iterable[str]:
    """Client labels that matter: those in selectors, and those that locality settings may compare."""
    chosen = dr.spec.workload_selector.match_labels if dr.spec.workload_selector else ()
    return {*chosen, *asks_for_place(dr.spec, None)[1]}


def gateway_name(name: str, namespace: str) -> Key:
    """The gateway that a rule of ``namespace`` refers to as ``name`` or ``namespace/name``."""
    head, slash, tail = name.partition("/")
    return (head, tail) if slash else (namespace, name)


def in_namespace(key: Key, _: Any) -> tuple[str]:
    return (key[0],)


def _named_services(key: Key, gateway: Any) -> Iterable[Written]:
    """The Services that a Gateway names, as written; bare names are those of its namespace."""
    return [(key[0], name) if "." not in name else name for name in service_names(gateway)]


def _backends_meant(key: Key, policy: Any) -> Iterable[Key]:
    """The Services that a policy of the Gateway API targets."""
    meant = (t for t in policy.spec.target_refs if (t.group, t.kind) in (("", "Service"), ("core", "Service")))
    return dict.fromkeys((key[0], t.name) for t in meant)


def _parents(key: Key, route: Any) -> Iterable[tuple[str, str, str, str]]:
    return dict.fromkeys(parents(route.spec.parent_refs, key[0]))


_PARTS = tuple(f.name for f in fields(MeshConfig))


def _parts(config: MeshConfig) -> dict[str, Any]:
    """Each part of the settings is a separate entry, so that queries depend only on the parts that they read."""
    return {name: getattr(config, name) for name in _PARTS}


class Base:
    """The mesh's inputs. ``Mesh`` adds the lookups, one module per group."""

    def __init__(self, objects: Objects) -> None:
        self.queries = Queries()
        self.instant = objects
        """The current contents of the tables as an immutable value."""
        self._settings = Table[str, Any](self.queries, _parts(objects.config))
        self.objects = t = Tables(self.queries, objects)
        self.token_keys = Table[KeySource, str](self.queries, objects.token_keys)
        self.modules = Table[ModuleSource, Module](self.queries, objects.modules)
        self.own = Registry("", t)
        self._others = Table[str, Registry](self.queries, self._of_others(objects, {}))
        self._entries_of_host = t.service_entries.index(lambda _, e: dict.fromkeys(e.spec.hosts))
        self._entries_in = t.service_entries.index(in_namespace)
        self._entries_preferring = t.service_entries.index(lambda _, e: (found,) if (found := preferred(e)) else ())
        self._entry_claims = t.service_entries.index(lambda _, e: dict.fromkeys((*e.spec.hosts, *addresses_of(e))))
        self._entries_listing = t.service_entries.index(lambda _, e: dict.fromkeys(w.address for w in inline(e)))
        self._entries_selecting = t.service_entries.index(
            lambda key, e: (key[0],) if e.spec.workload_selector is not None else ()
        )
        self._workloads_in = t.workload_entries.index(in_namespace)
        self._rules_of_host = t.virtual_services.index(_mesh_hosts)
        self._rules_in = t.virtual_services.index(in_namespace)
        self._delegating = t.virtual_services.index(lambda _, vs: dict.fromkeys(delegates.names(vs)))
        """VirtualServices by the names of their delegates."""
        self._delegations = t.virtual_services.index(lambda _, vs: (True,) if delegates.concerned(vs) else ())
        self._rules_of_gateway = t.virtual_services.index(_of_gateways)
        self._traffic_of_host = t.destination_rules.index(lambda key, dr: _written((dr.spec.host,), key[0]))
        self._originating = t.destination_rules.index(
            lambda _, dr: (True,) if any(map(originates, client_tls(dr.spec))) else ()
        )
        self._hashing = t.destination_rules.index(lambda _, dr: (True,) if any(map(hashes, levels(dr.spec))) else ())
        self._labels_of_rules = t.virtual_services.index(lambda _, vs: asks(vs)[0])
        self._labels_of_traffic = t.destination_rules.index(_traffic_labels)
        self._gateways_by_label = t.gateways.index(_gateway_labels)
        self._gateways_alike = t.gateways.index(lambda _, g: (tuple(sorted(g.spec.selector.items())),))
        self._peers = Selecting(t.peer_authentications)
        self._requests = Selecting(t.request_authentications)
        self._authorization = Selecting(t.authorization_policies)
        self._sidecars = Selecting(t.sidecars, workload_labels)
        self._filters = Selecting(t.envoy_filters, workload_labels)
        self._proxy_configs = Selecting(t.proxy_configs)
        self._traffic_policies_at = t.backend_traffic_policies.index(_policy_targets)
        self._security_policies_at = t.security_policies.index(_policy_targets)
        self._telemetries = Selecting(t.telemetries)
        self._traffic_extensions = Selecting(t.traffic_extensions)
        self._wasm = Selecting(t.wasm_plugins)
        self._grants_in = t.reference_grants.index(in_namespace)
        self._gateways_naming = t.kubernetes_gateways.index(_named_services)
        self._sets_of = t.listener_sets.index(lambda _, found: (key,) if (key := set_parent(found)) else ())
        """ListenerSets by their Gateway."""
        self._backend_policies_of = t.backend_tls_policies.index(_backends_meant)
        self._sending_policies_of = t.x_backend_traffic_policies.index(_backends_meant)
        self._routes_by_parent: dict[GroupKind, Index[tuple[str, str, str, str], Key, Any]] = {
            kinds.HTTP_ROUTE.id: t.http_routes.index(_parents),
            kinds.GRPC_ROUTE.id: t.grpc_routes.index(_parents),
            kinds.TLS_ROUTE.id: t.tls_routes.index(_parents),
            kinds.TCP_ROUTE.id: t.tcp_routes.index(_parents),
            kinds.UDP_ROUTE.id: t.udp_routes.index(_parents),
        }
        """By (group, kind, namespace, name) of their parents."""

    def _of_others(self, objects: Objects, known: Mapping[str, Registry]) -> dict[str, Registry]:
        """The registries of the other clusters; ``known`` ones stay the same objects."""
        found = objects.others.items()
        return {name: known.get(name) or Registry(name, Tables(self.queries, o)) for name, o in found}

    @property
    def registries(self) -> Iterable[Registry]:
        """The cluster's own, then those of the other clusters by name."""
        yield self.own
        for name in sorted(self._others):
            yield self._others[name]

    def advance(self, objects: Objects) -> None:
        """Advance to the state of another instant; if that raises an exception, nothing has changed. Values that are
        not affected stay the same objects."""
        before = {name: self._settings.get(name) for name in _PARTS}
        now = _parts(objects.config)
        settings = {n: before[n] if before[n] == now[n] else now[n] for n in _PARTS}
        contents: list[tuple[Table[Any, Any], Mapping[Any, Any]]] = [
            (self._settings, settings),
            (self.token_keys, objects.token_keys),
            (self.modules, objects.modules),
        ]
        contents += self.objects.contents(objects)
        others = self._of_others(objects, dict(self._others.items()))
        contents.append((self._others, others))
        for name, registry in others.items():
            contents += registry.objects.contents(objects.others[name])
        self.queries.replace(contents)
        self.instant = objects

    @property
    def cluster(self) -> Cluster:
        return cast("Cluster", self._settings["cluster"])

    @property
    def transport(self) -> Transport:
        return cast("Transport", self._settings["transport"])

    @property
    def outbound_policy(self) -> OutboundPolicy:
        return cast("OutboundPolicy", self._settings["outbound"])

    @property
    def trust(self) -> Trust:
        return cast("Trust", self._settings["trust"])

    @property
    def ingress(self) -> IngressSettings:
        return cast("IngressSettings", self._settings["ingress"])

    @property
    def locality(self) -> LocalityLb | None:
        return cast("LocalityLb | None", self._settings.get("locality"))

    @property
    def proxy_defaults(self) -> ProxySettings:
        return cast("ProxySettings", self._settings["proxy"])

    @property
    def root_namespace(self) -> str:
        return cast("str", self._settings["root_namespace"])

    @property
    def path_normalization(self) -> str:
        return cast("str", self._settings["paths"])

    @property
    def reporting(self) -> Reporting:
        return cast("Reporting", self._settings["reporting"])

    @property
    def exports(self) -> Exports:
        return cast("Exports", self._settings["exports"])

    def exports_of(self, found: Exported) -> tuple[str, ...]:
        """An object's ``exportTo``, or the mesh configuration's default for its kind."""
        if isinstance(found, o.Service):
            given = found.export_to or self.exports.services
            limits = self.exports.entries if found.entries else None
            if limits is None:
                return given
            space = self.objects.namespaces.get(("", found.namespace))
            return visibility.limited(limits, dict(space.labels) if space else {}, found.namespace, given)
        if isinstance(found.spec, VirtualService):
            return found.spec.export_to or self.exports.rules
        return found.spec.export_to or self.exports.traffic

    def visible_to(self, found: Exported, viewer: str) -> bool:
        """Whether an object is exported to a namespace; the empty string stands for any namespace that no object
        mentions."""
        given = self.exports_of(found)
        if not given:
            return True
        owner = found.namespace if isinstance(found, o.Service) else found.ref.namespace
        return any(e == "*" or (e == "." and owner == viewer) or e == viewer for e in given)
