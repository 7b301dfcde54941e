"""BackendTLSPolicies: how gateways originate TLS to backends; and the status of policies that target backends.

Source: https://gateway-api.sigs.k8s.io/api-types/backendtlspolicy/; conflicts: GEP-713.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import NamedTuple

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.gateway_api import BackendTLSPolicy
from lateen.kit.queries import query
from lateen.mesh.dialects.gateway_api.authorities import Authorities, Trouble
from lateen.mesh.gateway_routes import GatewayRoutes
from lateen.mesh.objects import Key
from lateen.mesh.outcomes import AncestorStanding, Condition, PolicyStanding
from lateen.mesh.routing import BackendTLS

Policy = o.Resource[BackendTLSPolicy]
SYSTEM = "System"
MOST_ANCESTORS = 16
_REASONS = {Trouble.KIND: "InvalidKind", Trouble.GRANT: "RefNotPermitted", Trouble.MISSING: "InvalidCACertificateRef"}


class _Aim(NamedTuple):
    """A policy and one of its targets."""

    section: str | None
    policy: Policy
    beaten: o.Ref | None
    """The older policy with the same target, which takes precedence."""


class BackendPolicies(GatewayRoutes):
    @query
    def _aims(self, namespace: str, service: str) -> tuple[_Aim, ...]:
        """The policies that target a Service, the oldest first; of several with the same target only the oldest
        applies."""
        out: list[_Aim] = []
        first: dict[str | None, o.Ref] = {}
        for policy in sorted(self._backend_policies_of.get((namespace, service)), key=lambda p: p.age_order):
            for target in policy.spec.target_refs:
                if target.name == service and target.kind == kinds.SERVICE.kind:
                    winner = first.setdefault(target.section_name, policy.ref)
                    out.append(_Aim(target.section_name, policy, None if winner == policy.ref else winner))
        return tuple(out)

    def backend_tls(self, service: o.Service) -> tuple[tuple[int, BackendTLS], ...]:
        """(port, how gateways originate TLS to it): a policy for a named port precedes one for the whole Service."""
        if not self.objects.backend_tls_policies or service.hostname:
            return ()
        return self._backend_tls(service.namespace, service.name, tuple((p.port, p.name) for p in service.ports))

    @query
    def _backend_tls(
        self, namespace: str, name: str, ports: tuple[tuple[int, str], ...]
    ) -> tuple[tuple[int, BackendTLS], ...]:
        chosen = {aim.section: aim.policy for aim in self._aims(namespace, name) if aim.beaten is None}
        found = ((number, chosen.get(port, chosen.get(None))) for number, port in ports)
        return tuple((number, self._originated(p)) for number, p in found if p is not None)

    def _originated(self, policy: Policy) -> BackendTLS:
        own = policy.spec.validation
        sans = tuple(
            ("URI", s.uri or "") if s.type == "URI" else ("DNS", s.hostname or "") for s in own.subject_alt_names
        )
        authorities = "" if own.well_known_ca_certificates == SYSTEM else authorities_of(policy.ref)
        broken = self._trouble(policy)
        return BackendTLS(own.hostname, sans or (("DNS", own.hostname),), authorities, broken, policy.ref)

    def policy_authorities(self) -> dict[o.Ref, str]:
        """Policy -> the CA certificates that it refers to, for policies that have any."""
        found = (
            (p.ref, self._policy_authorities(*key).certificates) for key, p in self.objects.backend_tls_policies.items()
        )
        return {ref: text for ref, text in found if text}

    @query
    def _policy_authorities(self, namespace: str, name: str) -> Authorities:
        policy = self.objects.backend_tls_policies[namespace, name]
        return self._authorities(policy.spec.validation.ca_certificate_refs, policy.ref)

    def _trouble(self, policy: Policy) -> str:
        """Why backends cannot be verified; empty if they can."""
        own = policy.spec.validation
        if own.well_known_ca_certificates:
            known = own.well_known_ca_certificates
            return "" if known == SYSTEM else f'wellKnownCACertificates can only be System, not "{known}"'
        found = self._policy_authorities(policy.ref.namespace, policy.ref.name)
        return (
            ""
            if found.certificates
            else found.problems[0][1]
            if found.problems
            else "the policy refers to no CA certificates"
        )

    # --- the status of policies --------------------------------------------------------------------------------

    @query
    def _leads_to(self, namespace: str, name: str) -> frozenset[Key]:
        """The Services that are backends of a Gateway's routes."""
        found = self._attached_to(namespace, name)
        return frozenset(s for members in found.values() for m in members for s in self._services_of(m.kind, *m.key))

    @query
    def _services_of(self, kind: kinds.GroupKind, namespace: str, name: str) -> frozenset[Key]:
        refs = (b for rule in self.routes_of_kind(kind)[namespace, name].spec.rules for b in rule.backend_refs)
        return frozenset((b.namespace or namespace, b.name) for b in refs if b.kind == kinds.SERVICE.kind)

    @query
    def policy_standing(self, namespace: str, name: str) -> PolicyStanding:
        """A BackendTLSPolicy's status, per Gateway of ours whose routes have one of its targets as backend."""
        policy = self.objects.backend_tls_policies[namespace, name]
        targets = {(namespace, t.name) for t in policy.spec.target_refs if t.kind == kinds.SERVICE.kind}
        found = (AncestorStanding(ref, self._policy_conditions(policy)) for ref in self._leading_to(targets))
        return PolicyStanding(tuple(found)[:MOST_ANCESTORS])

    def _leading_to(self, services: Set[Key]) -> Iterator[o.Ref]:
        """Our Gateways with routes whose backends include one of these Services."""
        for key in sorted(self.objects.kubernetes_gateways):
            if self.kubernetes_gateway(*key) is not None and not services.isdisjoint(self._leads_to(*key)):
                yield kinds.KUBERNETES_GATEWAY.ref(*key)

    @query
    def sending_standing(self, namespace: str, name: str) -> PolicyStanding:
        """An XBackendTrafficPolicy's status: per target (for clients in the mesh), and per Gateway of ours with routes
        to one."""
        policy = self.objects.x_backend_traffic_policies[namespace, name]
        out, services = [], list[Key]()
        for t in policy.spec.target_refs:
            target = o.Ref("" if t.group == "core" else t.group, t.kind, namespace, t.name)
            if target.group_kind == kinds.SERVICE.id:
                services.append((namespace, t.name))
                bad = self._sending_trouble(policy, services[-1])
            else:
                bad = "Invalid", f"a target must be a Service, not a {t.kind} of {t.group or 'core'}"
            out.append(AncestorStanding(target, (_accepted(bad),)))
        troubles = [self._sending_trouble(policy, s) for s in services]
        for ref in self._leading_to(set(services)):
            mine = [
                bad for s, bad in zip(services, troubles, strict=True) if s in self._leads_to(ref.namespace, ref.name)
            ]
            out.append(AncestorStanding(ref, (_accepted(next(filter(None, mine), None)),)))
        return PolicyStanding(tuple(out)[:MOST_ANCESTORS])

    def _policy_conditions(self, policy: Policy) -> tuple[Condition, ...]:
        key = (policy.ref.namespace, policy.ref.name)
        services = {t.name for t in policy.spec.target_refs}
        aims = [a for s in sorted(services) for a in self._aims(key[0], s) if a.policy.ref == policy.ref]
        beaten = next((a.beaten for a in aims if a.beaten is not None), None)
        found = self._policy_authorities(*key)
        resolved = Condition("ResolvedRefs", True, "ResolvedRefs", "All references resolved")
        if found.problems:
            says = "; ".join(says for _, says in found.problems)
            resolved = Condition("ResolvedRefs", False, _REASONS[found.problems[0][0]], says)
        trouble = self._trouble(policy)
        if beaten is not None:
            says = f"the older BackendTLSPolicy {beaten.namespace}/{beaten.name} has the same target"
            accepted = Condition("Accepted", False, "Conflicted", says)
        elif trouble:
            reason = "Invalid" if policy.spec.validation.well_known_ca_certificates else "NoValidCACertificate"
            accepted = Condition("Accepted", False, reason, trouble)
        else:
            accepted = _accepted(None)
        return accepted, resolved


def _accepted(bad: tuple[str, str] | None) -> Condition:
    return Condition("Accepted", bad is None, *(bad or ("Accepted", "Configuration is valid")))


def authorities_of(policy: o.Ref) -> str:
    """The name of the SDS resource with a policy's CA certificates."""
    return f"{policy.namespace}/{policy.name}:backend"
