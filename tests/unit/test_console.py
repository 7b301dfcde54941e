"""From proxies' texts to the graph."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from shop import SHOP, cluster, kubernetes, place, shop_pod

from lateen.analysis import model
from lateen.api import kinds
from lateen.console import cluster as cluster_module
from lateen.console import health
from lateen.console.answers import MAX_TEXT, limited
from lateen.console.boards import BOARDS
from lateen.console.cluster import what_if
from lateen.console.collector import Collector
from lateen.console.graph import Graph
from lateen.console.graph import health as traffic
from lateen.console.metrics import Target, quantile
from lateen.console.pages import sources
from lateen.console.promql import parsing
from lateen.console.series.scrape import samples
from lateen.console.server import guarded
from lateen.console.wizards import Wizards
from lateen.control import findings
from lateen.kit import yamldoc

ROOT = Path(__file__).parents[2]
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
        target.read(samples(text), out, text.endswith(b"\n"))
    return out


def edges(graph):
    return {(e["source"], e["target"]): e for e in graph["edges"]}


def test_only_increments_since_the_last_reading_are_added():
    assert sum(added(line(value=5), line(value=7)).values()) == 7
    assert sum(added(line(value=5), line(value=7), fresh=False).values()) == 2


def test_a_counter_that_fell_was_reset():
    assert sum(added(line(value=5), line(value=2)).values()) == 7


def test_a_call_goes_through_the_service_to_the_version():
    found = edges(Graph().build(added(line(value=60)), 60))
    assert set(found) == {("app/shop/web/v1", "service/shop/cart"), ("service/shop/cart", "app/shop/cart/v1")}
    assert all(e["rate"] == 1.0 for e in found.values())


def test_both_reports_of_a_call_count_once_and_the_servers_shows_mutual_tls():
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
    assert traffic(added(line(value=3) + line(code=500, value=1))) == {"shop": (4.0, 1.0)}


@pytest.mark.parametrize(("q", "expected"), [(0.5, 10.0), (0.75, 15.0), (1.0, 20.0)])
def test_quantiles_are_prometheus(q, expected):
    assert quantile(q, {10.0: 5.0, 20.0: 10.0, float("inf"): 10.0}) == expected


def test_a_quantile_of_nothing_is_nothing():
    assert quantile(0.5, {}) is None


def test_lines_that_are_not_metrics_are_skipped():
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


def test_a_request_with_a_grpc_status_was_one_of_grpc():
    from lateen.agent.metrics import istio_names

    raw = b'envoy_istio_requests_total{request_protocol="http",grpc_response_status="%s",response_flags="-"} 1'
    assert b'request_protocol="grpc"' in istio_names(raw % b"0")
    assert b'request_protocol="http"' in istio_names(raw % b"")


@pytest.mark.parametrize(
    ("labels", "policy"),
    [
        ('destination_workload="a",destination_principal="spiffe://x/ns/b/sa/c",response_flags="-"', "mutual_tls"),
        ('destination_workload="a",destination_principal="",response_flags="-"', "none"),
        ('destination_workload="a",destination_principal="",response_flags="UF,URX"', "unknown"),
        ('destination_workload="",destination_principal="",response_flags="NR"', "unknown"),
    ],
)
def test_the_clients_report_says_whether_there_was_mutual_tls(labels, policy):
    from lateen.agent.metrics import istio_names

    raw = f'envoy_istio_requests_total{{reporter="source",{labels},connection_security_policy="unknown"}} 1\n'
    assert f'connection_security_policy="{policy}"' in istio_names(raw.encode()).decode()


def test_the_namespace_of_a_caller_is_known_by_its_certificate():
    from lateen.agent.metrics import istio_names

    caller = 'source_workload_namespace="unknown",source_principal="spiffe://cluster.local/ns/shop/sa/web"'
    raw = f'envoy_istio_tcp_sent_bytes_total{{reporter="destination",{caller}}} 1\n'
    assert 'source_workload_namespace="shop"' in istio_names(raw.encode()).decode()


# --- what is read of proxies ---------------------------------------------------------------------------------------


def test_a_last_line_that_was_cut_off_does_not_count():
    whole = line(value=1234)
    assert sum(added(whole, whole[:-3], whole).values()) == 1234


def test_series_that_disappear_are_dropped():
    target = Target(fresh=True)
    target.read(samples(line(source="a") + line(source="b")), {})
    target.read(samples(line(source="b")), {})
    assert len(target._last) == len(target._known) == 1


class Pods:
    """A client whose list of pods never changes."""

    def __init__(self, *pods):
        self.pods = pods

    async def list(self, *_):
        return list(self.pods), "1"

    async def watch(self, *_):
        await asyncio.Event().wait()
        yield


async def collected(text, rounds=1):
    """A collector that has looked ``rounds`` times at a proxy which answers with ``text``."""

    async def metrics(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        for i in range(0, len(text), 60_000):
            await answer.write(text[i : i + 60_000])
        return answer

    app = web.Application()
    app.add_routes([web.get("/stats/prometheus", metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector = Collector(Pods(), port=runner.addresses[0][1])
    meta = {"namespace": "shop", "name": "web", "uid": "1"}
    status = {"phase": "Running", "podIP": "127.0.0.1", "startTime": "2100-01-01T00:00:00Z"}
    pod = {"metadata": meta, "status": status, "spec": {"containers": [{"name": "istio-proxy"}]}}
    collector.pods.objects = {("shop", "web"): pod}
    async with aiohttp.ClientSession() as collector._session:
        for _ in range(rounds):
            await collector.look()
    await runner.cleanup()
    return collector


def test_a_long_response_is_read_completely():
    text = b"".join(line(source=f"web-{i}") for i in range(4000))
    assert len(text) > 1_000_000
    found = asyncio.run(collected(text))
    assert found.failures == {}
    assert sum(found.added(60).values()) == 4000


def test_the_history_of_an_edge_is_there_before_anybody_asked():
    found = asyncio.run(collected(line(value=30)))
    history = found.history("versionedApp", "app/shop/web/v1>service/shop/cart:http", 60, lambda: None)
    assert sum(history["rates"]) * history["step"] == pytest.approx(30)
    assert sum(found.history("versionedApp", "nothing", 60, lambda: None)["rates"]) == 0


# --- what is running -----------------------------------------------------------------------------------------------


def deployment(name, wanted, have, namespace="shop", app=None):
    labels = {"app": app or name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"image": "pilot:1"}]}}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"replicas": wanted, "template": template},
        "status": {"readyReplicas": have},
    }


def test_what_is_unhealthy_is_named_with_the_reason():
    found = health.applications([], [deployment("cart", 2, 1), deployment("web", 1, 1), deployment("db", 1, 0)])
    assert [(a["name"], a["state"]) for a in found] == [("cart", "degraded"), ("db", "down"), ("web", "healthy")]
    assert found[0]["says"] == "cart: 1 of 2 pods ready"


def test_an_application_with_a_version_scaled_to_zero_is_healthy():
    found = health.applications([], [deployment("web-v1", 1, 1, app="web"), deployment("web-v2", 0, 0, app="web")])
    assert [(a["name"], a["state"]) for a in found] == [("web", "healthy")]


def test_a_pod_without_a_deployment_counts_too():
    state = {"waiting": {"reason": "ErrImagePull"}}
    status = {"containerStatuses": [{"name": "job", "ready": False, "state": state}]}
    found = health.applications([{"metadata": {"name": "job"}, "status": status, "spec": {}}], [])
    assert found == [{"name": "job", "state": "down", "says": "pod job is not ready (job: ErrImagePull)"}]


@pytest.mark.parametrize(
    ("found", "state"),
    [([], "down"), ([(0, 0)], "down"), ([(1, 0)], "down"), ([(2, 1)], "degraded"), ([(1, 1)], "healthy")],
)
def test_a_control_plane_that_is_missing_or_scaled_to_zero_is_unhealthy(found, state):
    objects = [deployment(f"istiod-{i}", w, h, "istio-system", "istiod") for i, (w, h) in enumerate(found)]
    plane = health.control_plane(objects, "istio-system")
    assert (plane["state"], bool(plane["says"])) == (state, state != "healthy")


def service(**meta):
    ports = [{"name": "http2", "port": 80}]
    return {
        "metadata": {"name": "gw", "namespace": "istio-system", **meta},
        "spec": {"type": "LoadBalancer", "selector": {"istio": "ingressgateway"}, "ports": ports},
    }


RULE = {
    "metadata": {"name": "books", "namespace": "default"},
    "spec": {"hosts": ["*"], "gateways": ["books"], "http": [{"match": [{"uri": {"exact": "/productpage"}}]}]},
}


def test_a_gateways_address_is_where_it_actually_listens():
    here = service(annotations={"lateen.dev/host-ports": "80=44147"})
    here["status"] = {"loadBalancer": {"ingress": [{"hostname": "localhost"}]}}
    found = health.gateways([here], [RULE])[0]
    assert found["addresses"] == {"80": "localhost:44147"}
    assert found["examples"] == {"default": "curl -s http://localhost:44147/productpage"}
    away = service() | {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}
    assert health.gateways([away], [])[0]["addresses"] == {"80": "192.0.2.7:80"}
    assert health.gateways([service()], [RULE])[0] | {"name": ""} == {
        "name": "", "namespace": "istio-system", "addresses": {}, "examples": {},
    }  # fmt: skip


def test_a_gateway_of_the_gateway_api_shows_requests_of_its_own_routes():
    here = service(annotations={"lateen.dev/host-ports": "80=44147"}, namespace="default")
    here["spec"]["selector"] = {"gateway.networking.k8s.io/gateway-name": "web"}
    here["status"] = {"loadBalancer": {"ingress": [{"hostname": "localhost"}]}}

    def route(name, gateway, **more):
        matches = [{"path": {"type": "Exact", "value": "/cart"}}]
        spec = {"parentRefs": [{"name": gateway}], "rules": [{"matches": matches}], **more}
        return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}

    routes = [route("other", "others"), route("cart", "web", hostnames=["shop.test"])]
    (found,) = health.gateways([here], [RULE], routes)
    assert found["examples"] == {"default": "curl -s -H 'Host: shop.test' http://localhost:44147/cart"}


def tool(name):
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(f"tool_{name}", Path(__file__).parents[2] / "tools" / f"{name}.py")
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_types_of_the_page_are_those_of_the_server():
    shapes = tool("shapes")
    assert shapes.TARGET.read_text() == shapes.text(), "run: python tools/shapes.py"


# --- lists and details --------------------------------------------------------------------------------------


def test_a_workload_is_the_owner_of_its_pods():
    (row,) = cluster(*SHOP).inventory().workloads()
    assert (row["kind"], row["name"], row["app"], row["version"]) == ("Deployment", "cart-v1", "cart", "v1")
    assert (row["pods"], row["ready"], row["meshed"], row["state"]) == (2, 1, 1, "degraded")


def test_a_workloads_page_has_what_holds_for_it_and_nothing_else():
    page = cluster(*SHOP).inventory().workload("shop", "cart-v1")
    assert (page["mtls"], page["decides"]) == ("STRICT", "PeerAuthentication shop/strict")
    assert [c["name"] for c in page["config"]] == ["strict"]
    assert [s["name"] for s in page["services"]] == ["cart"]
    assert cluster(*SHOP).inventory().workload("shop", "nope") is None


def test_an_applications_page_has_what_belongs_to_its_workloads():
    page = cluster(*SHOP).inventory().application("shop", "cart")
    assert [w["name"] for w in page["workloads"]] == ["cart-v1"]
    assert [s["name"] for s in page["services"]] == ["cart"]
    assert [c["name"] for c in page["config"]] == ["strict"]
    assert page["state"] == "degraded"
    assert cluster(*SHOP).inventory().application("shop", "nope") is None


def test_a_services_page_has_its_rules_with_their_findings():
    page = cluster(*SHOP).inventory().service("shop", "cart")
    assert [(r["kind"], r["name"], r["worst"]) for r in page["rules"]] == [("VirtualService", "cart", "Error")]
    assert [w["name"] for w in page["behind"]] == ["cart-v1"]


def test_a_finding_has_its_line_in_the_objects_yaml():
    page = cluster(*SHOP).inventory().object("VirtualService", "shop", "cart")
    (check,) = page["checks"]
    assert check["code"] == "IST0101"
    assert "gone" in page["yaml"].splitlines()[check["line"] - 1]


def test_a_change_is_seen_in_the_next_answer():
    found = cluster(*SHOP)
    assert len(found.inventory().config()) == 3
    found.informers[kinds.VIRTUAL_SERVICE]._change(place(SHOP[3]), None)
    assert [c["kind"] for c in found.inventory().config()] == ["AuthorizationPolicy", "PeerAuthentication"]
    assert found.inventory().object("VirtualService", "shop", "cart") is None


def test_an_edited_text_is_checked_as_if_it_were_applied():
    text = json.dumps(SHOP[3]).replace('"cart", "subset": "gone"', '"nowhere"')
    found = what_if(cluster(*SHOP).sources(), sources(text), "istio-system")
    assert [m.kind.code for m in found] == ["IST0101"]
    assert "nowhere" in found[0].text


def test_the_console_may_read_every_kind_of_the_mesh_and_write_none():
    roles = {}
    for obj in yamldoc.objects((ROOT / "samples" / "addons" / "kiali.yaml").read_text()):
        if obj["kind"] == "ClusterRole":
            roles[obj["metadata"]["name"]] = obj["rules"]
    for name in ("kiali-viewer", "kiali-editor"):
        assert set(kinds.groups()) <= {g for rule in roles[name] for g in rule["apiGroups"]}, name
    assert {verb for rule in roles["kiali-viewer"] for verb in rule["verbs"]} == {"get", "list", "watch"}


@pytest.mark.parametrize("unread", [cluster_module.UNREAD, findings.UNREAD], ids=["console", "istiod"])
def test_what_the_mesh_model_reads_is_read_by_everybody_who_analyzes(unread):
    """An analyzer that looks at an unread kind is left out, and most ask the mesh's model."""
    assert not unread & {str(k.id) for k in (*model.READ, *model.POLICIES)}


