"""Two clusters that have services and pods of the same namespace and name are one mesh."""

from dataclasses import replace

import judge
import meshes as mesh
import pytest

from lateen.ads.peers import Connection
from lateen.ads.session import Session
from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.decoding import NETWORK
from lateen.api.mesh.reading import Invalid, mesh_config, mesh_networks
from lateen.control import dumps
from lateen.mesh.configuration import settings
from lateen.mesh.model import Mesh
from lateen.mesh.objects import Objects
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.wire.node import NodeId
from lateen.xds.generate import generate

SNI = "outbound_.9080_._.reviews.default.svc.cluster.local"
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


def both(documents="", **more):
    return replace(mesh.objects(documents), others={"east": east(**more)})


def addresses(views):
    pod = views.mesh.objects.pods[("default", "productpage-v1")]
    resource = generate(views.of(pod, "sidecar"))[names.EDS][0].resources[REVIEWS]
    message = judge.message("EDS", resource)
    return [e.endpoint.address.socket_address.address for g in message.endpoints for e in g.lb_endpoints]


def test_requests_reach_both_clusters():
    here = addresses(Views(Mesh(mesh.objects())))
    assert len(here) == 3
    assert sorted(addresses(Views(Mesh(both())))) == sorted([*here, "10.9.0.1"])


def test_each_clusters_pods_are_its_own():
    views = Views(Mesh(both()))
    service = views.mesh.service("reviews.default.svc.cluster.local")
    found = views.mesh.endpoints(service, service.ports[0])
    same = [(i.cluster, i.workload.name, i.address) for i in found if i.workload.name == "reviews-v1"]
    assert same == [("", "reviews-v1", "10.244.0.3"), ("east", "reviews-v1", "10.9.0.1")]


def test_a_change_in_the_other_cluster_costs_its_endpoints_alone():
    found = mesh.objects()
    views = Views(Mesh(replace(found, others={"east": east()})))
    pod = found.pods[("default", "productpage-v1")]
    before = generate(views.of(pod, "sidecar"))
    views.advance(replace(found, others={"east": east(ready=False)}))
    after = generate(views.of(pod, "sidecar"))
    assert {t for t in after for x, y in zip(before[t], after[t], strict=True) if x is not y} == {names.EDS}
    assert "10.9.0.1" not in addresses(views)


def test_a_subset_is_chosen_by_labels_in_every_cluster():
    rule = """
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
"""
    views = Views(Mesh(both(rule)))
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


GATEWAY = o.Service(
    "istio-system", "eastwest", "10.99.0.9", (), (), outside=("203.0.113.7",), network="net-east", elsewhere=True
)
STRICT = "kind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n"


def two_networks(documents="", meshed=True, more=()):
    """``net-west`` is ours; that of the other cluster has a gateway."""
    other = east()
    pods = {("default", "reviews-v1"): mesh.pod("reviews-v1", "10.244.0.3", meshed=meshed, app="reviews", version="v2")}
    slices = {("default", "reviews"): ("reviews", {"http": (o.Endpoint("10.244.0.3", 9080, "reviews-v1"),)})}
    other = other.replaced(kinds.POD, pods).replaced(kinds.ENDPOINT_SLICE, slices)
    other = other.put(kinds.SERVICE, ("istio-system", "eastwest"), GATEWAY)
    other = other.put(kinds.NAMESPACE, ("", "istio-system"), o.Namespace("istio-system", ((NETWORK, "net-east"),)))
    found = mesh.objects(documents).put(
        kinds.NAMESPACE, ("", "istio-system"), o.Namespace("istio-system", ((NETWORK, "net-west"),))
    )
    for kind, key, value in more:
        found = found.put(kind, key, value)
    return replace(found, others={"east": other})


def assigned(views, cluster=REVIEWS, pod="productpage-v1"):
    resource = generate(views.of(views.mesh.objects.pods[("default", pod)], "sidecar"))[names.EDS][0].resources[cluster]
    return [e for g in judge.message("EDS", resource).endpoints for e in g.lb_endpoints]


def at(endpoints):
    found = [e.endpoint.address.socket_address for e in endpoints]
    return [(a.address, a.port_value) for a in found]


def test_another_network_is_reached_by_its_gateway_with_mutual_tls():
    found = assigned(Views(Mesh(two_networks())))
    assert at(found) == [
        ("10.244.0.3", 9080),
        ("10.244.0.4", 9080),
        ("10.244.0.5", 9080),
        ("203.0.113.7", 15443),
    ]
    assert found[-1].metadata.filter_metadata["envoy.transport_socket_match"]["tlsMode"] == "istio"
    assert found[-1].metadata.filter_metadata["lateen"]["version"] == "v2"


def test_instances_without_a_sidecar_cannot_be_reached_on_another_network():
    assert ("203.0.113.7", 15443) not in at(assigned(Views(Mesh(two_networks(meshed=False)))))
    plain = """
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, trafficPolicy: {tls: {mode: DISABLE}}}
"""
    assert ("203.0.113.7", 15443) not in at(assigned(Views(Mesh(two_networks(plain)))))


