"""Endpoints with what telemetry and transport selection need to know of each."""

from __future__ import annotations

from functools import lru_cache

from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from lateen.api import objects as o
from lateen.mesh.view import EndpointsView
from lateen.wire.resource import Resource
from lateen.xds import pb


def workload(pod: o.Pod) -> dict[str, str]:
    """What metrics say of a workload; the keys are those of ``wire.node.PEER_HEADERS``."""
    labels = pod.label_map
    app = labels.get("app") or labels.get("app.kubernetes.io/name") or ""
    service = labels.get("service.istio.io/canonical-name") or app or pod.owner
    revision = labels.get("service.istio.io/canonical-revision") or labels.get("version") or "latest"
    return {
        "workload": pod.owner,
        "namespace": pod.namespace,
        "app": app or "unknown",
        "version": labels.get("version") or "unknown",
        "service": service,
        "revision": revision,
    }


@lru_cache(maxsize=65536)
def of_cluster(view: EndpointsView) -> Resource:
    out = endpoint_pb2.ClusterLoadAssignment(cluster_name=view.cluster)
    if view.endpoints:
        group = out.endpoints.add(load_balancing_weight=pb.u32(len(view.endpoints)))
        group.locality.SetInParent()
        for e, pod in view.endpoints:
            found = (
                workload(pod)
                if pod
                else {
                    "workload": "unknown",
                    "namespace": "unknown",
                    "app": "unknown",
                    "version": "unknown",
                    "service": "unknown",
                    "revision": "latest",
                }
            )
            spaces = {"lateen": found}
            if view.mtls and pod is not None and pod.meshed:
                spaces["envoy.transport_socket_match"] = {"tlsMode": "istio"}
            group.lb_endpoints.append(
                endpoint_components_pb2.LbEndpoint(
                    endpoint=endpoint_components_pb2.Endpoint(address=pb.address(e.address, e.port)),
                    metadata=pb.metadata(**spaces),
                    load_balancing_weight=pb.u32(1),
                )
            )
    return pb.resource(view.cluster, out)
