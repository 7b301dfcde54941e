"""The mesh at one instant: immutable, indexed by what the translator asks for.

``Mesh.apply`` gives the next instant; it shares everything that a change does not touch, and HostViews that come
out equal are the same objects as before, so that what was built from them is found in caches by identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

from lateen.api import objects as o
from lateen.api.ingress import Ingress
from lateen.api.networking import (
    DestinationRule,
    EnvoyFilter,
    Gateway,
    ProxyConfig,
    Sidecar,
    VirtualService,
)
from lateen.api.security import AuthorizationPolicy, PeerAuthentication
from lateen.mesh import delegates, ingress, policy, registry
from lateen.mesh.objects import COLLECTIONS, Key, Labels, Objects

T = TypeVar("T")

_NEEDS: dict[str, tuple[str, ...]] = {
    "hosts": ("services", "service_entries"),
    "public": ("services", "service_entries"),
    "aliases": ("services", "service_entries"),
    "automatic": ("service_entries",),
    "entry_addresses": ("service_entries",),
    "slices": ("slices",),
    "of_pod": ("slices",),
    "pods": ("pods",),
    "workloads": ("workload_entries",),
    "selecting": ("services",),
    "ingresses": ("ingresses", "ingress_classes"),
    "whole": ("virtual_services", "services", "service_entries", "ingresses", "ingress_classes"),
    "rules": ("virtual_services", "services", "service_entries", "ingresses", "ingress_classes"),
    "destination_rules": ("destination_rules", "services", "service_entries"),
    "secret_rules": ("destination_rules",),
    "peers": ("peer_authentications",),
    "sidecars": ("sidecars",),
    "filters": ("envoy_filters",),
}
"""What is worked out once, and the collections that it is made from: while these stay, it stays."""


class Mesh:
    """All lookups over one ``Objects``; what is worked out once is kept."""

    def __init__(self, objects: Objects, previous: Mesh | None = None) -> None:
        self.objects = objects
        self.config = objects.config
        self._indexes: dict[str, Any] = {}
        self._endpoints: dict[Key, tuple[o.Service, dict[str, registry.Found]]] = {}
        if previous is not None and previous.config == objects.config:
            changed = {c for c in COLLECTIONS if getattr(objects, c) is not getattr(previous.objects, c)}
            self._indexes = {n: v for n, v in previous._indexes.items() if not changed.intersection(_NEEDS[n])}
            self._keep_endpoints(previous, changed)

    def _index(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._indexes:
            self._indexes[name] = make()
        return cast(T, self._indexes[name])

    # --- services --------------------------------------------------------------------------------------------

    def by_host(self) -> dict[str, tuple[o.Service, ...]]:
        """Host -> services of that name, one of a namespace; the first is who has it for everybody."""
        return self._index(
            "hosts",
            lambda: registry.by_host(self.objects.services.values(), self.objects.service_entries.values()),
        )

    def hosts(self) -> Iterable[o.Service]:
        for found in self.by_host().values():
            yield from found

    def service(self, host: str, viewer: str = "") -> o.Service | None:
        """The one that clients of a namespace reach: their own, else the first that they may see."""
        found = self.by_host().get(host, ())
        if not viewer:
            return found[0] if found else None
        mine = [s for s in found if self.visible_to(s.export_to, s.namespace, viewer)]
        return next((s for s in mine if s.namespace == viewer), mine[0] if mine else None)

    def visible(self, viewer: str) -> list[o.Service]:
        """All that clients of a namespace may call, by host; for "" what everybody may call."""
        if not viewer:
            return self._index("public", lambda: self._seen(""))
        return self._seen(viewer)

    def _seen(self, viewer: str) -> list[o.Service]:
        out = []
        for host in sorted(self.by_host()):
            found = self.service(host, viewer) if viewer else self._public(host)
            if found is not None:
                out.append(found)
        return out

    def _public(self, host: str) -> o.Service | None:
        return next((s for s in self.by_host()[host] if not s.export_to or "*" in s.export_to), None)

    def addresses(self, service: o.Service, automatic: bool) -> tuple[str, ...]:
        """``automatic``: with the address that a host gets which has none."""
        own = service.all_addresses
        if own or not automatic or not service.resolution:
            return own
        found = self.automatic().get((service.namespace, service.host))
        return (found,) if found else ()

    def automatic(self) -> dict[Key, str]:
        """(namespace, host) -> the address that was made for it."""
        return self._index("automatic", lambda: registry.automatic(self.objects.service_entries.values()))

    def aliases(self) -> dict[str, tuple[o.Service, ...]]:
        """Host -> the ExternalName services that stand for it."""

        def make() -> dict[str, tuple[o.Service, ...]]:
            out: dict[str, tuple[o.Service, ...]] = {}
            for s in self.objects.services.values():
                target, seen = s, set[str]()
                while target.external_name and target.host not in seen:
                    seen.add(target.host)
                    known = self.by_host().get(target.external_name)
                    if not known:
                        break
                    target = known[0]
                if s.external_name and not target.external_name:
                    out[target.host] = (*out.get(target.host, ()), s)
            return out

        return self._index("aliases", make)

    def resolve(self, name: str, namespace: str) -> str:
        """A host as written in a rule of ``namespace`` -> the full name (Istio: short names are of the rule's own
        namespace)."""
        if name == "*" or name.startswith("*."):
            return name
        known = self.by_host()
        if "." not in name:
            return name if name in known else f"{name}.{namespace}.svc.cluster.local"
        for suffix in ("", ".svc.cluster.local", ".cluster.local"):
            if f"{name}{suffix}" in known:
                return f"{name}{suffix}"
        return name

    # --- endpoints -------------------------------------------------------------------------------------------

    def _slices(self) -> dict[Key, list[Mapping[str, tuple[o.Endpoint, ...]]]]:
        def make() -> dict[Key, list[Mapping[str, tuple[o.Endpoint, ...]]]]:
            out: dict[Key, list[Mapping[str, tuple[o.Endpoint, ...]]]] = {}
            for (namespace, _), (service, ports) in self.objects.slices.items():
                out.setdefault((namespace, service), []).append(ports)
            return out

        return self._index("slices", make)

    def _of_pod(self) -> dict[Key, set[Key]]:
        """Pod -> services (namespace, name) that lead to it."""

        def make() -> dict[Key, set[Key]]:
            out: dict[Key, set[Key]] = {}
            for (namespace, _), (service, ports) in self.objects.slices.items():
                for found in ports.values():
                    for e in found:
                        out.setdefault((namespace, e.pod), set()).add((namespace, service))
            return out

        return self._index("of_pod", make)

    def _keep_endpoints(self, previous: Mesh, changed: set[str]) -> None:
        """Endpoints of services that nothing has happened to."""
        if changed & {"workload_entries", "service_entries"}:
            return
        kept = dict(previous._endpoints)
        if "slices" in changed:
            old, new = previous.objects.slices, self.objects.slices
            for key in differing(old, new):
                for found in (old.get(key), new.get(key)):
                    if found:
                        kept.pop((key[0], found[0]), None)
        if "pods" in changed:
            moved = differing(previous.objects.pods, self.objects.pods)
            for key in moved:
                for service in (*self._of_pod().get(key, ()), *previous._of_pod().get(key, ())):
                    kept.pop(service, None)
            spaces = {namespace for namespace, _ in moved}
            for entry in self.objects.service_entries.values():
                if entry.spec.workload_selector is not None and entry.ref.namespace in spaces:
                    for host in entry.spec.hosts:
                        kept.pop((entry.ref.namespace, host), None)
        self._endpoints = kept

    def endpoints(self, service: o.Service, port: o.ServicePort) -> registry.Found:
        """The ready endpoints of a port, each with its workload where it has one; by address. The same object for as
        long as nothing in it changes."""
        key = (service.namespace, service.hostname or service.name)
        known = self._endpoints.get(key)
        if known is None or known[0] is not service:
            known = self._endpoints[key] = (service, {})
        if port.name not in known[1]:
            found = [] if service.resolution else self._own_endpoints(service, port)
            found += self._entry_endpoints(service, port)
            known[1][port.name] = tuple(sorted(found, key=lambda pair: (pair[0].address, pair[0].port)))
        return known[1][port.name]

    def _own_endpoints(self, service: o.Service, port: o.ServicePort) -> list[tuple[o.Endpoint, o.Pod | None]]:
        found: list[tuple[o.Endpoint, o.Pod | None]] = []
        for ports in self._slices().get((service.namespace, service.name), ()):
            for e in ports.get(port.name, ()):
                found.append((e, self.objects.pods.get((service.namespace, e.pod)) if e.pod else None))
        if service.selector and self.objects.workload_entries:
            known = {e.address for e, _ in found}
            for w in self._workloads().get(service.namespace, ()):
                labels = w.label_map
                usable = w.ready and w.address not in known and registry.numeric(w.address)
                if usable and all(labels.get(k) == v for k, v in service.selector):
                    named = next((n for name, n, _ in w.ports if name == port.name), 0)
                    number = named or (port.target if isinstance(port.target, int) else port.port)
                    found.append((o.Endpoint(w.address, number, w.name), w))
        return found

    def _entry_endpoints(self, service: o.Service, port: o.ServicePort) -> list[tuple[o.Endpoint, o.Pod | None]]:
        out: list[tuple[o.Endpoint, o.Pod | None]] = []
        for ref in service.entries:
            entry = self.objects.service_entries.get((ref.namespace, ref.name))
            if entry is None or not any(p.number == port.port for p in entry.spec.ports):
                continue
            pods = self._pods().get(ref.namespace, ()) if entry.spec.workload_selector else ()
            workloads = self._workloads().get(ref.namespace, ()) if entry.spec.workload_selector else ()
            out += registry.of_entry(entry, service.host, port, pods, workloads)
        if service.resolution in registry.KNOWN_BY_NAME:
            return out
        return [found for found in out if registry.numeric(found[0].address)]  # Envoy looks up all of a host's or none

    def _pods(self) -> dict[str, list[o.Pod]]:
        def make() -> dict[str, list[o.Pod]]:
            out: dict[str, list[o.Pod]] = {}
            for pod in self.objects.pods.values():
                out.setdefault(pod.namespace, []).append(pod)
            return out

        return self._index("pods", make)

    def _workloads(self) -> dict[str, list[o.Pod]]:
        def make() -> dict[str, list[o.Pod]]:
            out: dict[str, list[o.Pod]] = {}
            for we in self.objects.workload_entries.values():
                made = registry.of_workload_entry(we)
                out.setdefault(made.namespace, []).append(made)
            return out

        return self._index("workloads", make)

    def services_of(self, pod: o.Pod) -> list[o.Service]:
        """Kubernetes' services that select a pod, by name."""

        def make() -> dict[tuple[str, tuple[str, str]], list[o.Service]]:
            """By namespace and the first label that they ask for: a pod looks at few of them."""
            out: dict[tuple[str, tuple[str, str]], list[o.Service]] = {}
            for s in self.objects.services.values():
                if s.selector:
                    out.setdefault((s.namespace, s.selector[0]), []).append(s)
            return out

        labels = pod.label_map
        index = self._index("selecting", make)
        found = [s for item in pod.labels for s in index.get((pod.namespace, item), ())]
        return sorted((s for s in found if all(labels.get(k) == v for k, v in s.selector)), key=lambda s: s.name)

    def entries_of(self, pod: o.Pod) -> list[tuple[o.Service, o.ServicePort, int]]:
        """Ports of ServiceEntries that lead to a pod: (service, port, port of the pod)."""

        def make() -> tuple[dict[str, list[tuple[o.Service, int]]], list[tuple[o.Service, Any]]]:
            by_address: dict[str, list[tuple[o.Service, int]]] = {}
            selecting: list[tuple[o.Service, Any]] = []
            for entry in sorted(self.objects.service_entries.values(), key=lambda e: e.age_order):
                for s in registry.services(entry):
                    if entry.spec.workload_selector is not None:
                        selecting.append((s, entry.spec.workload_selector.labels))
                    for i, w in enumerate(registry.inline(entry)):
                        by_address.setdefault(w.address, []).append((s, i))
            return by_address, selecting

        by_address, selecting = self._index("entry_addresses", make)
        out = []
        for s, i in by_address.get(pod.address, ()):
            entry = self.objects.service_entries[(s.entries[0].namespace, s.entries[0].name)]
            own = dict(entry.spec.endpoints[i].ports)
            for p in s.ports:
                target = p.target if isinstance(p.target, int) else p.port
                out.append((s, p, own.get(p.name) or target))
        labels = pod.label_map
        for s, wanted in selecting:
            if s.namespace == pod.namespace and all(labels.get(k) == v for k, v in wanted.items()):
                out += [(s, p, p.target if isinstance(p.target, int) else p.port) for p in s.ports]
        return out

    # --- rules -----------------------------------------------------------------------------------------------

    @staticmethod
    def visible_to(export_to: tuple[str, ...], owner: str, viewer: str) -> bool:
        return not export_to or any(e == "*" or (e == "." and owner == viewer) or e == viewer for e in export_to)

    def virtual_services(self) -> tuple[o.Resource[VirtualService], ...]:
        """All of them, each with its delegates' routes in place, oldest first."""

        def make() -> tuple[o.Resource[VirtualService], ...]:
            found = (delegates.whole(vs, self._delegate, self.resolve) for vs in self.objects.virtual_services.values())
            made = ingress.rules(self.ingresses(), self.config.root_namespace, self._port_number)
            return tuple(sorted((*found, *made), key=lambda v: v.age_order))

        return self._index("whole", make)

    def ingresses(self) -> list[o.Resource[Ingress]]:
        """Those that the mesh's gateway serves."""

        def make() -> list[o.Resource[Ingress]]:
            classes = {name: c.spec.controller for (_, name), c in self.objects.ingress_classes.items()}
            name, mode = self.config.ingress_class, self.config.ingress_mode
            return [i for i in self.objects.ingresses.values() if ingress.ours(i, classes, name, mode)]

        return self._index("ingresses", make)

    def _port_number(self, namespace: str, service: str, name: str) -> int:
        found = self.objects.services.get((namespace, service))
        return next((p.port for p in found.ports if p.name == name), 0) if found else 0

    def _delegate(self, name: str, namespace: str, viewer: str) -> o.Resource[VirtualService] | None:
        found = self.objects.virtual_services.get((namespace, name))
        return found if found and self.visible_to(found.spec.export_to, namespace, viewer) else None

    def rules_by_host(self) -> dict[str, tuple[o.Resource[VirtualService], ...]]:
        """Host as the rules name it (full, or a wildcard) -> rules of the gateway ``mesh``, oldest first."""
        known: dict[str, tuple[o.Resource[VirtualService], ...]] | None = self._indexes.get("rules")
        if known is not None:
            return known

        def make() -> dict[str, tuple[o.Resource[VirtualService], ...]]:
            found: dict[str, list[o.Resource[VirtualService]]] = {}
            for vs in self.virtual_services():
                if not vs.spec.gateways or "mesh" in vs.spec.gateways:
                    for name in dict.fromkeys(self.resolve(h, vs.ref.namespace) for h in vs.spec.hosts):
                        found.setdefault(name, []).append(vs)
            return {host: tuple(v) for host, v in found.items()}

        return self._index("rules", make)

    def mesh_rules(
        self, host: str, namespace: str, seen: Callable[[o.Resource[VirtualService]], bool] | None = None
    ) -> tuple[o.Resource[VirtualService], ...]:
        """The rules for a host, visible from ``namespace``: those that name it most closely, oldest first."""
        if not self.rules_by_host():
            return ()
        exact = self.rules_named(host, namespace, seen)
        return exact or next(filter(None, (self.rules_named(n, namespace, seen) for n in _wildcards(host))), ())

    def rules_named(
        self, name: str, namespace: str, seen: Callable[[o.Resource[VirtualService]], bool] | None = None
    ) -> tuple[o.Resource[VirtualService], ...]:
        """Those that name a host (or a wildcard) in just this spelling."""
        found = self.rules_by_host().get(name, ())
        if not found or (seen is None and not any(vs.spec.export_to for vs in found)):
            return found  # the same object for as long as nothing in it changes
        return tuple(
            vs
            for vs in found
            if self.visible_to(vs.spec.export_to, vs.ref.namespace, namespace) and (seen is None or seen(vs))
        )

    @property
    def has_destination_rules(self) -> bool:
        return bool(self.objects.destination_rules)

    def destination_rules(self) -> dict[Key, tuple[o.Resource[DestinationRule], ...]]:
        """(namespace, host) -> rules, oldest first."""

        def make() -> dict[Key, tuple[o.Resource[DestinationRule], ...]]:
            found: dict[Key, list[o.Resource[DestinationRule]]] = {}
            for dr in sorted(self.objects.destination_rules.values(), key=lambda d: d.age_order):
                found.setdefault((dr.ref.namespace, self.resolve(dr.spec.host, dr.ref.namespace)), []).append(dr)
            return {key: tuple(v) for key, v in found.items()}

        return self._index("destination_rules", make)

    def destination_rule(
        self, host: str, namespace: str, labels: Labels = ()
    ) -> tuple[o.Resource[DestinationRule], ...]:
        """The rules that apply to a host for clients of ``namespace``: of the client's namespace, else of the
        service's, else of the root; several of one namespace are merged, the oldest first. A rule for some workloads
        of its namespace goes before those for all of them."""
        rules = self.destination_rules()
        if not rules:
            return ()
        service = self.service(host)
        owner = service.namespace if service else namespace
        for candidate in dict.fromkeys((namespace, owner, self.config.root_namespace)):
            for name in (host, *_wildcards(host)):
                seen = [
                    dr
                    for dr in rules.get((candidate, name), ())
                    if self.visible_to(dr.spec.export_to, dr.ref.namespace, namespace)
                ]
                own = [dr for dr in seen if dr.spec.workload_selector and _selected(dr, namespace, dict(labels))]
                found = own or [dr for dr in seen if not dr.spec.workload_selector]
                if found:
                    return tuple(found)
        return ()

    def secret_rules(self) -> tuple[o.Resource[DestinationRule], ...]:
        """DestinationRules that name secrets."""
        return self._index(
            "secret_rules",
            lambda: tuple(dr for dr in self.objects.destination_rules.values() if policy.secrets(dr.spec)),
        )

    def sidecar(self, namespace: str, labels: Mapping[str, str]) -> o.Resource[Sidecar] | None:
        """A workload's: its own, else its namespace's, else the root namespace's."""

        def make() -> dict[str, list[o.Resource[Sidecar]]]:
            out: dict[str, list[o.Resource[Sidecar]]] = {}
            for s in sorted(self.objects.sidecars.values(), key=lambda s: s.age_order):
                out.setdefault(s.ref.namespace, []).append(s)
            return out

        found = self._index("sidecars", make)
        mine = found.get(namespace, [])
        own = [s for s in mine if s.spec.workload_selector and _labelled(s.spec.workload_selector.labels, labels)]
        shared = [s for s in mine if not s.spec.workload_selector or not s.spec.workload_selector.labels]
        root = [s for s in found.get(self.config.root_namespace, []) if not s.spec.workload_selector]
        return next(iter([*own, *shared, *root]), None)

    def envoy_filters(self, namespace: str, labels: Mapping[str, str]) -> tuple[o.Resource[EnvoyFilter], ...]:
        """The patches for a workload: the root namespace's, then its own's; each by priority, then oldest first."""
        if not self.objects.envoy_filters:
            return ()
        root = self.config.root_namespace
        found = [
            f
            for f in self.objects.envoy_filters.values()
            if f.ref.namespace in (namespace, root)
            and not f.spec.target_refs
            and _labelled(f.spec.workload_selector.labels if f.spec.workload_selector else {}, labels)
        ]
        return tuple(sorted(found, key=lambda f: (f.spec.priority, f.ref.namespace != root, f.age_order)))

    def proxy_config(self, namespace: str, labels: Mapping[str, str]) -> o.Resource[ProxyConfig] | None:
        """A workload's: its own, else its namespace's, else the mesh's."""
        levels: tuple[list[o.Resource[ProxyConfig]], ...] = ([], [], [])
        for p in sorted(self.objects.proxy_configs.values(), key=lambda p: p.age_order):
            chosen = p.spec.selector.match_labels if p.spec.selector else {}
            if chosen and p.ref.namespace == namespace and _labelled(chosen, labels):
                levels[0].append(p)
            elif not chosen and p.ref.namespace == namespace:
                levels[1].append(p)
            elif not chosen and p.ref.namespace == self.config.root_namespace:
                levels[2].append(p)
        return next((level[0] for level in levels if level), None)

    def peers(self) -> tuple[o.Resource[PeerAuthentication], ...]:
        """Oldest first."""
        return self._index(
            "peers",
            lambda: tuple(sorted(self.objects.peer_authentications.values(), key=lambda p: p.age_order)),
        )

    def mtls_mode(self, namespace: str, labels: Mapping[str, str], port: int = 0) -> str:
        mode, ports, _ = self.mtls(namespace, labels)
        return dict(ports).get(port, mode)

    def mtls(self, namespace: str, labels: Mapping[str, str]) -> tuple[str, tuple[tuple[int, str], ...], o.Ref | None]:
        """STRICT, PERMISSIVE or DISABLE for a workload; the modes of single ports that differ; and the policy that
        says so: its own policy, else its namespace's, else the mesh's."""
        if not self.objects.peer_authentications:
            return "PERMISSIVE", (), None
        levels: tuple[list[o.Resource[PeerAuthentication]], ...] = ([], [], [])
        for pa in self.peers():
            if pa.ref.namespace not in (namespace, self.config.root_namespace):
                continue
            chosen = pa.spec.selector.match_labels if pa.spec.selector else {}
            if chosen:
                if pa.ref.namespace == namespace and all(labels.get(k) == v for k, v in chosen.items()):
                    levels[0].append(pa)
            else:
                levels[1 if pa.ref.namespace == namespace else 2].append(pa)
        ports: tuple[tuple[int, str], ...] = ()
        ref = None
        for pa in levels[0][:1]:
            given = sorted((int(k), v.mode) for k, v in pa.spec.port_level_mtls.items() if k.isdigit())
            ports = tuple((k, mode) for k, mode in given if mode != "UNSET")
            ref = pa.ref
        for level in levels:
            for pa in level[:1]:
                mode = pa.spec.mtls.mode if pa.spec.mtls else "UNSET"
                if mode != "UNSET":
                    return mode, ports, ref or pa.ref
        return "PERMISSIVE", ports, ref

    def authorization(self, namespace: str, labels: Mapping[str, str]) -> tuple[o.Resource[AuthorizationPolicy], ...]:
        """The policies of a workload: the mesh's, then its namespace's. Those with targets are for gateways of
        Kubernetes' Gateway API."""
        found = [
            p
            for p in self.objects.authorization_policies.values()
            if p.ref.namespace in (namespace, self.config.root_namespace)
            and not p.spec.target_ref
            and not p.spec.target_refs
            and all(labels.get(k) == v for k, v in (p.spec.selector.match_labels if p.spec.selector else {}).items())
        ]
        return tuple(sorted(found, key=lambda p: (p.ref.namespace != self.config.root_namespace, p.age_order)))

    def gateways_for(self, pod: o.Pod) -> tuple[o.Resource[Gateway], ...]:
        """Those that select a pod, or that name one of its services, oldest first."""
        labels = pod.label_map
        found = []
        root, selector = self.config.root_namespace, self.config.ingress_selector
        made = (ingress.gateway(i, root, selector) for i in self.ingresses())
        for g in (*self.objects.gateways.values(), *made):
            named = dict(g.notes).get("internal.istio.io/gateway-service")
            if (g.spec.selector and _labelled(g.spec.selector, labels)) or (not g.spec.selector and named):
                found.append(g)
        return tuple(sorted(found, key=lambda g: g.age_order))

    def gateway_rules(self, gateway: o.Ref, viewer: str) -> tuple[o.Resource[VirtualService], ...]:
        """VirtualServices bound to a gateway and visible from its workload's namespace, oldest first."""
        wanted = (gateway.namespace, gateway.name)
        return tuple(
            vs
            for vs in self.virtual_services()
            if any(_gateway_name(name, vs.ref.namespace) == wanted for name in vs.spec.gateways)
            and self.visible_to(vs.spec.export_to, vs.ref.namespace, viewer)
        )


def _gateway_name(name: str, namespace: str) -> Key:
    head, slash, tail = name.partition("/")
    return (head, tail) if slash else (namespace, name)


def _labelled(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(k) == v for k, v in wanted.items())


def _selected(dr: o.Resource[DestinationRule], namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether a client is one of those that a rule with a workloadSelector is for."""
    chosen = dr.spec.workload_selector
    return chosen is not None and dr.ref.namespace == namespace and _labelled(chosen.match_labels, labels)


def differing(old: Mapping[Key, Any], new: Mapping[Key, Any]) -> list[Key]:
    """Keys whose values are not the same objects."""
    return [k for k, v in new.items() if old.get(k) is not v] + [k for k in old if k not in new]


@lru_cache(maxsize=65536)
def _wildcards(host: str) -> list[str]:
    parts = host.split(".")
    return ["*." + ".".join(parts[i:]) for i in range(1, len(parts))] + ["*"]