def test_a_gateway_to_another_network_takes_mutual_tls_whatever_its_own_port_number_means_to_workloads():
    policies = """
kind: PeerAuthentication
metadata: {name: v1}
spec: {selector: {matchLabels: {app: reviews, version: v1}}, mtls: {mode: DISABLE}}
---
kind: PeerAuthentication
metadata: {name: v2}
spec: {selector: {matchLabels: {app: reviews, version: v2}}, portLevelMtls: {15443: {mode: DISABLE}}}
"""
    found = assigned(Views(Mesh(two_networks(policies))))
    secure = {
        a for a, e in zip(at(found), found, strict=True) if "envoy.transport_socket_match" in e.metadata.filter_metadata
    }
    assert secure == {("10.244.0.4", 9080), ("10.244.0.5", 9080), ("203.0.113.7", 15443)}


def test_gateways_share_the_weight_of_the_instances_behind_them():
    found = two_networks()
    gateways = replace(GATEWAY, outside=("203.0.113.7", "203.0.113.8"))
    other = found.others["east"].put(kinds.SERVICE, ("istio-system", "eastwest"), gateways)
    endpoints = assigned(Views(Mesh(replace(found, others={"east": other}))))
    assert [e.load_balancing_weight.value for e in endpoints] == [2, 2, 2, 1, 1]


def test_a_gateway_to_its_network_does_not_send_connections_on_to_another_one():
    documents = """
kind: Gateway
metadata: {name: cross-network, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 15443, name: tls, protocol: TLS}, hosts: ["*.local"], tls: {mode: AUTO_PASSTHROUGH}}]
"""
    views = Views(Mesh(two_networks(documents)))
    pod = views.mesh.objects.pods[("istio-system", "ingress")]
    sets = generate(views.of(pod, "router"))[names.EDS]
    resource = next(s.resources[SNI] for s in sets if SNI in s.resources)
    found = [e for g in judge.message("EDS", resource).endpoints for e in g.lb_endpoints]
    assert [a for a, _ in at(found)] == ["10.244.0.3", "10.244.0.4", "10.244.0.5"]


def test_a_pods_label_says_its_network_before_the_clusters_does():
    there = mesh.pod("ratings-v9", "10.244.0.77", app="ratings", **{NETWORK: "net-east"})
    found = two_networks(more=[(kinds.POD, ("default", "ratings-v9"), replace(there, network="net-east"))])
    views = Views(Mesh(found))
    assert ("203.0.113.7", 15443) not in at(assigned(views, pod="ratings-v9"))


RACKS = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: racks}
spec:
  hosts: [racks.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 198.51.100.2, network: NETWORK, serviceAccount: racks}]
"""


@pytest.mark.parametrize(
    ("network", "expected"), [("net-west", ("198.51.100.2", 80)), ("net-east", ("203.0.113.7", 15443))]
)
def test_a_machine_on_another_network_is_behind_its_gateway(network, expected):
    views = Views(Mesh(two_networks(RACKS.replace("NETWORK", network))))
    assert at(assigned(views, "outbound|80||racks.example.com")) == [expected]


def test_mesh_networks_say_what_labels_do_not():
    given = mesh_networks("""
networks:
  net-west: {endpoints: [{fromRegistry: Kubernetes}]}
  net-east:
    endpoints: [{fromRegistry: east}]
    gateways: [{address: 198.51.100.1, port: 443}, {registryServiceName: eastwest.istio-system, port: 444}]
""")
    found = replace(mesh.objects(), config=settings(mesh_config("{}"), "istio-system", networks=given))
    other = east().put(kinds.SERVICE, ("istio-system", "eastwest"), replace(GATEWAY, network=""))
    views = Views(Mesh(replace(found, others={"east": other})))
    assert views.mesh.network_gateways() == {"net-east": (("198.51.100.1", 443), ("203.0.113.7", 444))}
    assert at(assigned(views))[-2:] == [("198.51.100.1", 443), ("203.0.113.7", 444)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("networks: {n: {endpoints: [{}]}}", "needs either fromRegistry"),
        ("networks: {n: {endpoints: [{fromCidr: 10.0.0.0/99}]}}", "networks[n].endpoints[0].fromCidr"),
        ("networks: {n: {gateways: [{address: a.example.com, port: 1}]}}", "is not an IP address"),
        ("networks: {n: {gateways: [{address: 10.0.0.1}]}}", "networks[n].gateways[0].port"),
    ],
)
def test_mesh_networks_that_cannot_be_used_are_refused(text, says):
    with pytest.raises(Invalid) as e:
        mesh_networks(text)
    assert says in str(e.value)


def test_a_host_that_is_local_to_its_cluster_has_no_instances_elsewhere():
    config = mesh_config("serviceSettings: [{settings: {clusterLocal: true}, hosts: ['*.default.svc.cluster.local']}]")
    found = replace(both(), config=settings(config, "istio-system"))
    assert "10.9.0.1" not in addresses(Views(Mesh(found)))
    assert Mesh(both()).is_cluster_local("kubernetes.default.svc.cluster.local")


def test_another_network_takes_over_where_ours_has_the_first_priority():
    rule = """
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1}
    loadBalancer: {localityLbSetting: {failoverPriority: [topology.istio.io/LABEL]}}
