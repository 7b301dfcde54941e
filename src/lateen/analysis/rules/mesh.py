"""The mesh's own configuration, deprecated fields, conditions of objects."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.api import kinds
from lateen.kit.jsons import Json, dig

NEGATIVE = {
    kinds.SERVICE.id: ("istio.io/WaypointBound",),
    kinds.SERVICE_ENTRY.id: ("istio.io/WaypointBound",),
    kinds.WORKLOAD_ENTRY.id: ("istio.io/WaypointBound",),
    kinds.AUTHORIZATION_POLICY.id: ("ZtunnelAccepted", "WaypointAccepted"),
    kinds.KUBERNETES_GATEWAY.id: ("Accepted", "Programmed", "ResolvedRefs"),
    kinds.HTTP_ROUTE.id: ("Accepted", "Programmed", "ResolvedRefs"),
    kinds.GRPC_ROUTE.id: ("Accepted", "Programmed", "ResolvedRefs"),
}
"""The conditions of a kind that Istio's analysis reports when they are False; of other kinds, any."""
REGISTRIES = {"Mock", "Kubernetes", "External"}
GONE = {"rbac.istio.io": {"ClusterRbacConfig", "RbacConfig", "ServiceRole", "ServiceRoleBinding"}}


@analyzer("meshnetworks.MeshNetworksAnalyzer", "Check the validity of MeshNetworks in the cluster")
def networks(snapshot: Snapshot) -> Iterator[Message]:
    found = snapshot.networks.get("networks") or {}
    if not found:
        return
    known = set(REGISTRIES)
    for secret in snapshot.all(kinds.SECRET):
        if secret.labels.get("istio/multiCluster") == "true":
            known |= set(secret.obj.get("data") or {}) | set(secret.obj.get("stringData") or {})
    source = Source({"kind": "MeshNetworks", "metadata": {"namespace": snapshot.root, "name": "meshnetworks"}})
    for name, network in found.items():
        for endpoint in (network or {}).get("endpoints") or []:
            registry = endpoint.get("fromRegistry")
            if registry and registry not in known:
                yield message("IST0126", source, registry, name)


@analyzer("sidecar.HttpProxyAnalyzer", "Checks whether a Sidecar has a listener where the mesh has its HTTP proxy")
def http_proxies(snapshot: Snapshot) -> Iterator[Message]:
    port = snapshot.mesh.get("proxyHttpPort")
    for s in snapshot.all(kinds.SIDECAR) if port else ():
        for i, listener in enumerate(s.spec.get("egress") or []):
            free = listener.get("bind") or listener.get("captureMode") == "NONE"
            here = listener.get("bind", "127.0.0.1") == "127.0.0.1" and dig(listener, "port", "number") == port
            if free and here:
                says = f"127.0.0.1:{port} is the mesh's HTTP proxy (proxyHttpPort)"
                yield message("LAT0109", s, says, path=("spec", "egress", i, "port", "number"))


@analyzer("deprecation.DeprecationAnalyzer", "Checks for deprecated Istio types and fields")
def deprecated(snapshot: Snapshot) -> Iterator[Message]:
    for vs in snapshot.all(kinds.VIRTUAL_SERVICE):
        for i, http in enumerate(vs.spec.get("http") or []):
            if dig(http, "fault", "delay", "percent"):
                path = ("spec", "http", i, "fault", "delay", "percent")
                yield message("IST0002", vs, _replaced("HTTPRoute.fault.delay.percent", "percentage"), path=path)
    for s in snapshot.all(kinds.SIDECAR):
        if dig(s.spec, "outboundTrafficPolicy", "egressProxy") is not None:
            where = ("spec", "outboundTrafficPolicy", "egressProxy")
            yield message("IST0002", s, "OutboundTrafficPolicy.EgressProxy ignored", path=where)
    for crd in snapshot.all(kinds.CRD):
        group, kind = str(crd.spec.get("group")), dig(crd.spec, "names", "kind")
        if kind in GONE.get(group, ()):
            yield message("IST0002", crd, f"Custom resource type {group} {kind} is removed", path=("spec",))


def _replaced(field: str, by: str) -> str:
    return f"{field} is deprecated; use HTTPRoute.fault.delay.{by}"


@analyzer("conditions.ConditionAnalyzer", "Checks for negative status conditions on resources")
def conditions(snapshot: Snapshot) -> Iterator[Message]:
    for source in snapshot.everything():
        group = source.id.group
        if source.id != kinds.SERVICE.id and not group.endswith(("istio.io", "gateway.networking.k8s.io")):
            continue
        if source.id == kinds.GATEWAY_CLASS.id and source.name not in _classes(snapshot):
            continue  # an unused class
        found = list(dig(source.obj, "status", "conditions", default=[]))
        for parent in dig(source.obj, "status", "parents", default=[]):  # routes have conditions for each parent
            found += parent.get("conditions") or []
        for c in found:
            known = NEGATIVE.get(source.id)
            if (c.get("status") == "False" and (known is None or c.get("type") in known)) or _partly(c):
                yield message("IST0171", source, c.get("type"), c.get("reason", ""), c.get("message", ""))


def _classes(snapshot: Snapshot) -> set[str]:
    """The GatewayClasses that Gateways name."""
    return {str(g.spec.get("gatewayClassName")) for g in snapshot.all(kinds.KUBERNETES_GATEWAY)}


def _partly(c: Json) -> bool:
    """A condition that is True but negative: a waypoint accepts a policy only partly."""
    return c.get("type") == "WaypointAccepted" and c.get("reason") == "PartiallyInvalid"
