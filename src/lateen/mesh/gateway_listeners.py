"""Gateways and ListenerSets: a Gateway's listeners, their faults, and its references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.gateway_api import ListenerSet
from lateen.api.gateway_api.common import ObjectReference, SecretObjectReference
from lateen.api.kinds import GroupKind
from lateen.kit.queries import query
from lateen.mesh.dialects.gateway_api import authorities, faults, listeners
from lateen.mesh.dialects.gateway_api.authorities import Authorities
from lateen.mesh.dialects.gateway_api.intrusions import Asked, Intrusion, intrusions
from lateen.mesh.dialects.gateway_api.listeners import Placed
from lateen.mesh.objects import Key
from lateen.mesh.routing import Age, Listener
from lateen.mesh.sending import Sendings
from lateen.mesh.spelling import spellings


class GatewayListeners(Sendings):
    # --- Gateways ------------------------------------------------------------------------------------------------

    @query
    def is_our_class(self, name: str) -> bool:
        found = self.objects.gateway_classes.get(("", name))
        return found is not None and found.spec.controller_name == listeners.CONTROLLER

    def kubernetes_gateway(self, namespace: str, name: str) -> listeners.Object | None:
        """A Gateway of one of our classes."""
        found: listeners.Object | None = self.objects.kubernetes_gateways.get((namespace, name))
        return found if found and self.is_our_class(found.spec.gateway_class_name) else None

    def _namespace_labels(self, namespace: str) -> Mapping[str, str]:
        """The labels of a namespace with routes or ListenerSets, in the Gateway's cluster."""
        home = self._others.get(self.cluster.home)
        namespaces = home.objects.namespaces if home else self.objects.namespaces
        found = namespaces.get(("", namespace))
        return dict(found.labels if found else ()) | {"kubernetes.io/metadata.name": namespace}

    @query
    def front_services(self, namespace: str, name: str) -> tuple[str, ...]:
        """The hosts of the Services that a Gateway names, or of those in front of the pods deployed for it."""
        found = self.kubernetes_gateway(namespace, name)
        if found is None:
            return ()
        if listeners.is_deployed(found.spec):
            chosen = self.own.selecting.get((namespace, (listeners.NAME_LABEL, name)))
            return tuple(sorted(s.host for s in chosen))
        named = (self.resolve(text, namespace) for text in listeners.service_names(found))
        return tuple(dict.fromkeys(host for host in named if self.service(host)))

    def kubernetes_gateways_for(self, pod: o.Pod) -> list[listeners.Object]:
        """The Gateways that a pod is deployed for, or that name one of its services."""
        if not self.objects.kubernetes_gateways:
            return []
        keys: dict[Key, None] = {}
        own = pod.label_map.get(listeners.NAME_LABEL)
        if own is not None:
            keys[pod.namespace, own] = None
        for s in self.services_of(pod):
            for spelling in spellings(s.host, s.namespace, s.name, s.domain):
                place = (s.namespace, s.name) if spelling == s.name else spelling
                keys |= dict.fromkeys((g.ref.namespace, g.ref.name) for g in self._gateways_naming.get(place))
        found = (self.kubernetes_gateway(*key) for key in keys)
        return [g for g in found if g is not None and self._serves(g, pod, own)]

    def _serves(self, gateway: listeners.Object, pod: o.Pod, own: str | None) -> bool:
        if listeners.is_deployed(gateway.spec):
            return own == gateway.ref.name and pod.namespace == gateway.ref.namespace
        named = self.front_services(gateway.ref.namespace, gateway.ref.name)
        return any(s.host in named for s in self.services_of(pod))

    def kubernetes_listeners(self, pod: o.Pod, closed: bool = False) -> Iterator[Listener]:
        """The listeners that can be served, or (``closed``) those that cannot."""
        for gateway in self.kubernetes_gateways_for(pod):
            services = self.front_services(gateway.ref.namespace, gateway.ref.name)
            key = (gateway.ref.namespace, gateway.ref.name)
            found = self._faults(*key)
            for placed in self._placed(*key):
                if any(fault.closed for fault in found[placed.id]) == closed:
                    yield listeners.listener(gateway, placed, services)

    # --- listeners -----------------------------------------------------------------------------------------------

    @query
    def _placed(self, namespace: str, name: str) -> tuple[Placed, ...]:
        """A Gateway's own listeners, then those of ListenerSets that it admits, the oldest first, in the order of
        precedence (https://gateway-api.sigs.k8s.io/geps/gep-1713/#listener-precedence)."""
        gateway = self.objects.kubernetes_gateways[namespace, name]
        found = [Placed(gateway.ref, li) for li in gateway.spec.listeners]
        sets = sorted(self._sets_of.get((namespace, name)), key=lambda s: s.age_order)
        return (*found, *(Placed(s.ref, li) for s in sets if self._lets_in(gateway, s) for li in s.spec.listeners))

    def _lets_in(self, gateway: listeners.Object, found: o.Resource[ListenerSet]) -> bool:
        space = found.ref.namespace
        return listeners.admits_set(gateway, space, self._namespace_labels(space))

    def _listener(self, namespace: str, name: str, listener: str) -> Placed:
        return next(p for p in self._placed(namespace, name) if p.id == listener)

    @query
    def _faults(self, namespace: str, name: str) -> dict[str, tuple[faults.Fault, ...]]:
        gateway, placed = self.objects.kubernetes_gateways[namespace, name], self._placed(namespace, name)
        return faults.faults(gateway, placed, self._may_use, self._has_certificate, self._authorities)

    @query
    def added_ports(self) -> dict[Key, tuple[tuple[str, int, str], ...]]:
        """(name, port, protocol) of the faultless listeners that ListenerSets add, by Gateway."""
        out = {}
        for key in self._sets_of.buckets():
            if self.kubernetes_gateway(*key) is not None:
                found = self._faults(*key)
                added = [p for p in self._placed(*key) if p.owner.kind == kinds.LISTENER_SET.kind]
                good = [p.written for p in added if not any(f.closed for f in found[p.id])]
                out[key] = tuple((li.name, li.port, li.protocol) for li in good)
        return out

    def intrusions(self) -> Iterator[Intrusion]:
        """Hosts that Gateways of several namespaces claim at the same proxies."""
        asked = []
        for key in self.objects.kubernetes_gateways:
            gateway = self.kubernetes_gateway(*key)
            for service in self.front_services(*key) if gateway else ():
                for p in self._placed(*key):
                    asked.append(Asked(self._age_of(p.owner), service, p))
        return intrusions(asked)

    def _age_of(self, ref: o.Ref) -> Age:
        found: o.Resource[Any] = self.objects.of(kinds.TABLE[ref.group_kind])[ref.namespace, ref.name]
        return found.age_order

    # --- certificates --------------------------------------------------------------------------------------------

    @query
    def certificate_namespaces(self) -> frozenset[str]:
        """The namespaces of the Secrets that Gateways and their listeners name."""
        out = set()
        for key in self.objects.kubernetes_gateways:
            gateway = self.kubernetes_gateway(*key)
            if gateway is None:
                continue
            for p in self._placed(*key):
                refs = p.written.tls.certificate_refs if p.written.tls else ()
                out |= {ref.namespace or p.owner.namespace for ref in refs}
            if own := _client_certificate(gateway):
                out.add(own.namespace or key[0])
        return frozenset(out)

    def client_certificate(self, namespace: str, name: str) -> tuple[str, faults.Fault | None]:
        """(``namespace/name`` of the Secret with the client certificate that a Gateway presents to backends, the fault
        of the reference)"""
        gateway = self.objects.kubernetes_gateways[namespace, name]
        ref = _client_certificate(gateway)
        if ref is None:
            return "", None
        reason = "InvalidClientCertificateRef"
        bad = faults.certificate(ref, gateway.ref, namespace, self._may_use, self._has_certificate, reason)
        return ("", bad) if bad else (f"{ref.namespace or namespace}/{ref.name}", None)

    def shown_certificate(self, pod: o.Pod) -> str:
        """The client certificate of a gateway's proxies: that of the oldest Gateway that has one."""
        found = sorted(self.kubernetes_gateways_for(pod), key=lambda g: g.age_order)
        return next((n for g in found if (n := self.client_certificate(g.ref.namespace, g.ref.name)[0])), "")

    @query
    def frontend_authorities(self, namespace: str, name: str, port: int) -> Authorities:
        """The CA certificates with which a Gateway verifies the clients of a port with its own settings (0: of all
        others)."""
        gateway = self.objects.kubernetes_gateways[namespace, name]
        asked = gateway.spec.tls.frontend if gateway.spec.tls else None
        of_port = next((p.tls for p in asked.per_port if p.port == port), None) if asked else None
        chosen = of_port or (asked.default if asked else None)
        found = chosen.validation if chosen else None
        return self._authorities(found.ca_certificate_refs, gateway.ref) if found else Authorities()

    def _has_certificate(self, namespace: str, name: str) -> bool:
        found = self.objects.credentials.get((namespace, name))
        return found is not None and bool(found.chain)

    def _authorities(self, refs: Sequence[authorities.Reference], owner: o.Ref) -> Authorities:
        return authorities.collect(refs, owner, self._certificates_in, self._may_use)

    def _certificates_in(self, kind: str, namespace: str, name: str) -> str:
        if kind == kinds.CONFIG_MAP.kind:
            return self.objects.authorities.get((namespace, name)) or ""
        found = self.objects.credentials.get((namespace, name))
        return found.ca if found else ""

    # --- references ----------------------------------------------------------------------------------------------

    def _granted(self, source: GroupKind, viewer: str, target: GroupKind, namespace: str, name: str) -> bool:
        """Whether a ReferenceGrant in the target's namespace permits a reference from another namespace."""
        return any(
            any((f.group, f.kind, f.namespace) == (*source, viewer) for f in grant.spec.from_)
            and any((t.group, t.kind) == tuple(target) and t.name in (None, "", name) for t in grant.spec.to)
            for grant in self._grants_in.get(namespace)
        )

    def _may_use(self, ref: SecretObjectReference | ObjectReference, owner: o.Ref) -> bool:
        target = GroupKind("" if ref.group == "core" else ref.group, ref.kind)
        return self._granted(owner.group_kind, owner.namespace, target, ref.namespace or owner.namespace, ref.name)


def _client_certificate(gateway: listeners.Object) -> SecretObjectReference | None:
    tls = gateway.spec.tls
    return tls.backend.client_certificate_ref if tls and tls.backend else None
