"""From proxies' texts to the graph."""

import pytest

from lateen.console.graph import Graph, health
from lateen.console.metrics import Target, quantile

LINE = (
    'istio_requests_total{{reporter="{reporter}",source_workload="{source}",source_workload_namespace="shop",'
    'source_app="{source}",source_version="v1",destination_workload="{target}",'
    'destination_workload_namespace="shop",destination_app="{target}",destination_version="{version}",'
    'destination_service_name="{target}",destination_service_namespace="shop",request_protocol="http",'
    'response_code="{code}",response_flags="-",connection_security_policy="{policy}"}} {value}\n'
)


def line(reporter="source", source="web", target="cart", version="v1", code=200, policy="unknown", value=1):
    return LINE.format(
        reporter=reporter, source=source, target=target, version=version, code=code, policy=policy, value=value
    ).encode()


def added(*texts, fresh=True):
    target, out = Target(fresh=fresh), {}
    for text in texts:
        target.read(text, out)
    return out


def edges(graph):
    return {(e["source"], e["target"]): e for e in graph["edges"]}


def test_only_what_was_counted_since_the_last_look_is_added():
    assert sum(added(line(value=5), line(value=7)).values()) == 7
    assert sum(added(line(value=5), line(value=7), fresh=False).values()) == 2


def test_a_counter_that_fell_began_anew():
    assert sum(added(line(value=5), line(value=2)).values()) == 7


def test_a_call_goes_through_the_service_to_the_version():
    found = edges(Graph().build(added(line(value=60)), 60))
    assert set(found) == {("app/shop/web/v1", "service/shop/cart"), ("service/shop/cart", "app/shop/cart/v1")}
    assert all(e["rate"] == 1.0 for e in found.values())


def test_both_reports_of_one_call_count_once_and_the_servers_tells_of_mutual_tls():
    both = line(value=10) + line(reporter="destination", policy="mutual_tls", value=10)
    edge = edges(Graph().build(added(both), 10))["app/shop/web/v1", "service/shop/cart"]
    assert (edge["requests"], edge["mtls"]) == (10, 1.0)


def test_errors_are_those_of_the_server():
    text = line(value=6) + line(code=404, value=2) + line(code=503, value=1) + line(code=0, value=1)
    edge = edges(Graph().build(added(text), 10))["app/shop/web/v1", "service/shop/cart"]
    assert (edge["requests"], edge["errorRate"]) == (10, 0.2)
    assert edge["codes"] == {"0": 1, "200": 6, "404": 2, "503": 1}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("app", {("app/shop/web", "service/shop/cart"), ("service/shop/cart", "app/shop/cart")}),
        ("workload", {("workload/shop/web", "workload/shop/cart")}),
        ("service", {("service/shop/web", "service/shop/cart")}),
    ],
)
def test_the_graph_has_four_kinds(kind, expected):
    assert set(edges(Graph(kind).build(added(line()), 10))) == expected


def test_other_namespaces_are_left_out():
    assert Graph(namespaces=["other"]).build(added(line()), 10)["edges"] == []


def test_versions_share_a_box():
    text = line(version="v1") + line(version="v2")
    graph = Graph().build(added(text), 10)
    assert "box/shop/cart" in graph["boxes"]


def test_health_is_by_namespace():
    assert health(added(line(value=3) + line(code=500, value=1))) == {"shop": (4.0, 1.0)}


@pytest.mark.parametrize(("q", "expected"), [(0.5, 10.0), (0.75, 15.0), (1.0, 20.0)])
def test_quantiles_are_prometheus(q, expected):
    assert quantile(q, {10.0: 5.0, 20.0: 10.0, float("inf"): 10.0}) == expected


def test_a_quantile_of_nothing_is_nothing():
    assert quantile(0.5, {}) is None


def test_lines_that_are_not_metrics_are_passed_over():
    assert added(b"# HELP x\nistio_requests_total nan\nistio_build{} x\ngarbage\n\n") == {}


def test_what_envoy_leaves_empty_is_unknown_except_where_istio_leaves_it_empty_too():
    from lateen.agent.metrics import istio_names

    raw = (
        b'envoy_istio_requests_total{destination_workload="",source_app="-",grpc_response_status="",'
        b'response_flags="-"} 1'
    )
    assert istio_names(raw) == (
        b'istio_requests_total{destination_workload="unknown",source_app="unknown",grpc_response_status="",'
        b'response_flags="-"} 1'
    )
