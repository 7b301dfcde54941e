"""The console's lists, details and health of what is running, and what it asks the server."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from consoles import added, edges, line
from shop import SHOP, cluster, kubernetes, place

from lateen.analysis import model
from lateen.api import kinds
from lateen.console import cluster as cluster_module
from lateen.console import health
from lateen.console.answers import MAX_TEXT, limited
from lateen.console.boards import BOARDS
from lateen.console.cluster import what_if
from lateen.console.graph import Graph
from lateen.console.inventory import pod
from lateen.console.pages import sources
from lateen.console.promql import parsing
from lateen.console.server import guarded
from lateen.control import findings
from lateen.kit import yamldoc

ROOT = Path(__file__).parents[2]


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


def test_applications_are_called_as_in_metrics():
    """By canonical name, else by workload, so that their requests are not another application's."""
    cart = deployment("cart-v1", 1, 1)
    labels = cart["spec"]["template"]["metadata"]["labels"]
    labels |= {"app.kubernetes.io/name": "carts", "service.istio.io/canonical-name": "cart-service"}
    owner = {"kind": "StatefulSet", "name": "db", "apiVersion": "apps/v1", "controller": True}
    status = {"containerStatuses": [{"name": "db", "ready": True}]}
    pods = [{"metadata": {"name": f"db-{i}", "ownerReferences": [owner]}, "status": status} for i in range(2)]
    found = health.applications(pods, [cart])
    assert [(a["name"], a["state"]) for a in found] == [("cart-service", "healthy"), ("db", "healthy")]


@pytest.mark.parametrize(
    ("policy", "code", "finished", "state"),
    [
        ("Never", 0, True, "idle"),
        ("OnFailure", 0, True, "idle"),
        ("Never", 1, False, "down"),
        ("Always", 0, False, "down"),
    ],
)
def test_an_application_that_has_done_its_work_is_no_error_while_its_proxy_still_runs(policy, code, finished, state):
    ended = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
    statuses = [{"name": "app", "ready": False, "state": ended}, {"name": "istio-proxy", "ready": True, "state": {}}]
    job = {
        "metadata": {"name": "job", "namespace": "shop"},
        "spec": {"restartPolicy": policy, "containers": []},
        "status": {"phase": "Running", "containerStatuses": statuses},
    }
    assert pod(job)["finished"] is finished
    (found,) = health.applications([job], [])
    assert found["state"] == state
    assert pod(job | {"status": {"phase": "Succeeded"}})["finished"] is True
    assert pod(job | {"status": {"phase": "Failed"}})["finished"] is False


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
    page = cluster(*SHOP).inventory().configuration.page("VirtualService", "shop", "cart")
    (check,) = page["checks"]
    assert check["code"] == "IST0101"
    assert "gone" in page["yaml"].splitlines()[check["line"] - 1]


def test_a_change_is_seen_in_the_next_answer():
    found = cluster(*SHOP)
    assert len(found.inventory().configuration.rows()) == 3
    found.informers[kinds.VIRTUAL_SERVICE]._change(place(SHOP[3]), None)
    assert [c["kind"] for c in found.inventory().configuration.rows()] == ["AuthorizationPolicy", "PeerAuthentication"]
    assert found.inventory().configuration.page("VirtualService", "shop", "cart") is None


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


def test_an_object_of_the_whole_cluster_has_a_page():
    spec = {"controllerName": "istio.io/gateway-controller"}
    found = kubernetes(kinds.GATEWAY_CLASS, "istio", spec=spec)
    del found["metadata"]["namespace"]
    page = cluster(found).inventory().configuration.page("GatewayClass", "", "istio")
    assert page["yaml"].startswith("apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n")


def test_a_host_of_two_service_entries_is_one_service():
    def entry(name, number, *hosts):
        ports = [{"number": number, "name": f"p{number}", "protocol": "HTTP"}]
        return kubernetes(kinds.SERVICE_ENTRY, name, spec={"hosts": list(hosts), "ports": ports})

    found = cluster(entry("a", 80, "x.example", "x.example"), entry("b", 81, "x.example", "y.example")).inventory()
    rows = {r["name"]: r["ports"] for r in found.services()}
    assert rows == {"x.example": ["80/HTTP", "81/HTTP"], "y.example": ["81/HTTP"]}
    assert len(found.services()) == 2
    assert {r["name"] for r in found.service("shop", "x.example")["rules"]} == {"a", "b"}
