"""The mesh at one instant: immutable, indexed by what the translator asks for.

``Mesh.apply`` gives the next instant; it shares everything that a change does not touch, and HostViews that come
out equal are the same objects as before, so that what was built from them is found in caches by identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lateen.api import objects as o
from lateen.api.mesh import ExtensionProvider
from lateen.api.networking import DestinationRule, Gateway, VirtualService
from lateen.api.security import AuthorizationPolicy, PeerAuthentication
from lateen.mesh import delegates

Key = tuple[str, str]


@dataclass(frozen=True)
class MeshConfig:
    """The parts of Istio's MeshConfig that have an effect, and Lateen's own switches."""

    access_log_file: str = ""
    access_log_format: str = ""
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    extension_providers: tuple[ExtensionProvider, ...] = field(default=(), hash=False)
    """Who is asked by AuthorizationPolicies with action CUSTOM."""
    root_namespace: str = "istio-system"
    outbound_policy: str = "ALLOW_ANY"
    telemetry: str = "full"
    """``full``: Istio's standard metrics with all labels; ``lean``: fewer histograms and tags, no per-request log."""
    http2: bool = True
    """HTTP/2 between sidecars (Istio's default is HTTP/1.1)."""
    connect_timeout_s: float = 10.0


@dataclass(frozen=True)
class Objects:
    """Every typed object that the mesh is made of."""

    config: MeshConfig = MeshConfig()
    services: Mapping[Key, o.Service] = field(default_factory=dict)
    slices: Mapping[Key, tuple[str, Mapping[str, tuple[o.Endpoint, ...]]]] = field(default_factory=dict)
    """EndpointSlice -> (service name, endpoints by port name)"""
    pods: Mapping[Key, o.Pod] = field(default_factory=dict)
    virtual_services: Mapping[Key, o.Resource[VirtualService]] = field(default_factory=dict)
    destination_rules: Mapping[Key, o.Resource[DestinationRule]] = field(default_factory=dict)
    gateways: Mapping[Key, o.Resource[Gateway]] = field(default_factory=dict)
    peer_authentications: Mapping[Key, o.Resource[PeerAuthentication]] = field(default_factory=dict)
    authorization_policies: Mapping[Key, o.Resource[AuthorizationPolicy]] = field(default_factory=dict)
    credentials: Mapping[Key, o.Credential] = field(default_factory=dict)

    def put(self, collection: str, key: Key, value: Any) -> Objects:
        """With one object replaced, or removed where ``value`` is None."""
        found = dict(getattr(self, collection))
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value
        return replace(self, **{collection: found})  # type: ignore[arg-type]


@dataclass(frozen=True)
class PortEndpoints:
    """The ready endpoints of one service port, each with its pod where it has one."""

    endpoints: tuple[tuple[o.Endpoint, o.Pod | None], ...] = ()


def protocol(port: o.ServicePort) -> str:
    """``http``, ``http2``, ``grpc`` or ``tcp``, by appProtocol and then by the port's name, as in Istio."""
    known = {
        "http": "http",
        "http2": "http2",
        "grpc": "grpc",
        "grpc-web": "http",
        "https": "tcp",
        "tcp": "tcp",
        "tls": "tcp",
        "mongo": "tcp",
        "mysql": "tcp",
        "redis": "tcp",
        "kubernetes.io/h2c": "http2",
        "kubernetes.io/ws": "http",
        "kubernetes.io/wss": "tcp",
    }
    if port.protocol != "TCP":
        return "udp"
    if port.app_protocol:
        return known.get(port.app_protocol.lower(), "tcp")
    name = port.name.lower()
    for prefix in sorted(known, key=len, reverse=True):
        if name == prefix or name.startswith(prefix + "-"):
            return known[prefix]
    return "auto" if port.port not in (25, 53, 3306, 27017) else "tcp"


