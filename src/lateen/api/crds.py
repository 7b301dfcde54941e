"""The CustomResourceDefinitions of the mesh's kinds, made from their types."""

from __future__ import annotations

from dataclasses import dataclass

from lateen.api import kinds
from lateen.api.config import Config, schema
from lateen.api.extensions import TrafficExtension, WasmPlugin
from lateen.api.networking import (
    DestinationRule,
    EnvoyFilter,
    Gateway,
    ProxyConfig,
    ServiceEntry,
    Sidecar,
    VirtualService,
    WorkloadEntry,
    WorkloadGroup,
)
from lateen.api.security import AuthorizationPolicy, PeerAuthentication, RequestAuthentication
from lateen.api.telemetry import Telemetry
from lateen.kit.jsons import Json


@dataclass(frozen=True)
class Definition:
    kind: kinds.Kind
    spec: type[Config]
    versions: tuple[str, ...]
    short: tuple[str, ...]
    columns: tuple[tuple[str, str], ...] = ()


NETWORKING = ("v1", "v1beta1", "v1alpha3")
SECURITY = ("v1", "v1beta1")
DEFINITIONS = (
    Definition(
        kinds.VIRTUAL_SERVICE,
        VirtualService,
        NETWORKING,
        ("vs",),
        (("Gateways", ".spec.gateways"), ("Hosts", ".spec.hosts")),
    ),
    Definition(kinds.DESTINATION_RULE, DestinationRule, NETWORKING, ("dr",), (("Host", ".spec.host"),)),
    Definition(kinds.GATEWAY, Gateway, NETWORKING, ("gw",)),
    Definition(
        kinds.SERVICE_ENTRY,
        ServiceEntry,
        NETWORKING,
        ("se",),
        (("Hosts", ".spec.hosts"), ("Location", ".spec.location"), ("Resolution", ".spec.resolution")),
    ),
    Definition(kinds.WORKLOAD_ENTRY, WorkloadEntry, NETWORKING, ("we",), (("Address", ".spec.address"),)),
    Definition(kinds.WORKLOAD_GROUP, WorkloadGroup, NETWORKING, ("wg",)),
    Definition(kinds.SIDECAR, Sidecar, NETWORKING, ()),
    Definition(kinds.ENVOY_FILTER, EnvoyFilter, ("v1alpha3",), ()),
    Definition(kinds.PROXY_CONFIG, ProxyConfig, ("v1beta1",), ()),
    Definition(kinds.PEER_AUTHENTICATION, PeerAuthentication, SECURITY, ("pa",), (("Mode", ".spec.mtls.mode"),)),
    Definition(kinds.REQUEST_AUTHENTICATION, RequestAuthentication, SECURITY, ("ra",)),
    Definition(kinds.AUTHORIZATION_POLICY, AuthorizationPolicy, SECURITY, ("ap",), (("Action", ".spec.action"),)),
    Definition(kinds.TELEMETRY, Telemetry, ("v1", "v1alpha1"), ("telemetry",)),
    Definition(kinds.WASM_PLUGIN, WasmPlugin, ("v1alpha1",), ()),
    Definition(kinds.TRAFFIC_EXTENSION, TrafficExtension, ("v1alpha1",), ()),
)
BY_KIND = {d.kind.kind: d for d in DEFINITIONS}


def crd(d: Definition) -> Json:
    """The definition as the API server takes it."""
    k = d.kind
    columns = [{"name": n, "type": "string", "jsonPath": p} for n, p in d.columns]
    columns.append({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    body = {"type": "object", "properties": {"spec": schema(d.spec), "status": free}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{k.plural}.{k.group}",
            "labels": {"app": "istio-pilot", "chart": "istio", "heritage": "Tiller", "release": "istio"},
        },
        "spec": {
            "group": k.group,
            "scope": "Namespaced",
            "names": {
                "kind": k.kind,
                "plural": k.plural,
                "singular": k.kind.lower(),
                "listKind": f"{k.kind}List",
                "shortNames": list(d.short),
                "categories": ["istio-io", f"{k.group.partition('.')[0]}-istio-io"],
            },
            "versions": [
                {
                    "name": v,
                    "served": True,
                    "storage": v == k.version,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": body},
                    "additionalPrinterColumns": columns,
                }
                for v in d.versions
            ],
        },
    }
