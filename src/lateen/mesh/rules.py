"""VirtualServices and DestinationRules by host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lateen.api import objects as o
from lateen.api.decoding import HOSTNAME
from lateen.api.networking import DestinationRule, VirtualService
from lateen.kit.queries import query
from lateen.mesh import policy
from lateen.mesh.dialects import delegates, source
from lateen.mesh.dialects.istio import Target, connection_targets, destinations_of
from lateen.mesh.objects import Labels
from lateen.mesh.outcomes import Outcome
from lateen.mesh.patterns import covers, is_partial, narrowness, wildcards
from lateen.mesh.protocols import protocol
from lateen.mesh.selecting import has_labels
from lateen.mesh.spelling import as_written, written
from lateen.mesh.standings import Standings

Rule = o.Resource[VirtualService]
Traffic = o.Resource[DestinationRule]
Seen = frozenset[o.Ref] | None
"""The VirtualServices that are visible through a Sidecar; None for all."""


@dataclass(frozen=True)
class Interest:
    """The properties of a client that affect its view of a host."""

    namespaces: frozenset[str] = frozenset()
    """Namespaces whose view differs from that of namespaces that no object mentions."""
    labels: frozenset[str] = frozenset()
    rules: bool = False
    """Whether VirtualServices, which a Sidecar may hide, are involved."""
    place: bool = False
    dns: bool = False
    secrets: bool = False
    """Whether it is a gateway."""
    network: bool = False
    backends: bool = False
    """The client certificate that a gateway presents to backends."""
    families: bool = False
    """The families of its addresses: for automatic addresses, and names that its proxy resolves."""

    def __or__(self, other: Interest) -> Interest:
        return Interest(
            self.namespaces | other.namespaces,
            self.labels | other.labels,
            self.rules or other.rules,
            self.place or other.place,
            self.dns or other.dns,
            self.secrets or other.secrets,
            self.network or other.network,
            self.backends or other.backends,
            self.families or other.families,
        )


def exported(owner: str, export_to: Iterable[str]) -> frozenset[str]:
    """The namespaces to whose view an object's ``exportTo`` is relevant."""
    if not export_to or "*" in export_to:
        return frozenset()
    return frozenset((owner, *(e for e in export_to if e not in (".", "~"))))