# --- wizards ------------------------------------------------------------------------------------------------


def made(wizard, form, *objects, service="cart"):
    found = Wizards(cluster(*(objects or SHOP)).inventory()).make(wizard, "shop", service, form)
    return {o["kind"]: o for o in found}


V2 = shop_pod("cart-v2-5d4f-a", {"app": "cart", "version": "v2"}, owner="cart-v2")
ROUTED = kubernetes(
    kinds.VIRTUAL_SERVICE,
    "carts",
    metadata={"resourceVersion": "7"},
    spec={
        "hosts": ["cart.shop.svc.cluster.local"],
        "http": [
            {"match": [{"uri": {"prefix": "/beta"}}], "route": [{"destination": {"host": "cart", "subset": "v2"}}]},
            {"timeout": "9s", "route": [{"destination": {"host": "cart"}}]},
        ],
    },
)


def test_shares_make_subsets_and_routes():
    found = made("weights", {"weights": {"v1": 90, "v2": 10}}, *SHOP[:3], V2)
    assert [s["labels"] for s in found["DestinationRule"]["spec"]["subsets"]] == [{"version": "v1"}, {"version": "v2"}]
    (http,) = found["VirtualService"]["spec"]["http"]
    assert [(r["destination"]["subset"], r["weight"]) for r in http["route"]] == [("v1", 90), ("v2", 10)]