"""
    for label in ("network", "cluster"):
        views = Views(Mesh(two_networks(rule.replace("LABEL", label))))
        pod = views.mesh.objects.pods[("default", "productpage-v1")]
        message = judge.message("EDS", generate(views.of(pod, "sidecar"))[names.EDS][0].resources[REVIEWS])
        assert [(g.priority, len(g.lb_endpoints)) for g in message.endpoints] == [(0, 3), (1, 1)]


def test_clusters_come_and_go_and_what_they_do_not_concern_stays():
    found = mesh.objects()
    views = Views(Mesh(found))
    pod = found.pods[("default", "productpage-v1")]
    before = generate(views.of(pod, "sidecar"))
    views.advance(replace(found, others={"east": east()}))
    assert "10.9.0.1" in addresses(views)
    views.advance(replace(found, others={}))
    after = generate(views.of(pod, "sidecar"))
    assert "10.9.0.1" not in addresses(views)
    assert after[names.LDS] == before[names.LDS]


def test_a_service_of_other_clusters_alone_is_called_by_its_name():
    """Its address may be that of another service here."""
    other = east()
    key = ("default", "reviews")
    lone = replace(other.services[key], name="lone", address="10.96.0.2", elsewhere=True)
    ports = (o.ServicePort("http", 9080, 9080, "TCP"), o.ServicePort("tcp-db", 3306, 3306, "TCP"))
    lone = replace(lone, ports=ports)
    other = other.put(kinds.SERVICE, ("default", "lone"), lone)
    views = Views(Mesh(replace(mesh.objects(), others={"east": other})))
    pod = views.mesh.objects.pods[("default", "productpage-v1")]
    sets = generate(views.of(pod, "sidecar"))
    clusters = {n for s in sets[names.CDS] for n in s.resources}
    assert "outbound|9080||lone.default.svc.cluster.local" in clusters
    assert "outbound|3306||lone.default.svc.cluster.local" not in clusters
    hosts = [judge.message("VHDS", r) for s in sets[names.VHDS] for r in s.resources.values()]
    domains = [d for h in hosts for d in h.domains]
    assert len(domains) == len(set(domains))
    assert any(d.startswith("lone.default") for d in domains)


def domains(views, pod="productpage-v1"):
    sets = generate(views.of(views.mesh.objects.pods[("default", pod)], "sidecar"))
    hosts = [judge.message("VHDS", r) for s in sets[names.VHDS] for r in s.resources.values()]
    return {h.name: sorted(h.domains) for h in hosts}


def once(found):
    """Whether each domain is in one virtual host of its port, as Envoy demands."""
    by_port = {}
    for name, ds in found.items():
        by_port.setdefault(name.split("/")[0], []).extend(ds)
    return all(len(ds) == len(set(ds)) for ds in by_port.values())


def with_service(name, **more):
    other = east()
    found = replace(other.services[("default", "reviews")], name=name, address="", elsewhere=True, **more)
    return other.put(kinds.SERVICE, ("default", name), found)


ENTRY = """
kind: ServiceEntry
apiVersion: networking.istio.io/v1
metadata: {name: lone, namespace: default}
spec:
  hosts: [lone.default]
  ports: [{number: 9080, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1}]
"""


def test_a_short_name_of_a_service_elsewhere_is_claimed_once():
    """A ServiceEntry of ours has the name by which clients call a service that only the other cluster has."""
    views = Views(Mesh(replace(mesh.objects(ENTRY), others={"east": with_service("lone")})))
    found = domains(views)
    assert once(found)
    assert [n for n, ds in found.items() if "lone.default" in ds] == ["9080/lone.default:9080"]
    assert any("lone.default.svc.cluster.local" in ds for ds in found.values())


def test_a_name_that_is_an_alias_in_the_other_cluster_alone_means_our_own_service():
    target = "ratings.default.svc.cluster.local"
    views = Views(Mesh(replace(mesh.objects(), others={"east": with_service("reviews", external_name=target)})))
    found = domains(views)
    assert once(found)
    (host,) = [n for n, ds in found.items() if "reviews.default" in ds]
    assert "ratings" not in host


def test_weights_that_add_up_to_more_than_envoy_takes_are_scaled_down():
    """Otherwise one ServiceEntry would keep the configuration from every proxy that sees its host."""
    documents = """
kind: ServiceEntry
metadata: {name: heavy}
spec:
  hosts: [heavy.test]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1, weight: 3000000000}, {address: 192.0.2.2, weight: 3000000000},
    {address: 192.0.2.3, weight: 1}]
"""
    sets = generate(mesh.view(mesh.objects(documents)))[names.EDS]
    heavy = "outbound|80||heavy.test"
    (group,) = judge.message("EDS", next(s.resources[heavy] for s in sets if heavy in s.resources)).endpoints
    first, second, light = (e.load_balancing_weight.value for e in group.lb_endpoints)
    assert first == second > 2_000_000_000
    assert light == 1
    assert group.load_balancing_weight.value == first + second + light <= 2**32 - 1
