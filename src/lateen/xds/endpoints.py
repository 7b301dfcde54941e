"""Endpoints, with the metadata that telemetry and transport selection need for each."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from lateen.kit.derived import derived
from lateen.mesh.outbound_view import EndpointsView
from lateen.mesh.workloads import NOBODY, Instance, described, said
from lateen.wire import labels, names
from lateen.wire.resource import Resource
from lateen.xds import locality, pb


def _endpoint(i: Instance, mtls: bool) -> Any:
    w = i.workload
    spaces = {"lateen": {**described(w), labels.OF_DESCRIPTION: said(w, i.cluster)} if w else NOBODY}
    if mtls and w is not None and w.meshed and not i.plain:
        spaces["envoy.transport_socket_match"] = {"tlsMode": "istio"}
    out = endpoint_components_pb2.LbEndpoint(metadata=pb.metadata(**spaces), load_balancing_weight=pb.u32(i.weight))
    if i.address.startswith("unix://"):
        out.endpoint.address.pipe.path = i.address.removeprefix("unix://")
    else:
        out.endpoint.address.CopyFrom(pb.address(i.address, i.port))
        for address in i.more:  # Envoy tries them in turn (RFC 8305)
            out.endpoint.additional_addresses.add(address=pb.address(address, i.port))
    return out


def assignment(view: EndpointsView, onward: bool = True) -> Any:
    """Endpoints by locality; in a single group if localities do not matter. ``onward``: with gateways to others."""
    out = endpoint_pb2.ClusterLoadAssignment(cluster_name=view.cluster)
    endpoints = view.endpoints if onward else tuple(i for i in view.endpoints if not i.onward)
    for group in locality.groups(endpoints, view.locality):
        made = out.endpoints.add(load_balancing_weight=pb.u32(group.weight), priority=group.priority)
        region, zone, subzone = (*group.place.split("/"), "", "")[:3]
        made.locality.CopyFrom(base_pb2.Locality(region=region, zone=zone, sub_zone=subzone))
        made.lb_endpoints.extend(_endpoint(i, view.mtls) for i in group.endpoints)
    return out


@derived
def of_cluster(view: EndpointsView) -> Resource:
    return pb.resource(view.cluster, assignment(view))


@derived
def by_sni(view: EndpointsView) -> Resource:
    """The endpoints of the cluster for AUTO_PASSTHROUGH: clients from another network are not sent on to a third
    one."""
    found = assignment(view, onward=False)
    _, port, subset, host = view.cluster.split("|")
    found.cluster_name = names.sni(host, int(port), subset)
    return pb.resource(found.cluster_name, found)
