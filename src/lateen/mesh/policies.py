"""The policies and settings that apply to a workload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.mesh import ExtensionProvider
from lateen.api.networking import EnvoyFilter, PolicyTargetReference, ProxyConfig, Sidecar
from lateen.api.security import AuthorizationPolicy, PeerAuthentication, RequestAuthentication, To
from lateen.api.telemetry import Telemetry
from lateen.kit.digits import digits
from lateen.kit.queries import query
from lateen.mesh import authentication, plugins
from lateen.mesh.authentication import UNAUTHENTICATED, Authentication, KeySource
from lateen.mesh.dialects.gateway_api.listeners import NAME_LABEL
from lateen.mesh.inbound_view import STRICT_PATHS, UNRESTRICTED, Authorization
from lateen.mesh.plugins import Extension, ModuleSource, Plugin
from lateen.mesh.rules import Rules
from lateen.mesh.selecting import Selecting, has_labels, selector_labels, targets_of

C = TypeVar("C")
OF_CLASS = "gateway.networking.k8s.io/gateway-class-name"
"""The label with the class of the Gateway that pods are deployed for"""


def about_paths(policies: Iterable[o.Resource[AuthorizationPolicy]]) -> bool:
    """Whether the policies' decisions depend on the request's path."""
    return any(
        (to.operation and (to.operation.paths or to.operation.not_paths)) or any(":path" in c.key for c in rule.when)
        for p in policies
        if not p.dry_run and p.spec.action != "AUDIT"
        for rule in p.spec.rules
        for to in rule.to or (To(),)
    )


def _port_modes(pa: o.Resource[PeerAuthentication]) -> tuple[tuple[int, str], ...]:
    given = sorted((int(k), v.mode) for k, v in pa.spec.port_level_mtls.items() if digits(k))
    return tuple((k, mode) for k, mode in given if mode != "UNSET")


class Policies(Rules):
    def _levels(
        self, found: Selecting[C], namespace: str, labels: Mapping[str, str]
    ) -> tuple[list[C], list[C], list[C]]:
        """A workload's objects of a kind: its own, its namespace's, and the root namespace's, each oldest first. In the
        root namespace, objects with a selector apply to that namespace only."""
        root = self.root_namespace
        here: list[Any] = sorted(found.near(namespace, labels), key=lambda p: p.age_order)
        mesh: list[Any] = sorted(found.general(root), key=lambda p: p.age_order) if root != namespace else []
        own = [p for p in here if found.chosen(p)]
        return own, [p for p in here if not found.chosen(p)], mesh

    def _first(self, found: Selecting[C], namespace: str, labels: Mapping[str, str]) -> C | None:
        return next((p for level in self._levels(found, namespace, labels) for p in level), None)

    def sidecar(self, namespace: str, labels: Mapping[str, str]) -> o.Resource[Sidecar] | None:
        """The Sidecar of a workload: its own, otherwise its namespace's, otherwise the root namespace's."""
        return self._first(self._sidecars, namespace, labels)

    def proxy_config(self, namespace: str, labels: Mapping[str, str]) -> o.Resource[ProxyConfig] | None:
        """The ProxyConfig of a workload: its own, otherwise its namespace's, otherwise the mesh's."""
        return self._first(self._proxy_configs, namespace, labels)

    def envoy_filters(self, namespace: str, labels: Mapping[str, str]) -> tuple[o.Resource[EnvoyFilter], ...]:
        """The EnvoyFilters for a workload: the root namespace's, then those of its own; each by priority, then by
        age."""
        found = self._attached(self._filters, namespace, labels)
        return tuple(
            sorted(found, key=lambda f: (f.spec.priority, f.ref.namespace != self.root_namespace, f.age_order))
        )

    # --- mutual TLS --------------------------------------------------------------------------------------------

    def mtls_mode(self, namespace: str, labels: Mapping[str, str], port: int = 0) -> str:
        mode, ports, _ = self.mtls(namespace, labels)
        return dict(ports).get(port, mode)

    def mtls(self, namespace: str, labels: Mapping[str, str]) -> tuple[str, tuple[tuple[int, str], ...], o.Ref | None]:
        """STRICT, PERMISSIVE or DISABLE for a workload; the ports with other modes; and the policy that decides: the
        workload's own, otherwise its namespace's, otherwise the mesh's."""
        if not self.objects.peer_authentications:
            return "PERMISSIVE", (), None
        levels = self._levels(self._peers, namespace, labels)
        ports: tuple[tuple[int, str], ...] = ()
        ref = None
        for pa in levels[0][:1]:
            ports = _port_modes(pa)
            ref = pa.ref
        for level in levels:
            for pa in level[:1]:
                mode = pa.spec.mtls.mode if pa.spec.mtls else "UNSET"
                if mode != "UNSET":
                    return mode, ports, ref or pa.ref
        return "PERMISSIVE", ports, ref

    def strict_by(self, namespace: str, labels: Mapping[str, str], port: int = 0) -> tuple[o.Ref, ...]:
        """The PeerAuthentications because of which mutual TLS is STRICT at a workload's port; with port 0, at any."""
        levels = self._levels(self._peers, namespace, labels)
        own = [(pa.ref, number, mode) for pa in levels[0][:1] for number, mode in _port_modes(pa)]
        found = [(ref, mode) for ref, number, mode in own if port in (0, number)]
        if not (port and found):
            given = ((pa.ref, pa.spec.mtls.mode) for level in levels for pa in level[:1] if pa.spec.mtls)
            found += [one for one in given if one[1] != "UNSET"][:1]
        return tuple(dict.fromkeys(ref for ref, mode in found if mode == "STRICT"))

    def peers(self) -> tuple[o.Resource[PeerAuthentication], ...]:
        """All PeerAuthentications, the oldest first."""
        return tuple(sorted(self.objects.peer_authentications.values(), key=lambda p: p.age_order))

    # --- authorization -----------------------------------------------------------------------------------------

    def authorization(self, namespace: str, labels: Mapping[str, str]) -> tuple[o.Resource[AuthorizationPolicy], ...]:
        """The policies for a workload: the mesh's, then its namespace's."""
        return self._attached(self._authorization, namespace, labels)

    def access(self, namespace: str, labels: Mapping[str, str]) -> Authorization:
        policies = self.authorization(namespace, labels)
        strict = self.path_normalization or STRICT_PATHS
        paths = self.path_normalization or (STRICT_PATHS if about_paths(policies) else UNRESTRICTED.paths)
        if not policies:
            return Authorization(paths=paths, strict_paths=strict, askable=len(self.trust.providers))
        asks = any(p.spec.action == "CUSTOM" for p in policies)
        return Authorization(
            policies,
            (self.transport.trust_domain, *self.trust.aliases),
            self.providers() if asks else (),
            paths,
            strict,
            len(self.trust.providers),
        )

    @query
    def providers(self) -> tuple[ExtensionProvider, ...]:
        """The usable providers of external authorization. As in Istio, a provider whose service does not exist is
        unusable, so its policies deny, even if it should fail open."""
        return tuple(p for p in self.trust.providers if self._has_service(p))

    def _has_service(self, provider: ExtensionProvider) -> bool:
        given = provider.envoy_ext_authz_grpc or provider.envoy_ext_authz_http
        namespace, _, host = given.service.rpartition("/") if given else ("", "", "")
        return any(namespace in ("", s.namespace) for s in self.candidates(host))

    def plugins(self, namespace: str, labels: Mapping[str, str]) -> tuple[Plugin, ...]:
        """The plugins of a workload, in the order of ``plugins.order``."""
        found = self._extensions(namespace, labels)
        every = (self._plugin(e.ref) for e in sorted(found, key=plugins.order))
        return tuple(p for p in every if p is not None)

    def _extensions(self, namespace: str, labels: Mapping[str, str]) -> list[Extension]:
        if not self.objects.traffic_extensions and not self.objects.wasm_plugins:
            return []
        return [
            *self._attached(self._traffic_extensions, namespace, labels),
            *self._attached(self._wasm, namespace, labels),
        ]

    @query
    def _plugin(self, ref: o.Ref) -> Plugin | None:
        """The same object for all workloads, so that its code is serialized once."""
        at = (ref.namespace, ref.name)
        found = (
            self.objects.wasm_plugins.get(at) if ref.kind == "WasmPlugin" else self.objects.traffic_extensions.get(at)
        )
        return plugins.made(found, self.modules) if found is not None else None

    @query
    def module_sources(self) -> dict[ModuleSource, tuple[o.Ref, ...]]:
        """The Wasm modules to fetch, each with the objects that refer to it."""
        out: dict[ModuleSource, tuple[o.Ref, ...]] = {}
        for e in (*self.objects.traffic_extensions.values(), *self.objects.wasm_plugins.values()):
            if (place := plugins.source(e)) is not None:
                out[place] = (*out.get(place, ()), e.ref)
        return out

    def missing_modules(self, namespace: str, labels: Mapping[str, str]) -> set[ModuleSource]:
        """Modules of a workload's fail-closed plugins that are still being fetched for the first time."""
        places = (plugins.source(e) for e in self._extensions(namespace, labels) if not plugins.opens(e))
        return {place for place in places if place is not None and self.modules.get(place) is None}

    # --- end users' tokens -------------------------------------------------------------------------------------

    def token_rules(self, namespace: str, labels: Mapping[str, str]) -> tuple[o.Resource[RequestAuthentication], ...]:
        return self._attached(self._requests, namespace, labels)

    def authentication(self, namespace: str, labels: Mapping[str, str]) -> Authentication:
        """The tokens that a workload accepts: the rules of the mesh's, its namespace's and its own policies
        combined."""
        if not self.objects.request_authentications:
            return UNAUTHENTICATED
        return authentication.accepted(self.token_rules(namespace, labels), self.token_keys)

    @query
    def key_sources(self) -> dict[KeySource, float]:
        """Sources of keys -> the timeout in seconds; 0 if no rule has one."""
        return authentication.sources(self.objects.request_authentications.values())

    # --- targets of policies ---------------------------------------------------------------------------

    def _attached(self, found: Selecting[C], namespace: str, labels: Mapping[str, str]) -> tuple[C, ...]:
        """The policies of a kind for a workload: the root namespace's, then those of its own; each oldest first. A
        policy's targets take precedence over its selector; in the root namespace a selector applies to all
        namespaces."""
        root = self.root_namespace
        mine: list[Any] = [
            p
            for space in dict.fromkeys((root, namespace))
            for p in found.near(space, labels)
            if self._is_meant(p, namespace, labels)
        ]
        return tuple(sorted(mine, key=lambda p: (p.ref.namespace != root, p.age_order)))

    def _is_meant(self, p: Any, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether one of a policy's targets is the workload's; policies may have none."""
        targets = targets_of(p)
        return not targets or any(self._targets(t, p.ref.namespace, namespace, labels) for t in targets)

    def _targets(self, t: PolicyTargetReference, owner: str, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a workload belongs to a Gateway, a GatewayClass (by the labels of the Gateway API's deployments), a
        Service or a ServiceEntry. Source: https://istio.io/latest/docs/reference/config/type/workload-selector."""
        if t.kind == kinds.GATEWAY_CLASS.kind:
            return owner == self.root_namespace and labels.get(OF_CLASS) == t.name
        if owner != namespace:
            return False
        if t.kind == kinds.KUBERNETES_GATEWAY.kind:
            return labels.get(NAME_LABEL) == t.name
        if t.kind == kinds.SERVICE_ENTRY.kind:
            entry = self.objects.service_entries.get((owner, t.name))
            chosen = entry.spec.workload_selector if entry else None
            return chosen is not None and has_labels(chosen.labels, labels)
        service = self.objects.services.get((owner, t.name))
        return service is not None and bool(service.selector) and has_labels(dict(service.selector), labels)

    # --- telemetry -------------------------------------------------------------------------------------------

    def telemetries(self, namespace: str, labels: Mapping[str, str]) -> tuple[o.Resource[Telemetry], ...]:
        """The Telemetry of a workload: the mesh's, its namespace's, and its own, by selector or target. At each level
        only the oldest counts, as in Istio; analysis reports the others. In the root namespace, only objects that
        target a GatewayClass apply to workloads of other namespaces."""
        levels: list[o.Resource[Telemetry]] = []
        own: list[o.Resource[Telemetry]] = []
        for space in dict.fromkeys((namespace, self.root_namespace)):
            found = sorted(self._telemetries.near(space, labels), key=lambda t: t.age_order)
            levels[:0] = [t for t in found if not selector_labels(t) and not targets_of(t)][:1]
            own += [
                t
                for t in found
                if (selector_labels(t) and space == namespace) or targets_of(t)
                if self._is_meant(t, namespace, labels)
            ]
        return (*levels, *own[:1])
