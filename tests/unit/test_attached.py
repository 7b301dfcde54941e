"""Where an object is attached, as ``lateen x describe object`` and the console show it."""

import pytest

from lateen.analysis.attached import Place, places
from lateen.analysis.snapshot import Snapshot, Source
from lateen.cli.describe_object import described

VERSIONS = {
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "GatewayClass": "gateway.networking.k8s.io/v1",
    "VirtualService": "networking.istio.io/v1",
    "DestinationRule": "networking.istio.io/v1",
    "Gateway": "networking.istio.io/v1",
    "Sidecar": "networking.istio.io/v1",
    "AuthorizationPolicy": "security.istio.io/v1",
    "Service": "v1",
    "Pod": "v1",
}


def obj(kind, name, spec, namespace="shop", **meta):
    metadata = {"name": name, "namespace": namespace, **meta}
    return Source({"apiVersion": VERSIONS[kind], "kind": kind, "metadata": metadata, "spec": spec})


def pod(name, app, containers=("app", "istio-proxy"), namespace="shop", **labels):
    spec = {"containers": [{"name": c} for c in containers]}
    return obj("Pod", name, spec, namespace, labels={"app": app, **labels})


WORLD = [
    obj("Service", "cart", {"selector": {"app": "cart"}, "ports": [{"port": 80}]}),
    pod("cart-a", "cart", version="v1"),
    pod("cart-b", "cart", version="v1"),
    pod("old", "old", containers=("app",)),
    pod("ingress", "gateway", namespace="istio-system"),
    obj(
        "Gateway",
        "web",
        {"selector": {"app": "gateway"}, "servers": [{"port": {"number": 80}, "hosts": ["*.example.com"]}]},
    ),
]


def attached(source):
    return places(Snapshot([*WORLD, source]), source)


def test_a_rule_is_attached_to_the_ports_of_gateways_that_have_its_hosts():
    rule = {"hosts": ["shop.example.com", "other.test"], "gateways": ["web", "none", "mesh"]}
    assert attached(obj("VirtualService", "r", rule)) == [
        Place("Gateway", "shop/web", "port 80 for shop.example.com"),
        Place("Gateway", "shop/none", missing="there is no such Gateway"),
        Place("Host", "shop.example.com", missing="no service has this host"),
        Place("Host", "other.test", missing="no service has this host"),
    ]


def test_a_rule_with_other_hosts_than_its_gateway_is_attached_to_none():
    found = attached(obj("VirtualService", "r", {"hosts": ["other.test"], "gateways": ["web"]}))
    assert [p.missing for p in found] == ["none of its servers has a host of this VirtualService"]


def test_a_rule_for_the_mesh_is_attached_to_the_full_host():
    found = attached(obj("VirtualService", "r", {"hosts": ["cart"], "exportTo": ["."]}))
    assert found == [Place("Host", "cart.shop.svc.cluster.local", "for clients in shop")]


def test_a_rule_without_hosts_is_attached_to_those_that_delegate_to_it():
    delegate = obj("VirtualService", "d", {"http": []})
    root = {"hosts": ["cart"], "http": [{"name": "all", "delegate": {"name": "d"}}]}
    found = places(Snapshot([*WORLD, delegate, obj("VirtualService", "root", root)]), delegate)
    assert found == [Place("VirtualService", "shop/root", "all")]


def test_subsets_have_the_pods_with_their_labels():
    subsets = [{"name": v, "labels": {"version": v}} for v in ("v1", "v2")]
    assert attached(obj("DestinationRule", "cart", {"host": "cart", "subsets": subsets})) == [
        Place("Host", "cart.shop.svc.cluster.local"),
        Place("Subset", "v1", "2 pods"),
        Place("Subset", "v2", missing="no pod of the service has its labels"),
    ]


@pytest.mark.parametrize(
    ("spec", "namespace", "expected"),
    [
        (
            {"selector": {"matchLabels": {"app": "cart"}}},
            "shop",
            [("Workload", "shop/cart-a"), ("Workload", "shop/cart-b")],
        ),
        (
            {"selector": {"matchLabels": {"app": "cart"}}},
            "istio-system",
            [("Workload", "shop/cart-a"), ("Workload", "shop/cart-b")],
        ),
        ({"selector": {"matchLabels": {"app": "nobody"}}}, "shop", [("Workload", "app=nobody", "it selects no pod")]),
        ({"selector": {"matchLabels": {"app": "old"}}}, "shop", [("Workload", "shop/old", "its pods have no proxy")]),
        ({}, "shop", [("Namespace", "shop")]),
        ({}, "istio-system", [("Mesh", "all workloads")]),
        ({"targetRefs": [{"kind": "Service", "name": "cart"}]}, "shop", [("Service", "shop/cart")]),
        ({"targetRefs": [{"kind": "Service", "name": "no"}]}, "shop", [("Service", "shop/no", "it does not exist")]),
    ],
)
def test_a_policy_is_attached_to_the_workloads_that_it_selects(spec, namespace, expected):
    found = attached(obj("AuthorizationPolicy", "p", spec, namespace))
    assert [(p.kind, p.name, *([p.missing] if p.missing else [])) for p in found] == expected


def test_a_gateway_is_attached_to_the_workloads_that_serve_it():
    assert attached(WORLD[-1]) == [Place("Workload", "istio-system/ingress", "1 pod")]


def test_describe_lists_where_it_is_attached_and_warns_where_it_is_not():
    rule = obj("VirtualService", "r", {"hosts": ["cart"], "gateways": ["mesh", "none"]})
    assert described(rule, attached(rule)) == [
        "VirtualService: r.shop",
        "   Attached to Host cart.shop.svc.cluster.local",
        "   WARNING: not attached to Gateway shop/none: there is no such Gateway",
    ]


def test_a_route_of_the_gateway_api_is_attached_as_its_status_says():
    route = obj("HTTPRoute", "r", {"parentRefs": [{"name": "gw", "sectionName": "web"}, {"name": "gw", "port": 81}]})
    istio = obj("GatewayClass", "istio", {"controllerName": "istio.io/gateway-controller"}, "")
    listener = {"name": "web", "port": 80, "protocol": "HTTP"}
    gateway = obj("Gateway", "gw", {"gatewayClassName": "istio", "listeners": [listener]})
    gateway = Source({**gateway.obj, "apiVersion": VERSIONS["HTTPRoute"]})
    first, second = places(Snapshot([*WORLD, istio, gateway, route]), route)
    assert first == Place("Gateway.gateway.networking.k8s.io", "shop/gw", "listener web")
    assert second.detail == "port 81"
    assert second.missing
