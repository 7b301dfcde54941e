"""The mesh model of a snapshot, with its routes, policies and outcomes, for analyzers. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lateen.analysis import decoded
from lateen.analysis.bindings import NEW
from lateen.analysis.snapshot import Snapshot, Source
from lateen.api import decoding, kinds
from lateen.api import mesh as api
from lateen.api.config import DecodeError, decode
from lateen.api.mesh.reading import Invalid
from lateen.mesh.configuration import settings
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.settings import Cluster, MeshConfig

READ = (
    kinds.SERVICE,
    kinds.SERVICE_ENTRY,
    kinds.VIRTUAL_SERVICE,
    kinds.GATEWAY,
    kinds.INGRESS,
    kinds.INGRESS_CLASS,
    kinds.NAMESPACE,
    kinds.GATEWAY_CLASS,
    kinds.KUBERNETES_GATEWAY,
    kinds.HTTP_ROUTE,
    kinds.GRPC_ROUTE,
    kinds.TLS_ROUTE,
    kinds.TCP_ROUTE,
    kinds.UDP_ROUTE,
    kinds.LISTENER_SET,
    kinds.REFERENCE_GRANT,
    kinds.BACKEND_TLS_POLICY,
    kinds.X_BACKEND_TRAFFIC_POLICY,
    kinds.BACKEND_TRAFFIC_POLICY,
    kinds.SECURITY_POLICY,
)
"""Kinds that routes depend on."""
POLICIES = (
    kinds.AUTHORIZATION_POLICY,
    kinds.DESTINATION_RULE,
    kinds.ENVOY_FILTER,
    kinds.PEER_AUTHENTICATION,
    kinds.SIDECAR,
    kinds.TELEMETRY,
)
"""Kinds that configure hosts or workloads."""


def model(snapshot: Snapshot, policies: bool = False) -> Mesh:
    """The mesh of all objects that routes depend on, and with ``policies`` also of those that configure hosts and
    workloads; undecodable objects have findings of their own about the schema."""
    name = "the mesh with its policies" if policies else "the mesh"
    return snapshot.index(name, lambda: _made(snapshot, name, (*READ, *POLICIES) if policies else READ))


def read(snapshot: Snapshot, wanted: Iterable[kinds.Kind]) -> Objects:
    """The typed objects of some kinds, and the mesh's settings; undecodable objects are left out."""
    objects = Objects(_settings(snapshot))
    services: dict[str, dict[tuple[str, str], Any]] = {}
    """The Services of other clusters"""
    for kind in wanted:
        own: dict[tuple[str, str], Any] = {}
        for s in snapshot.everywhere(kind):
            into = services.setdefault(s.cluster, {}) if s.cluster and kind is kinds.SERVICE else own
            if (value := _value(kind, s, snapshot.domain)) is not None:
                into[s.namespace, s.name] = value
        objects = objects.replaced(kind, own)
    others = {name: Objects(by_kind={kinds.SERVICE.id: found}) for name, found in services.items()}
    return replace(objects, others=others) if others else objects


def _made(snapshot: Snapshot, name: str, wanted: tuple[kinds.Kind, ...]) -> Mesh:
    objects = read(snapshot, wanted)
    before: Mesh | None = snapshot.kept.get(name)
    if before is not None:
        before.advance(objects)  # only what has changed is recomputed
        return before
    made = snapshot.kept[name] = Mesh(objects)
    return made


def _settings(snapshot: Snapshot) -> MeshConfig:
    cluster = Cluster(domain=snapshot.domain)
    try:
        return settings(decode(api.MeshConfig, snapshot.mesh), snapshot.root, cluster)
    except (DecodeError, Invalid):
        return MeshConfig(cluster, root_namespace=snapshot.root)


def _value(kind: kinds.Kind, source: Source, domain: str) -> Any:
    """The typed object, decoded once per DNS domain; None if it cannot be decoded."""
    name = f"value in {domain}"
    if name not in source.memo:
        source.memo[name] = _decoded(kind, source, domain)
    return source.memo[name]


def _decoded(kind: kinds.Kind, source: Source, domain: str) -> Any:
    try:
        if kind is kinds.SERVICE:
            return decoding.service(source.obj, domain)
        if kind is kinds.NAMESPACE:
            return decoding.namespace(source.obj)
        spec = decoded.spec(kind, source)
        if spec is None:
            return None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # files are not validated by an API server
    aged = {"creationTimestamp": NEW, **source.meta}
    return decoding.resource(kind.ref(source.namespace, source.name), {**source.obj, "metadata": aged}, spec)
