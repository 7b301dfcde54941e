"""What becomes of each object of the Gateway API, for its status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.gateway_api import Gateway
from lateen.api.kinds import GroupKind
from lateen.kit.queries import query
from lateen.mesh.dialects.gateway_api import listeners
from lateen.mesh.dialects.gateway_api.features import EXPERIMENTAL, FEATURES
from lateen.mesh.gateway_routes import ROUTE_KINDS, GatewayRoutes
from lateen.mesh.outcomes import (
    ClassStanding,
    Condition,
    GatewayStanding,
    ListenerStanding,
    ParentStanding,
    RouteStanding,
    Standing,
)


class Standings(GatewayRoutes):
    @query
    def standings(self) -> dict[o.Ref, Standing]:
        """Of all objects of the Gateway API that are ours to judge. Only what has changed is worked out again."""
        out: dict[o.Ref, Standing] = {}
        for _, name in self.objects.gateway_classes:
            if (of_class := self._class_standing(name)) is not None:
                out[kinds.GATEWAY_CLASS.ref("", name)] = of_class
        for key in self.objects.kubernetes_gateways:
            if self.kubernetes_gateway(*key) is not None:
                out[kinds.KUBERNETES_GATEWAY.ref(*key)] = self._gateway_standing(*key)
        for kind in ROUTE_KINDS:
            for key in self.routes_of_kind(kind):
                out[kinds.TABLE[kind].ref(*key)] = self._route_standing(kind, *key)
        return out

    @query
    def _class_standing(self, name: str) -> ClassStanding | None:
        found = self.objects.gateway_classes[("", name)]
        if found.spec.controller_name == listeners.WAYPOINTS:
            says = "waypoint proxies (ambient mode) are not implemented; workloads have sidecars"
            return ClassStanding((Condition("Accepted", False, "Unsupported", says),), ())
        if not self.is_our_class(name):
            return None
        features = (*FEATURES, *EXPERIMENTAL) if self.cluster.experimental else FEATURES
        return ClassStanding((Condition("Accepted", True, "Accepted", "Handled by Istio controller"),), features)

    @query
    def _gateway_standing(self, namespace: str, name: str) -> GatewayStanding:
        gateway = self.objects.kubernetes_gateways[namespace, name]
        faults, attached = self._faults(namespace, name), self._attached_to(namespace, name)
        services = self.front_services(namespace, name)
        found = tuple(
            ListenerStanding(
                li.name,
                listeners.supported(li),
                len(attached.get(li.name, ())),
                listeners.conditions(faults[li.name]),
            )
            for li in gateway.spec.listeners
        )
        return GatewayStanding(tuple(_accepted(gateway.spec, faults)), found, services)

    @query
    def _route_standing(self, kind: GroupKind, namespace: str, name: str) -> RouteStanding:
        route = self.routes_of_kind(kind)[namespace, name]
        out = []
        for i, found in self.attachments_of(kind, namespace, name):
            mesh = route.spec.parent_refs[i].kind != kinds.KUBERNETES_GATEWAY.kind
            problems = self.translated(kind, namespace, name, mesh).problems
            says = "; ".join(dict.fromkeys(p.says for p in problems))
            accepted = Condition(
                "Accepted", not found.reason, found.reason or "Accepted", found.says or "Route was valid"
            )
            resolved = Condition(
                "ResolvedRefs",
                not problems,
                problems[0].reason if problems else "ResolvedRefs",
                says or "All references resolved",
            )
            out.append(ParentStanding(i, (accepted, resolved)))
        return RouteStanding(tuple(out))


def _accepted(spec: Gateway, faults: Mapping[str, tuple[listeners.Fault, ...]]) -> Iterator[Condition]:
    """Of a Gateway as a whole; whether it is programmed is said by its proxies."""
    strange = [a.value or a.type for a in spec.addresses if a.type not in ("Hostname", "IPAddress")]
    if not listeners.is_deployed(spec):
        strange += [a.value or a.type for a in spec.addresses if a.type == "IPAddress"]
    bad = [name for name, found in faults.items() if any(f.closed for f in found)]
    if strange:
        says = f"only the hostname of a Service can be an address here, ignoring {', '.join(strange)}"
        yield Condition("Accepted", False, "UnsupportedAddress", says)
    elif bad and len(bad) == len(faults):
        yield Condition("Accepted", False, "ListenersNotValid", "None of the Gateway's listeners are valid")
    elif bad:
        says = f"listeners that are left out: {', '.join(bad)}"
        yield Condition("Accepted", True, "ListenersNotValid", says)
    else:
        yield Condition("Accepted", True, "Accepted", "Resource accepted")
