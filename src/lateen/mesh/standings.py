"""The standing of each object of the Gateway API, from which its status is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.crds import RELEASE
from lateen.api.gateway_api import Gateway
from lateen.api.kinds import GroupKind
from lateen.kit.queries import query
from lateen.mesh.backend_policies import BackendPolicies
from lateen.mesh.dialects.gateway_api import faults, listeners
from lateen.mesh.dialects.gateway_api.attaching import set_parent
from lateen.mesh.dialects.gateway_api.features import EXPERIMENTAL, FEATURES
from lateen.mesh.gateway_routes import ROUTE_KINDS
from lateen.mesh.outcomes import (
    ClassStanding,
    Condition,
    GatewayStanding,
    ListenerSetStanding,
    ListenerStanding,
    ParentStanding,
    RouteStanding,
    Standing,
)

FRONTS = (kinds.KUBERNETES_GATEWAY.kind, kinds.LISTENER_SET.kind)
"""Kinds of parents whose routes serve clients outside of the mesh."""

NO_WAYPOINTS = "waypoint proxies (ambient mode) are not implemented; workloads have sidecars"


class Standings(BackendPolicies):
    @query
    def standings(self) -> dict[o.Ref, Standing]:
        """The standings of all Gateway API objects that are ours. Only what has changed is recomputed."""
        out: dict[o.Ref, Standing] = {}
        for _, name in self.objects.gateway_classes:
            if (of_class := self._class_standing(name)) is not None:
                out[kinds.GATEWAY_CLASS.ref("", name)] = of_class
        for key in self.objects.kubernetes_gateways:
            if self.kubernetes_gateway(*key) is not None:
                out[kinds.KUBERNETES_GATEWAY.ref(*key)] = self._gateway_standing(*key)
            elif self._is_waypoint(*key):
                refused = Condition("Accepted", False, "Invalid", NO_WAYPOINTS)
                out[kinds.KUBERNETES_GATEWAY.ref(*key)] = GatewayStanding((refused,), (), ())
        for key in self.objects.listener_sets:
            if (of_set := self._set_standing(*key)) is not None:
                out[kinds.LISTENER_SET.ref(*key)] = of_set
        for key in self.objects.backend_tls_policies:
            out[kinds.BACKEND_TLS_POLICY.ref(*key)] = self.policy_standing(*key)
        for key in self.objects.x_backend_traffic_policies:
            out[kinds.X_BACKEND_TRAFFIC_POLICY.ref(*key)] = self.sending_standing(*key)
        for kind in ROUTE_KINDS:
            for key in self.routes_of_kind(kind):
                out[kinds.TABLE[kind].ref(*key)] = self._route_standing(kind, *key)
        return out

    @query
    def _class_standing(self, name: str) -> ClassStanding | None:
        found = self.objects.gateway_classes[("", name)]
        if found.spec.controller_name == listeners.WAYPOINTS:
            return ClassStanding((Condition("Accepted", False, "Unsupported", NO_WAYPOINTS),), ())
        if not self.is_our_class(name):
            return None
        conditions = (Condition("Accepted", True, "Accepted", "Handled by Istio controller"), *self._supported())
        return ClassStanding(conditions, (*FEATURES, *EXPERIMENTAL) if self._is_experimental() else FEATURES)

    def _is_waypoint(self, namespace: str, name: str) -> bool:
        of_class = self.objects.kubernetes_gateways[namespace, name].spec.gateway_class_name
        found = self.objects.gateway_classes.get(("", of_class))
        return found is not None and found.spec.controller_name == listeners.WAYPOINTS

    def _is_experimental(self) -> bool:
        """Whether the experimental channel is enabled, and the cluster has its CRDs."""
        found = self.objects.definitions.get(("", f"{kinds.HTTP_ROUTE.plural}.{kinds.GATEWAY_API}"))
        return self.cluster.experimental and (found is None or found.channel == "experimental")

    def _supported(self) -> Iterator[Condition]:
        """A GatewayClass's condition about the cluster's CRDs. Objects of unknown releases are read as far as
        possible."""
        found = [(name, d) for (_, name), d in self.objects.definitions.items()]
        bad = sorted(f"{name} is {d}" for name, d in found if not d.known)
        if bad:
            says = f"supported are releases 1.0 to {RELEASE}, others as far as they are compatible: {'; '.join(bad)}"
            yield Condition("SupportedVersion", False, "UnsupportedVersion", says)
        elif found:
            releases = ", ".join(sorted({str(d) for _, d in found}))
            yield Condition("SupportedVersion", True, "SupportedVersion", f"the cluster's CRDs are {releases}")

    @query
    def _gateway_standing(self, namespace: str, name: str) -> GatewayStanding:
        gateway = self.objects.kubernetes_gateways[namespace, name]
        wrong = self._faults(namespace, name)
        own = {p.id: wrong[p.id] for p in self._placed(namespace, name) if p.owner == gateway.ref}
        conditions = (*_accepted(gateway.spec, own), *self._references(gateway))
        sets = [s.ref for s in self._sets_of.get((namespace, name)) if self._set_works(s.ref, namespace, name)]
        found = self._listener_standings(gateway.ref, namespace, name)
        return GatewayStanding(conditions, found, self.front_services(namespace, name), len(sets))

    def _listener_standings(self, owner: o.Ref, namespace: str, name: str) -> tuple[ListenerStanding, ...]:
        """The standings of the listeners that an object adds to a Gateway."""
        wrong, attached = self._faults(namespace, name), self._attached_to(namespace, name)
        return tuple(
            ListenerStanding(
                p.written.name,
                listeners.supported(p.written),
                len(attached.get(p.id, ())),
                faults.conditions(wrong[p.id]),
            )
            for p in self._placed(namespace, name)
            if p.owner == owner
        )

    def _set_works(self, ref: o.Ref, namespace: str, name: str) -> bool:
        """Whether a Gateway accepts any listener of a ListenerSet."""
        wrong = self._faults(namespace, name)
        own = (p for p in self._placed(namespace, name) if p.owner == ref)
        return any(not any(f.closed for f in wrong[p.id]) for p in own)

    def _references(self, gateway: listeners.Object) -> Iterator[Condition]:
        """A Gateway's conditions about its client certificate for backends, and about clients without a valid
        certificate."""
        tls = gateway.spec.tls
        if tls is None:
            return
        bad = self.client_certificate(gateway.ref.namespace, gateway.ref.name)[1]
        if bad:
            yield Condition("ResolvedRefs", False, bad.reason, bad.says)
        else:
            yield Condition("ResolvedRefs", True, "ResolvedRefs", "All references resolved")
        frontend = tls.frontend
        asked = [frontend.default, *(p.tls for p in frontend.per_port)] if frontend else []
        if any(a.validation and a.validation.mode == "AllowInsecureFallback" for a in asked):
            says = "clients without a valid certificate are accepted (AllowInsecureFallback)"
            yield Condition("InsecureFrontendValidationMode", True, "ConfigurationChanged", says)

    @query
    def _set_standing(self, namespace: str, name: str) -> ListenerSetStanding | None:
        found = self.objects.listener_sets[namespace, name]
        key = set_parent(found)
        gateway = self.kubernetes_gateway(*key) if key else None
        if gateway is None or key is None:
            return None
        of_gateway = self._gateway_standing(*key)
        if not self._lets_in(gateway, found):
            says = f"allowedListeners of Gateway {key[0]}/{key[1]} does not admit ListenerSets from {namespace}"
            bad = ("NotAllowed", says)
        elif not self._set_works(found.ref, *key):
            bad = ("ListenersNotValid", "None of the ListenerSet's listeners are valid")
        else:
            accepted = Condition("Accepted", True, "Accepted", "Resource accepted")
            return ListenerSetStanding(gateway.ref, (accepted,), self._listener_standings(found.ref, *key), of_gateway)
        conditions = (Condition("Accepted", False, *bad), Condition("Programmed", False, *bad))
        return ListenerSetStanding(gateway.ref, conditions, self._listener_standings(found.ref, *key), of_gateway)

    @query
    def _route_standing(self, kind: GroupKind, namespace: str, name: str) -> RouteStanding:
        route = self.routes_of_kind(kind)[namespace, name]
        out = []
        for i, found in self.attachments_of(kind, namespace, name):
            mesh = route.spec.parent_refs[i].kind not in FRONTS
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


def _accepted(spec: Gateway, wrong: Mapping[str, tuple[faults.Fault, ...]]) -> Iterator[Condition]:
    """The conditions of a Gateway as a whole; whether it is programmed depends on its proxies."""
    strange = [a.value or a.type for a in spec.addresses if a.type not in ("Hostname", "IPAddress")]
    if not listeners.is_deployed(spec):
        strange += [a.value or a.type for a in spec.addresses if a.type == "IPAddress"]
    bad = [name for name, found in wrong.items() if any(f.closed for f in found)]
    if strange:
        says = f"only the hostname of a Service can be an address here, ignoring {', '.join(strange)}"
        yield Condition("Accepted", False, "UnsupportedAddress", says)
    elif bad and len(bad) == len(wrong):
        yield Condition("Accepted", False, "ListenersNotValid", "None of the Gateway's listeners are valid")
    elif bad:
        says = f"listeners that are left out: {', '.join(bad)}"
        yield Condition("Accepted", True, "ListenersNotValid", says)
    else:
        yield Condition("Accepted", True, "Accepted", "Resource accepted")