class Rules(Standings):
    # --- VirtualServices -------------------------------------------------------------------------------------

    @query
    def whole(self, namespace: str, name: str) -> Rule | None:
        """A VirtualService with its delegates' routes merged in."""
        found = self.objects.virtual_services.get((namespace, name))
        return delegates.whole(found, self._delegate, self.resolve) if found else None

    def _delegate(self, name: str, namespace: str, viewer: str) -> Rule | None:
        found: Rule | None = self.objects.virtual_services.get((namespace, name))
        return found if found and self.visible_to(found, viewer) else None

    @query
    def delegation_outcome(self, namespace: str, name: str) -> Outcome:
        found = self.objects.virtual_services[namespace, name]
        used = self._delegating.has((namespace, name))
        return delegates.outcome(found, lambda *key: self.objects.virtual_services.get(key), self._delegate, used)

    def _wholes(self, found: Iterable[Rule]) -> Iterator[Rule]:
        for vs in found:
            made = self.whole(vs.ref.namespace, vs.ref.name)
            if made is not None:
                yield made

    @query
    def rules_named(self, host: str) -> tuple[Rule, ...]:
        """VirtualServices for the mesh that name a host (full name or wildcard) in exactly this form, the oldest
        first."""
        out: dict[o.Ref, Rule] = {}
        for spelling in written(host, self.cluster.domain):
            for vs in self._rules_of_host.get(spelling):
                if self.resolve(as_written(spelling), vs.ref.namespace) == host:
                    out[vs.ref] = vs
        return tuple(sorted(self._wholes(out.values()), key=lambda v: v.age_order))

    @query
    def _rule_levels(self, host: str) -> tuple[tuple[Rule, ...], ...]:
        """The VirtualServices for a host: first by its full name, then by increasingly general wildcards."""
        names = _levels(host, self._partly_ruled())
        return tuple(found for name in names if (found := self.rules_named(name)))

    @query
    def _partly_ruled(self) -> tuple[str, ...]:
        """Hosts of VirtualServices with a wildcard for a part of a label."""
        return tuple(h for h in map(as_written, self._rules_of_host.buckets()) if is_partial(h))

    def mesh_rules(self, host: str, namespace: str, seen: Seen = None) -> tuple[Rule, ...]:
        """The rules for a host that are visible from ``namespace``: the most specific ones, the oldest first."""
        levels = self._rule_levels(host)
        return next((found for level in levels if (found := self._visible(level, namespace, seen))), ())

    def visible_rules(self, name: str, namespace: str, seen: Seen = None) -> tuple[Rule, ...]:
        """The rules of ``rules_named`` that are visible to a namespace's clients."""
        return self._visible(self.rules_named(name), namespace, seen)

    def _visible(self, found: tuple[Rule, ...], namespace: str, seen: Seen) -> tuple[Rule, ...]:
        return tuple(vs for vs in found if self.visible_to(vs, namespace) and (seen is None or vs.ref in seen))

    @query
    def ruled_hosts(self) -> tuple[str, ...]:
        """Full names and wildcards that VirtualServices for the mesh name."""
        return tuple(
            sorted({h for spelling in self._rules_of_host.buckets() for h in self._named_by(as_written(spelling))})
        )

    @query
    def _named_by(self, spelling: str) -> frozenset[str]:
        """The hosts that rules refer to by a name."""
        return frozenset(self.resolve(spelling, vs.ref.namespace) for vs in self._rules_of_host.get(spelling))

    @query
    def unserved_hosts(self) -> frozenset[str]:
        """Hosts that only rules name: there is no such service."""
        return frozenset(h for h in self.ruled_hosts() if not self.knows(h))

    @query
    def contested(self) -> frozenset[str]:
        """Names and addresses that more than one host of the mesh may claim. Kubernetes' services, in whichever
        cluster, have distinct names, so only those shared with other services or through aliases are searched."""
        unserved, entries = self.unserved_hosts(), self._entry_claims.buckets()
        others = entries | unserved
        out = self._entry_claims.several() | (unserved & entries)
        for r in self.registries:
            out |= r.claims.several() | {k for k in others if r.claims.has(k) or r.bare.has(k)}
        return out

    @query
    def claimants(self, spelling: str) -> frozenset[str]:
        """The hosts that claim a contested name or address."""
        found = (s for r in self.registries for s in (*r.claims.get(spelling), *r.bare.get(spelling)))
        out = {self.stands_for(s.host) for s in found}
        for entry in self._entry_claims.get(spelling):
            out |= {spelling} if spelling in entry.spec.hosts else set(entry.spec.hosts)
        return frozenset(out | ({spelling} & self.unserved_hosts()))

    @query
    def rules_in(self, namespace: str) -> tuple[tuple[o.Ref, tuple[str, ...], tuple[str, ...]], ...]:
        """(rule, its hosts, the hosts of its destinations) for a namespace's VirtualServices for the mesh."""
        out = []
        for vs in self._wholes(self._rules_in.get(namespace)):
            if not vs.spec.gateways or "mesh" in vs.spec.gateways:
                hosts = tuple(self.resolve(h, namespace) for h in vs.spec.hosts)
                targets = dict.fromkeys(self.resolve(d.host, namespace) for d in destinations_of(vs.spec))
                out.append((vs.ref, hosts, tuple(targets)))
        return tuple(out)

    @query
    def rule_spaces(self) -> tuple[str, ...]:
        """The namespaces with VirtualServices."""
        return tuple(sorted(self._rules_in.buckets()))

    # --- DestinationRules ------------------------------------------------------------------------------------

    @query
    def _traffic_named(self, host: str) -> tuple[Traffic, ...]:
        out = {
            dr.ref: dr
            for spelling in written(host, self.cluster.domain)
            for dr in self._traffic_of_host.get(spelling)
            if self.resolve(as_written(spelling), dr.ref.namespace) == host
        }
        return tuple(sorted(out.values(), key=lambda d: d.age_order))

    @query
    def _traffic_levels(self, host: str) -> tuple[tuple[Traffic, ...], ...]:
        names = _levels(host, self._partly_set())
        return tuple(found for name in names if (found := self._traffic_named(name)))

    @query
    def _partly_set(self) -> tuple[str, ...]:
        """The same of DestinationRules."""
        return tuple(h for h in map(as_written, self._traffic_of_host.buckets()) if is_partial(h))

    def destination_rule(self, host: str, namespace: str, labels: Labels = ()) -> tuple[Traffic, ...]:
        """The rules that apply to a host for clients in ``namespace``: those of the client's namespace, otherwise of
        the service's, otherwise of the root; several of one namespace are merged (``_exported_alike``), the oldest
        first. A rule for selected workloads of its namespace takes precedence over those for all of them. In the root
        namespace, where rules for the whole mesh are, only those that are exported to it alone precede the service's,
        as in Istio."""
        levels = self._traffic_levels(host)
        if not levels:
            return ()
        own_service = self.service(host, namespace) if namespace else self.public_service(host)
        service = own_service or self.service(host)
        owner = service.namespace if service else namespace
        root = self.root_namespace
        places = [(n, False) for n in dict.fromkeys((namespace, owner, root))]
        if namespace == root != owner:
            places = [(root, True), (owner, False), (root, False)]
        for candidate, private in places:
            for level in levels:
                seen = [dr for dr in level if dr.ref.namespace == candidate and self.visible_to(dr, namespace)]
                if private:
                    seen = [dr for dr in seen if self._is_private(dr)]
                own = [dr for dr in seen if dr.spec.workload_selector and _selected(dr, namespace, dict(labels))]
                found = own or [dr for dr in seen if not dr.spec.workload_selector]
                if found:
                    return self._exported_alike(found)
        return ()

    def _exported_alike(self, found: list[Traffic]) -> tuple[Traffic, ...]:
        """Of rules for one host and the same clients, those that are merged: rules with another ``exportTo`` are rules
        of their own, but for those that are exported to more namespaces than an older one, which complete that one. Of
        several such groups the youngest applies, as in Istio (``mergeDestinationRule`` in pilot/pkg/model, and
        ``SidecarScope.DestinationRule``)."""
        groups: dict[frozenset[str], list[Traffic]] = {}
        for dr in found:
            given = (".",) if dr.spec.workload_selector else self.exports_of(dr) or ("*",)
            to = frozenset(dr.ref.namespace if e == "." else e for e in given)
            alike = [group for narrower, group in groups.items() if narrower <= to]
            for group in alike or [groups.setdefault(to, [])]:
                group.append(dr)
        return tuple(list(groups.values())[-1])

    def _is_private(self, dr: Traffic) -> bool:
        """Whether a rule is for clients of its own namespace alone."""
        given = set(self.exports_of(dr))
        return dr.spec.workload_selector is not None or (bool(given) and given <= {".", dr.ref.namespace})

    @query
    def secret_rules(self) -> tuple[Traffic, ...]:
        """DestinationRules that name Secrets."""
        return tuple(dr for dr in self.objects.destination_rules.values() if policy.secrets(dr.spec))

    @query
    def destination(self, written: str, namespace: str, viewer: str) -> Target:
        """A destination's host in a rule of ``namespace`` -> where it leads for clients in ``viewer``. An ExternalName
        service is resolved to its target."""
        host = self.stands_for(self.resolve(written, namespace))
        found = self.service(host, viewer) if viewer else self.public_service(host)
        found = found or self.service(host)
        ports = found.ports if found else ()
        return Target(host, tuple(p.port for p in ports), frozenset(p.port for p in ports if protocol(p) == "auto"))

    @query
    def asked_labels(self) -> frozenset[str]:
        """Client labels that some rule matches on."""
        default = self.locality
        places = {f.partition("=")[0] for f in default.failover_priority} if default else set()
        near = [p for r in self.registries for p in (r.preferring, r.spaces_preferring)]
        if self._entries_preferring.has("node") or any(p.has("node") for p in near):
            places.add(HOSTNAME)
        return frozenset((*self._labels_of_rules.buckets(), *self._labels_of_traffic.buckets(), *places))

    # --- which clients are affected
    # --------------------------------------------------------------------------------------

    @query
    def interest(self, host: str) -> Interest:
        """The properties of a client that make a difference to how it sees a service."""
        found = self.candidates(host)
        namespaces = frozenset(s.namespace for s in found) if len(found) > 1 else frozenset()
        for s in found:
            namespaces |= exported(s.namespace, self.exports_of(s))
        dns = any(s.resolution and not s.all_addresses for s in found)
        default = self.locality
        place = default is not None and bool(default.distribute)
        outside = any(self.leads_outside(s) for s in found)  # a Sidecar decides which destinations are visible
        near = {s.near for s in found} - {"", "any"}
        keys = frozenset((HOSTNAME,)) if "node" in near else frozenset[str]()
        place = place or bool(near)
        network = bool(self.network_gateways()) or bool(near)
        families = any(s.resolution or s.external_name for s in found)
        out = Interest(namespaces, keys, dns=dns, place=place, rules=outside, network=network, families=families)
        if self._rule_levels(host):
            out |= self.rule_interest(host)
        out |= self._route_interest(host)
        if self._traffic_levels(host):
            out |= self._traffic_interest(host)
        for alias in self.aliases(host):
            out |= self.rule_interest(alias.host)
        if any(self.backend_tls(s) for s in found):
            out |= Interest(secrets=True, backends=True)
        if any(s.headless or s.elsewhere or any(protocol(p) == "auto" for p in s.ports) for s in found):
            out |= Interest(secrets=True)
        return out

    @query
    def rule_interest(self, host: str) -> Interest:
        out = Interest()
        for level in self._rule_levels(host):
            for vs in level:
                labels, namespaces = source.asks(vs)
                out |= Interest(namespaces | exported(vs.ref.namespace, self.exports_of(vs)), labels, rules=True)
                for target in connection_targets(vs.spec):
                    out |= self._traffic_interest(self.stands_for(self.resolve(target, vs.ref.namespace)))
                for d in destinations_of(vs.spec):
                    host = self.stands_for(self.resolve(d.host, vs.ref.namespace))
                    found = self.candidates(host)
                    told = self._originating.has(True) and any(protocol(p) == "auto" for s in found for p in s.ports)
                    if told or self._hashing.has(
                        True
                    ):  # whether servers are told of requests; where these are repeated
                        out |= self._traffic_interest(host)
                    if len(found) > 1 or any(self.exports_of(s) for s in found):
                        spaces = [exported(s.namespace, self.exports_of(s)) | {s.namespace} for s in found]
                        out |= Interest(frozenset().union(*spaces))
        return out

    def _route_interest(self, host: str) -> Interest:
        """The interest due to routes of the Gateway API in the clients' own namespaces, or in the service's."""
        found = self.routes_for_host(host)
        if not found:
            return Interest()
        owners = frozenset(parent for _, _, parent, _ in found)
        out = Interest(owners | {key[0] for _, key, parent, _ in found if key[0] != parent})
        for target in self.mesh_targets(host, requests=self._originating.has(True) or self._hashing.has(True)):
            out |= self._traffic_interest(target)
        return out

    @query
    def _traffic_interest(self, host: str) -> Interest:
        out = Interest()
        for level in self._traffic_levels(host):
            for dr in level:
                keys = frozenset(dr.spec.workload_selector.match_labels if dr.spec.workload_selector else ())
                place, more = policy.asks_for_place(dr.spec, self.locality)
                namespaces = frozenset((dr.ref.namespace,)) | exported(dr.ref.namespace, self.exports_of(dr))
                out |= Interest(namespaces, keys | more, place=place, secrets=bool(policy.secrets(dr.spec)))
        return out


def _levels(host: str, partial: tuple[str, ...]) -> list[str]:
    """A host, then the wildcards that cover it, the most specific first."""
    more = [p for p in partial if p != host and covers(p, host)]
    return [host, *(sorted({*wildcards(host), *more}, key=narrowness) if more else wildcards(host))]


def _selected(dr: Traffic, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether a rule with a workloadSelector applies to a client."""
    chosen = dr.spec.workload_selector
    return chosen is not None and dr.ref.namespace == namespace and has_labels(chosen.match_labels, labels)
