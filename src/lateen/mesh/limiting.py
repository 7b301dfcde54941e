"""Rate limits: the BackendTrafficPolicies that apply to a workload's port, and to routes and listeners of gateways."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.envoy_gateway import BackendTrafficPolicy, TargetReference, is_limiting, targets
from lateen.kit.queries import query
from lateen.mesh.objects import Key
from lateen.mesh.outbound_view import Limits
from lateen.mesh.outcomes import Outcome, Problem
from lateen.mesh.policies import Policies
from lateen.mesh.protocols import REQUESTS, protocol
from lateen.mesh.standings import FRONTS
from lateen.mesh.workloads import container_port

Policy = o.Resource[BackendTrafficPolicy]


class Limiting(Policies):
    def limits_of_port(self, pod: o.Pod, number: int) -> Limits:
        """The limits of a workload's port: those of every Service with this target port. A sidecar cannot tell their
        requests apart, so all limits apply."""
        if not self.objects.backend_traffic_policies:
            return ()
        found: dict[o.Ref, Policy] = {}
        for service in self.services_of(pod):
            ref = kinds.SERVICE.ref(service.namespace, service.name)
            for port in service.ports:
                if container_port(pod, port) == number:
                    policy = self._limiting(ref, port.name)
                    found |= {policy.ref: policy} if policy else {}
        return tuple(sorted(found.values(), key=lambda p: p.age_order))

    def limits_at(self, refs: Iterable[o.Ref]) -> tuple[tuple[o.Ref, Limits], ...]:
        """The limits at a gateway: the objects among ``refs`` that have some."""
        if not self.objects.backend_traffic_policies:
            return ()
        found = ((ref, self._limiting(ref)) for ref in dict.fromkeys(refs))
        return tuple((ref, (policy,)) for ref, policy in found if policy)

    def _limiting(self, target: o.Ref, section: str = "") -> Policy | None:
        """The oldest policy for a target; one with a sectionName precedes those without."""
        found = sorted(self._traffic_policies_at.get(target), key=lambda p: p.age_order)
        mine = [(ref.section_name, p) for p in found if is_limiting(p.spec) for ref in aimed(p, target)]
        wanted = (section, "") if section else ("",)
        return next((p for name in wanted for at, p in mine if at == name), None)

    # --- outcomes ----------------------------------------------------------------------------------------------

    def limit_outcomes(self) -> list[Outcome]:
        return [self._limit_outcome(key) for key, _ in self.objects.backend_traffic_policies.items()]

    @query
    def _limit_outcome(self, key: Key) -> Outcome:
        policy = self.objects.backend_traffic_policies[key]
        many = bool(policy.spec.target_refs)
        found: list[Problem] = []
        for i, ref in enumerate(targets(policy.spec)):
            if says := self._unlimited(policy, ref):
                path = ("spec", "targetRefs", i) if many else ("spec", "targetRef")
                found.append(Problem("NoLimit", says, path))
        return Outcome(policy.ref, tuple(found))

    def _unlimited(self, policy: Policy, ref: TargetReference) -> str:
        """Why a policy has no effect on a target; empty if it has one."""
        target = target_of(ref, policy.ref.namespace)
        if why := self.no_target(ref, target):
            return why
        if target.group_kind == kinds.SERVICE.id:
            meant = self.ports_meant(ref, target)
            if not any(protocol(p) in REQUESTS for p in meant):
                ports = ", ".join(p.name or str(p.port) for p in meant)
                says = f"port {ports} is not HTTP" if ports else f"{target} has no ports"
                return f"{says}, and only requests are counted"
        elif ref.section_name:
            return f"the whole of {target} is limited: sectionName is for ports of Services"
        return older(policy, ref, target, (p for p in self._traffic_policies_at.get(target) if is_limiting(p.spec)))

    def no_target(self, ref: TargetReference, target: o.Ref) -> str:
        """Why a target does not exist, or nothing enforces a policy for it; empty if it may have an effect."""
        place = (target.namespace, target.name)
        if target.group_kind != kinds.SERVICE.id:
            found = self.objects.of(kinds.TABLE[target.group_kind]).get(place)
            if found is None:
                return f"there is no {target}"
            routes = target.group_kind in (kinds.HTTP_ROUTE.id, kinds.GRPC_ROUTE.id)
            if routes and not any(p.kind in FRONTS for p in found.spec.parent_refs):
                return f"{target} has no Gateway among its parents, and only gateways enforce it"
            return ""
        service = self.objects.services.get(place)
        if service is None:
            return f'there is no Service "{ref.name}" in {target.namespace}'
        if ref.section_name and ref.section_name not in {p.name for p in service.ports}:
            return f'the Service "{ref.name}" has no port named "{ref.section_name}"'
        if not service.selector:
            return f'the Service "{ref.name}" has no selector, and only sidecars of the pods that it selects enforce it'
        return ""

    def ports_meant(self, ref: TargetReference, target: o.Ref) -> list[o.ServicePort]:
        """The ports of an existing Service that a policy is for."""
        service = self.objects.services[target.namespace, target.name]
        return [p for p in service.ports if ref.section_name in ("", p.name)]


def target_of(ref: TargetReference, namespace: str) -> o.Ref:
    return o.Ref("" if ref.group == "core" else ref.group, ref.kind, namespace, ref.name)


def older(policy: o.Resource[Any], ref: TargetReference, target: o.Ref, others: Iterable[o.Resource[Any]]) -> str:
    """A sentence about an older policy for the same target; empty if there is none."""
    same = [p for p in others for at in aimed(p, target) if at.section_name == ref.section_name]
    first = min(same, key=lambda p: p.age_order, default=policy)
    return f"the older {first.ref} is for {target}, too" if first.ref != policy.ref else ""


def aimed(policy: o.Resource[Any], target: o.Ref) -> list[TargetReference]:
    """The references of a policy to one target."""
    return [
        t
        for t in targets(policy.spec)
        if ("" if t.group == "core" else t.group, t.kind, t.name) == (target.group, target.kind, target.name)
    ]