def test_a_wizard_changes_the_rule_that_is_there_and_keeps_the_rest_of_it():
    rule = made("weights", {"weights": {"v1": 50, "v2": 50}}, *SHOP[:3], V2, ROUTED)["VirtualService"]
    assert (rule["metadata"]["name"], rule["metadata"]["resourceVersion"]) == ("carts", "7")
    beta, rest = rule["spec"]["http"]
    assert beta == ROUTED["spec"]["http"][0]
    assert (rest["timeout"], len(rest["route"])) == ("9s", 2)
    assert len(ROUTED["spec"]["http"][1]["route"]) == 1


def test_limits_and_faults_are_set_and_taken_away():
    rule = made("limits", {"timeout": "3s", "attempts": 2}, *SHOP[:3], ROUTED)["VirtualService"]
    tried = {"retryOn": "gateway-error,connect-failure,refused-stream", "attempts": 2}
    assert [(h["timeout"], h["retries"]) for h in rule["spec"]["http"]] == [("3s", tried)] * 2
    bare = made("limits", {}, *SHOP[:3], ROUTED)["VirtualService"]
    assert not any("timeout" in h or "retries" in h for h in bare["spec"]["http"])
    fault = made("fault", {"aborted": 50, "status": 500}, *SHOP[:3])["VirtualService"]["spec"]["http"][0]["fault"]
    assert fault == {"abort": {"httpStatus": 500, "percentage": {"value": 50}}}