class Mesh:
    """All lookups over one ``Objects``; what is worked out once is kept."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.config = objects.config
        self._by_service: dict[Key, list[Mapping[str, tuple[o.Endpoint, ...]]]] = {}
        for (namespace, _), (service, ports) in objects.slices.items():
            self._by_service.setdefault((namespace, service), []).append(ports)
        self._services_by_host = {s.host: s for s in objects.services.values()}
        self._mesh_rules: dict[str, list[o.Resource[VirtualService]]] | None = None
        self._whole: tuple[o.Resource[VirtualService], ...] | None = None
        self._rules: dict[Key, list[o.Resource[DestinationRule]]] | None = None

    # --- services --------------------------------------------------------------------------------------------

    def hosts(self) -> Iterable[o.Service]:
        return self.objects.services.values()

    def service(self, host: str) -> o.Service | None:
        return self._services_by_host.get(host)

    def resolve(self, name: str, namespace: str) -> str:
        """A host as written in a rule of ``namespace`` -> the full name (Istio: short names are of the rule's own
        namespace)."""
        if name == "*" or name.startswith("*."):
            return name
        if "." not in name:
            return f"{name}.{namespace}.svc.cluster.local"
        for suffix in ("", ".svc.cluster.local", ".cluster.local"):
            if f"{name}{suffix}" in self._services_by_host:
                return f"{name}{suffix}"
        return name

    def endpoints(self, service: o.Service, port_name: str) -> PortEndpoints:
        found: list[tuple[o.Endpoint, o.Pod | None]] = []
        for ports in self._by_service.get((service.namespace, service.name), ()):
            for e in ports.get(port_name, ()):
                found.append((e, self.objects.pods.get((service.namespace, e.pod)) if e.pod else None))
        found.sort(key=lambda pair: (pair[0].address, pair[0].port))
        return PortEndpoints(tuple(found))

    def services_of(self, pod: o.Pod) -> list[o.Service]:
        labels = pod.label_map
        return sorted(
            (
                s
                for s in self.objects.services.values()
                if s.namespace == pod.namespace and s.selector and all(labels.get(k) == v for k, v in s.selector)
            ),
            key=lambda s: s.name,
        )

    # --- rules -----------------------------------------------------------------------------------------------

    @staticmethod
    def _visible(export_to: tuple[str, ...], owner: str, viewer: str) -> bool:
        return not export_to or any(e == "*" or (e == "." and owner == viewer) or e == viewer for e in export_to)

    def _virtual_services(self) -> tuple[o.Resource[VirtualService], ...]:
        """All of them, each with its delegates' routes in place, oldest first."""
        if self._whole is None:
            found = (delegates.whole(vs, self._delegate, self.resolve) for vs in self.objects.virtual_services.values())
            self._whole = tuple(sorted(found, key=lambda v: v.age_order))
        return self._whole

    def _delegate(self, name: str, namespace: str, viewer: str) -> o.Resource[VirtualService] | None:
        found = self.objects.virtual_services.get((namespace, name))
        return found if found and self._visible(found.spec.export_to, namespace, viewer) else None

    def mesh_rules(self, host: str, namespace: str) -> tuple[o.Resource[VirtualService], ...]:
        """VirtualServices of the gateway ``mesh`` for an exact host, visible from ``namespace``, oldest first."""
        if self._mesh_rules is None:
            found: dict[str, list[o.Resource[VirtualService]]] = {}
            for vs in self._virtual_services():
                if not vs.spec.gateways or "mesh" in vs.spec.gateways:
                    for name in vs.spec.hosts:
                        found.setdefault(self.resolve(name, vs.ref.namespace), []).append(vs)
            self._mesh_rules = found
        rules = [*self._mesh_rules.get(host, ())]
        parts = host.split(".")
        for i in range(1, len(parts)):
            rules += self._mesh_rules.get("*." + ".".join(parts[i:]), ())
        return tuple(vs for vs in rules if self._visible(vs.spec.export_to, vs.ref.namespace, namespace))

    def rule_hosts(self) -> Iterable[str]:
        self.mesh_rules("", "")
        return (self._mesh_rules or {}).keys()

    def destination_rule(self, host: str, namespace: str) -> tuple[o.Resource[DestinationRule], ...]:
        """The rules that apply to a host for clients of ``namespace``: of the client's namespace, else of the
        service's, else of the root; several of one namespace are merged, the oldest first."""
        if self._rules is None:
            found: dict[Key, list[o.Resource[DestinationRule]]] = {}
            for dr in sorted(self.objects.destination_rules.values(), key=lambda d: d.age_order):
                found.setdefault((dr.ref.namespace, self.resolve(dr.spec.host, dr.ref.namespace)), []).append(dr)
            self._rules = found
        service = self.service(host)
        owner = service.namespace if service else namespace
        for candidate in dict.fromkeys((namespace, owner, self.config.root_namespace)):
            for name in (host, *_wildcards(host)):
                rules = tuple(
                    dr
                    for dr in self._rules.get((candidate, name), ())
                    if self._visible(dr.spec.export_to, dr.ref.namespace, namespace)
                )
                if rules:
                    return rules
        return ()

    def mtls_mode(self, namespace: str, labels: Mapping[str, str], port: int = 0) -> str:
        mode, ports, _ = self.mtls(namespace, labels)
        return dict(ports).get(port, mode)

    def mtls(self, namespace: str, labels: Mapping[str, str]) -> tuple[str, tuple[tuple[int, str], ...], o.Ref | None]:
        """STRICT, PERMISSIVE or DISABLE for a workload; the modes of single ports that differ; and the policy that
        says so: its own policy, else its namespace's, else the mesh's."""
        levels: tuple[list[o.Resource[PeerAuthentication]], ...] = ([], [], [])
        for pa in sorted(self.objects.peer_authentications.values(), key=lambda p: p.age_order):
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

    def gateways_for(self, labels: Mapping[str, str]) -> tuple[o.Resource[Gateway], ...]:
        found = [
            g
            for g in self.objects.gateways.values()
            if g.spec.selector and all(labels.get(k) == v for k, v in g.spec.selector.items())
        ]
        return tuple(sorted(found, key=lambda g: g.age_order))

    def gateway_rules(self, gateway: o.Ref) -> tuple[o.Resource[VirtualService], ...]:
        """VirtualServices bound to a gateway, oldest first."""
        wanted = (gateway.namespace, gateway.name)
        return tuple(
            vs
            for vs in self._virtual_services()
            if any(_gateway_name(name, vs.ref.namespace) == wanted for name in vs.spec.gateways)
        )


def _gateway_name(name: str, namespace: str) -> Key:
    head, slash, tail = name.partition("/")
    return (head, tail) if slash else (namespace, name)


def _wildcards(host: str) -> list[str]:
    parts = host.split(".")
    return ["*." + ".".join(parts[i:]) for i in range(1, len(parts))] + ["*"]
