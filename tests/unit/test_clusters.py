"""Two clusters that have services and pods of the same namespace and name are one mesh."""

import judge
import meshes as mesh

from lateen.ads.server import Connection
from lateen.ads.session import Session
from lateen.api import kinds
from lateen.api import objects as o
from lateen.control import dumps
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.wire.node import NodeId
from lateen.xds.generate import generate

REVIEWS = "outbound|9080||reviews.default.svc.cluster.local"


def east(address="10.9.0.1", ready=True):
    """The other cluster: a ``reviews`` with a pod that is called as one of ours."""
    pod = mesh.pod("reviews-v1", address, app="reviews", version="v1")
    service = o.Service(
        "default", "reviews", "10.99.0.1", (o.ServicePort("http", 9080, 9080, "TCP"),), (("app", "reviews"),)
    )
    found = (o.Endpoint(address, 9080, "reviews-v1"),) if ready else ()
    return Objects(
        by_kind={
            kinds.SERVICE.id: {("default", "reviews"): service},
            kinds.POD.id: {("default", "reviews-v1"): pod},
            kinds.ENDPOINT_SLICE.id: {("default", "reviews"): ("reviews", {"http": found})},
        }
    )


def addresses(views):
    pod = views.mesh.objects.pods[("default", "productpage-v1")]
    resource = generate(views.of(pod, "sidecar"))[names.EDS][0].resources[REVIEWS]
    message = judge.message("EDS", resource)
    return [e.endpoint.address.socket_address.address for g in message.endpoints for e in g.lb_endpoints]


def test_requests_reach_both_clusters():
    here = addresses(Views(Mesh(mesh.objects())))
    assert len(here) == 3
    assert sorted(addresses(Views(Mesh(mesh.objects(), {"east": east()})))) == sorted([*here, "10.9.0.1"])


def test_each_clusters_pods_are_its_own():
    views = Views(Mesh(mesh.objects(), {"east": east()}))
    service = views.mesh.service("reviews.default.svc.cluster.local")
    found = views.mesh.endpoints(service, service.ports[0])
    same = [(i.cluster, i.workload.name, i.address) for i in found if i.workload.name == "reviews-v1"]
    assert same == [("", "reviews-v1", "10.244.0.3"), ("east", "reviews-v1", "10.9.0.1")]


def test_a_change_in_the_other_cluster_costs_its_endpoints_alone():
    found = mesh.objects()
    views = Views(Mesh(found, {"east": east()}))
    pod = found.pods[("default", "productpage-v1")]
    before = generate(views.of(pod, "sidecar"))
    views.advance(found, {"east": east(ready=False)})
    after = generate(views.of(pod, "sidecar"))
    assert {t for t in after for x, y in zip(before[t], after[t], strict=True) if x is not y} == {names.EDS}
    assert "10.9.0.1" not in addresses(views)


def test_a_subset_is_chosen_by_labels_in_every_cluster():
    rule = """
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
"""
    views = Views(Mesh(mesh.objects(rule), {"east": east()}))
    pod = views.mesh.objects.pods[("default", "productpage-v1")]
    resource = generate(views.of(pod, "sidecar"))[names.EDS][0].resources[REVIEWS.replace("||", "|v1|")]
    message = judge.message("EDS", resource)
    found = [e.endpoint.address.socket_address.address for g in message.endpoints for e in g.lb_endpoints]
    assert found == ["10.244.0.3", "10.9.0.1"]


def test_a_proxy_that_names_no_cluster_is_listed_in_that_of_istiod():
    node = NodeId("sidecar", "10.0.0.1", "a", "shop", "shop.svc.cluster.local")
    silent, named = Connection(node, "", "", session=Session()), Connection(node, "", "", session=Session())
    named.metadata = {"CLUSTER_ID": "west"}
    listed = [dumps.client_config(c, "east").node.metadata.fields["CLUSTER_ID"].string_value for c in (silent, named)]
    assert listed == ["east", "west"]