def test_only_the_callers_that_are_named_are_let_in():
    policy = made("callers", {"callers": ["shop/cart-v1"]})["AuthorizationPolicy"]
    assert policy["spec"]["rules"] == [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/default"]}}]}]
    assert "rules" not in made("callers", {"callers": []})["AuthorizationPolicy"]["spec"]


@pytest.mark.parametrize(
    ("wizard", "form", "says"),
    [
        ("weights", {"weights": {"v1": 90}}, "add up to 90"),
        ("weights", {"weights": {"v9": 100}}, "version v9"),
        ("limits", {"timeout": "5 parsecs"}, "timeout"),
        ("fault", {"delayed": 10}, "how long"),
        ("expose", {"host": "shop.example", "port": 99}, "no port 99"),
        ("callers", {"callers": ["shop/nobody"]}, "no workload shop/nobody"),
        ("mutual-tls", {"mode": "DISABLE"}, "DISABLE"),
    ],
)
def test_a_form_that_cannot_be_followed_is_answered_by_a_sentence(wizard, form, says):
    with pytest.raises(ValueError, match=says):
        made(wizard, form)


@pytest.mark.parametrize(
    ("wizard", "form"),
    [
        ("weights", {"weights": {"v1": 100}}),
        ("limits", {"timeout": "3s", "attempts": 2, "perTryTimeout": "1s"}),
        ("fault", {"delay": "2s", "delayed": 10, "aborted": 0.5}),
        ("breaker", {"connections": 10, "pending": 5, "errors": 3}),
        ("mutual-tls", {"mode": "STRICT"}),
        ("callers", {"callers": ["shop/cart-v1"]}),
        ("expose", {"host": "shop.example"}),
    ],
)
def test_what_a_wizard_makes_is_valid(wizard, form):
    objects = (*SHOP[:3], kubernetes(kinds.SERVICE, "cart", spec=SHOP[0]["spec"]))
    found = made(wizard, form, *objects)
    text = "---\n".join(map(yamldoc.dump, found.values()))
    gateway = kubernetes(kinds.POD, "in", metadata={"labels": {"istio": "ingressgateway"}})
    ports = [{"name": "http2", "port": 80, "targetPort": 80}]
    entry = kubernetes(kinds.SERVICE, "in", spec={"selector": {"istio": "ingressgateway"}, "ports": ports})
    assert what_if(cluster(*objects, gateway, entry).sources(), sources(text), "istio-system") == []


# --- dashboards ---------------------------------------------------------------------------------------------


def questions():
    return [(b.name, p.title, q.expr) for b in BOARDS for p in b.panels for q in p.queries]


@pytest.mark.parametrize(("board", "panel", "expr"), questions())
def test_every_panel_asks_in_promql(board, panel, expr):
    filled = expr.replace("$window", "1m").replace("$service", "s").replace("$namespace", "n").replace("$workload", "w")
    assert "$" not in filled
    assert parsing.parse(filled)


def test_grafanas_dashboards_are_those_of_the_console():
    sys.path.insert(0, str(ROOT / "tools"))
    import boards

    for name, text in boards.files().items():
        assert (ROOT / "samples" / "grafana" / name).read_text() == text, "run tools/boards.py"


# --- what is sent to the server -----------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "status"), [(300_000, 200), (MAX_TEXT + 1, 413)])
def test_a_long_text_is_read_to_its_end_or_refused(size, status):
    async def parts():
        for _ in range(0, size, 50_000):
            yield b"x" * min(50_000, size)
            await asyncio.sleep(0.01)

    async def length(request):
        return web.Response(text=str(len(await limited(request))))

    async def play():
        app = web.Application()
        app.add_routes([web.post("/", length)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        async with aiohttp.ClientSession() as session, session.post(url, data=parts()) as answer:
            found = answer.status, await answer.text()
        await runner.cleanup()
        return found

    got, text = asyncio.run(play())
    assert got == status
    assert text == str(size) if status == 200 else "bytes are read" in text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:20001", 200),
        ("kiali.istio-system:20001", 200),
        ("kiali.istio-system.svc.cluster.local", 200),
        ("kiali.attacker.example", 403),
        ("kiali.istio-system.svc.attacker.example", 403),
    ],
)
def test_the_console_answers_under_its_own_names_alone(host, status):
    async def hello(_):
        return web.Response(text="hello")

    async def play():
        app = web.Application(middlewares=[guarded])
        app.add_routes([web.get("/", hello)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as session, session.get(url, headers={"Host": host}) as answer:
            found = answer.status
        await runner.cleanup()
        return found

    assert asyncio.run(play()) == status


@pytest.mark.parametrize(("flags", "share"), [("NR", 1.0), ("UF,NR", 1.0), ("NRX", 0.0), ("RL", 0.0), ("-", 0.0)])
def test_what_no_rule_routes_is_an_error_though_its_status_is_404(flags, share):
    text = line(code=404, value=4).replace(b'response_flags="-"', f'response_flags="{flags}"'.encode())
    assert flags.encode() in text
    edge = edges(Graph().build(added(text), 10))["app/shop/web/v1", "service/shop/cart"]
    assert edge["errorRate"] == share
