"""What the graph shows beside traffic: badges, the past, and when configuration changed."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shop import CART, SHOP, cluster, kubernetes, place, shop_pod

from lateen.api import kinds
from lateen.console import past
from lateen.console.badges import badges
from lateen.console.changes import Changes
from lateen.console.graph import Graph
from lateen.console.metrics import Target
from lateen.console.series.scrape import STALE, samples
from lateen.console.series.store import Store

PAGE = Path(__file__).parents[2] / "console"
START = 1_700_000_000


def rule(**http):
    spec = {"hosts": ["cart"], "http": [{"route": [{"destination": {"host": "cart"}}], **http}]}
    return kubernetes(kinds.VIRTUAL_SERVICE, "cart", spec=spec)


def of(*objects):
    return badges(cluster(*SHOP[:3], *objects).inventory())["nodes"]


SPLIT = {"route": [{"destination": {"host": "cart", "subset": s}, "weight": 50} for s in ("v1", "v2")]}


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        ({}, ["virtual-service"]),
        ({"timeout": "3s"}, ["timeout", "virtual-service"]),
        ({"retries": {"attempts": 2}}, ["retries", "virtual-service"]),
        ({"retries": {"attempts": 0}}, ["virtual-service"]),
        ({"fault": {"abort": {"httpStatus": 503}}}, ["fault", "virtual-service"]),
        ({"mirror": {"host": "cart"}}, ["mirror", "virtual-service"]),
        (SPLIT, ["shift", "virtual-service"]),
    ],
)
def test_a_service_shows_what_its_rules_do(http, expected):
    assert of(rule(**http))["service/shop/cart"] == expected


def test_a_service_without_rules_shows_nothing():
    assert "service/shop/cart" not in of()


def test_a_workload_with_pods_without_a_sidecar_shows_it_in_every_kind_of_graph():
    found = of()
    for node in ("workload/shop/cart-v1", "app/shop/cart", "app/shop/cart/v1"):
        assert found[node] == ["no-sidecar"]
    whole = cluster(SHOP[0], shop_pod("cart-v1-5d4f-a", CART))
    assert badges(whole.inventory()) == {"nodes": {}}


def test_badges_find_the_nodes_of_applications_that_are_named_by_other_labels():
    labels = {"app.kubernetes.io/name": "store", "app.kubernetes.io/version": "1.4"}
    found = badges(cluster(SHOP[0], shop_pod("x-5d4f-a", labels, proxy=False, owner="x")).inventory())["nodes"]
    assert set(found) == {"workload/shop/x", "app/shop/store", "app/shop/store/1.4"}


def test_a_circuit_breaker_is_shown_at_the_service_or_at_its_version():
    policy = {"connectionPool": {"tcp": {"maxConnections": 1}}}
    whole = kubernetes(kinds.DESTINATION_RULE, "cart", spec={"host": "cart", "trafficPolicy": policy})
    assert of(whole)["service/shop/cart"] == ["circuit-breaker"]
    subset = {"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": {"outlierDetection": {"interval": "1s"}}}
    part = kubernetes(kinds.DESTINATION_RULE, "cart", spec={"host": "cart", "subsets": [subset]})
    found = of(part)
    assert "service/shop/cart" not in found
    assert found["app/shop/cart/v1"] == ["no-sidecar", "circuit-breaker"]


@pytest.mark.parametrize("host", ["cart", "cart.shop", "cart.shop.svc.cluster.local"])
def test_a_service_that_a_gateway_leads_to_shows_it(host):
    spec = {"hosts": ["*"], "gateways": ["web"], "http": [{"route": [{"destination": {"host": host}}]}]}
    assert of(kubernetes(kinds.VIRTUAL_SERVICE, "web", spec=spec))["service/shop/cart"] == ["gateway"]


def route(*rules, parent="Service", name="cart", kind=kinds.HTTP_ROUTE):
    group = "" if parent == "Service" else "gateway.networking.k8s.io"
    parents = [{"group": group, "kind": parent, "name": name}]
    return kubernetes(kind, "canary", spec={"parentRefs": parents, "rules": [*rules]})


CART_80 = {"name": "cart", "port": 80}
MIRROR = {"type": "RequestMirror", "requestMirror": {"backendRef": CART_80}}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"backendRefs": [CART_80]}, ["virtual-service"]),
        ({"backendRefs": [CART_80], "timeouts": {"request": "3s"}}, ["timeout", "virtual-service"]),
        ({"backendRefs": [CART_80], "retry": {"attempts": 2}}, ["retries", "virtual-service"]),
        ({"backendRefs": [CART_80], "filters": [MIRROR]}, ["mirror", "virtual-service"]),
        ({"backendRefs": [CART_80 | {"filters": [MIRROR]}]}, ["mirror", "virtual-service"]),
        ({"backendRefs": [CART_80, {"name": "cart-v2", "port": 80}]}, ["shift", "virtual-service"]),
        ({"backendRefs": [CART_80, {"name": "cart-v2", "port": 80, "weight": 0}]}, ["virtual-service"]),
    ],
)
def test_a_service_shows_what_its_routes_of_the_gateway_api_do(rule, expected):
    assert of(route(rule))["service/shop/cart"] == expected


@pytest.mark.parametrize(
    "kind", [kinds.HTTP_ROUTE, kinds.GRPC_ROUTE, kinds.TLS_ROUTE, kinds.TCP_ROUTE, kinds.UDP_ROUTE]
)
def test_a_service_that_a_route_of_a_gateway_leads_to_shows_it_and_lists_the_route(kind):
    found = route({"backendRefs": [CART_80]}, parent="Gateway", name="web", kind=kind)
    assert of(found)["service/shop/cart"] == ["gateway"]
    page = cluster(*SHOP[:3], found).inventory().service("shop", "cart")
    assert [(r["kind"], r["name"]) for r in page["rules"]] == [(str(kind.id), "canary")]
    assert page["config"] == 1


# --- when configuration changed ------------------------------------------------------------------------------------


def written(seconds_later, manager="kubectl", **more):
    at = "2023-11-14T22:13:20Z" if not seconds_later else f"2023-11-14T22:13:{20 + seconds_later:02}Z"
    return {"manager": manager, "time": at, **more}


def test_changes_of_objects_are_told_with_who_made_them():
    changes, first = Changes(START), rule() | {"metadata": {"name": "cart", "namespace": "shop"}}
    first["metadata"]["creationTimestamp"] = "2023-11-14T22:13:25Z"
    then = rule(timeout="3s") | {"metadata": first["metadata"] | {"managedFields": [written(9, "helm")]}}
    status = then | {"status": {"conditions": []}}
    steps = [(None, first), (first, then), (then, status), (status, None)]
    for second, (old, new) in enumerate(steps):
        changes.seen(kinds.VIRTUAL_SERVICE, old, new, START + 10 + second)
    found = [(c["at"] - START, c["what"], c["by"]) for c in changes.all(())]
    assert found == [(10, "created", ""), (11, "changed", "helm"), (13, "deleted", "")]


def test_changes_before_the_console_started_are_read_off_the_objects():
    changes = Changes(START + 3600)
    old = rule()
    old["metadata"] |= {
        "creationTimestamp": "2023-11-14T22:13:20Z",
        "managedFields": [written(0), written(30, "lateen-console"), written(35, "istiod", subresource="status")],
    }
    changes.seen(kinds.VIRTUAL_SERVICE, None, old, START + 3601)  # the first list
    found = [(c["at"] - START, c["what"], c["by"]) for c in changes.all([(kinds.VIRTUAL_SERVICE, old)])]
    assert found == [(0, "created", "lateen-console"), (30, "changed", "lateen-console")]


def test_the_cluster_tells_changes_of_the_mesh_alone():
    found = cluster(*SHOP)
    found.informers[kinds.POD]._change(place(SHOP[1]), None)
    found.informers[kinds.VIRTUAL_SERVICE]._change(place(SHOP[3]), None)
    assert [(c["kind"], c["what"]) for c in found.changes()] == [("VirtualService", "deleted")]


# --- the past ------------------------------------------------------------------------------------------------------


def counter(source, code="200"):
    return {
        "__name__": "istio_requests_total",
        "reporter": "source",
        "source_workload": source,
        "source_workload_namespace": "shop",
        "destination_service_name": "cart",
        "destination_service_namespace": "shop",
        "destination_workload": "cart-v1",
        "destination_workload_namespace": "shop",
        "response_code": code,
        "request_protocol": "http",
    }


def kept(*rows):
    """A store with (labels, {second: value}) of an hour ago."""
    store = Store(None)
    for second in sorted({s for _, values in rows for s in values}):
        found = [(store.registry.intern(labels), values[second]) for labels, values in rows if second in values]
        ids, values = zip(*sorted(found), strict=True)
        store.put((START + second) * 1000, np.array(ids, np.int64), np.array(values, np.float64))
    return store


def requests(store, at, window):
    drawn = Graph("workload").build(past.added(store, START + at, window, lambda: None), window)
    return {(e["source"].rpartition("/")[2], code): n for e in drawn["edges"] for code, n in e["codes"].items()}


def test_the_graph_of_the_past_has_what_was_counted_then():
    store = kept((counter("web"), {s: 2.0 * s for s in range(0, 300, 5)}))
    assert requests(store, 200, 100) == {("web", "200"): 200}
    assert requests(store, 290, 10) == {("web", "200"): 20}
    assert requests(store, 1000, 100) == {}


def test_a_counter_that_fell_in_the_past_was_reset():
    store = kept((counter("web"), {s: float(s if s < 100 else s - 100) for s in range(0, 200, 5)}))
    assert requests(store, 150, 100) == {("web", "200"): 95 - 50 + 50}


def test_a_series_that_begins_in_the_stretch_counts_from_zero_if_others_were_there_before():
    always = (counter("web"), dict.fromkeys(range(0, 200, 5), 1.0))
    new = (counter("app", "503"), dict.fromkeys(range(100, 200, 5), 7.0))
    assert requests(kept(always, new), 150, 60) == {("app", "503"): 7}
    assert requests(kept(new), 150, 60) == {}, "the collector may only have begun to look"


def test_a_series_that_was_idle_and_returns_counts_what_was_added_and_not_its_total():
    """Agents leave out what has been idle for an hour, and continue it when it changes."""
    always = (counter("web"), dict.fromkeys(range(0, 9000, 20), 1.0))
    weekly = (counter("batch"), {0: 5000.0, 20: 5000.0, 40: STALE, 8000: 5003.0, 8020: 5004.0})
    assert requests(kept(always, weekly), 8050, 60) == {("batch", "200"): 4}
    restarted = (counter("batch"), {0: 5000.0, 40: STALE, 8000: 3.0, 8020: 4.0})
    assert requests(kept(always, restarted), 8050, 60) == {("batch", "200"): 4}


# --- the page itself -----------------------------------------------------------------------------------------------


def test_the_pages_own_tests_pass():
    """Finding, hiding and the layout, in Node."""
    node = shutil.which("node", path=str(Path(sys.executable).parent)) or shutil.which("node")
    if not node or not (PAGE / "node_modules").is_dir():
        pytest.skip("needs Node and the page's packages (make console)")
    tests = sorted(str(p) for p in (PAGE / "tests").glob("*.test.ts"))
    assert tests
    done = subprocess.run([node, "--test", *tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


def test_a_moment_that_is_no_number_is_refused():
    from aiohttp import web

    from lateen.console.collector import _moment

    for wrong in ("yesterday", "nan", "-5", "1e300"):
        with pytest.raises(web.HTTPBadRequest):
            _moment(wrong)
    assert _moment("1700000000") == START


def test_bytes_of_http_count_by_the_texts_that_have_them_whatever_lies_between():
    """Every second only some metrics are read, the sizes of bodies every five."""
    labels = (
        'reporter="source",source_workload="web",source_app="web",source_version="v1",source_workload_namespace="shop",'
        'destination_service_name="cart",destination_service_namespace="shop",destination_workload="cart",'
        'destination_workload_namespace="shop",destination_app="cart",destination_version="v1",request_protocol="http"'
    )

    def text(count, received=None, sent=None):
        lines = [f'istio_requests_total{{{labels},response_code="200"}} {count}']
        lines += [f"istio_request_bytes_sum{{{labels}}} {received}"] if received is not None else []
        lines += [f"istio_response_bytes_sum{{{labels}}} {sent}"] if sent is not None else []
        return samples("\n".join(lines).encode() + b"\n")

    target, out = Target(fresh=False), {}
    target.read(text(1, 1000, 5000), out)
    target.read(text(2), out, whole=False)
    target.read(text(3), out, whole=False)
    target.read(text(4, 1100, 5900), out)
    (edge, _) = Graph().build(out, 10)["edges"]
    assert edge["bytesRate"] == pytest.approx(100)
    target.read(text(5), out)
    assert not any(key.startswith(b"istio_re") and b"bytes" in key for key in target._last), "the series have ended"
