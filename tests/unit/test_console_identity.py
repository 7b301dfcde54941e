"""Who is signed in to the console, what they may do there, and what they see of proxies."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from lateen.console import envoy
from lateen.console.cluster import Cluster
from lateen.console.editing import Editing
from lateen.console.envoy import Envoy, Istiod
from lateen.console.identity import Identity
from lateen.console.pages import Pages
from lateen.dump import DumpError
from lateen.kit import yamldoc
from lateen.kube.client import HttpClient

BUSY = "busy"
"""The token for which the API has no answer."""
MAY = {"editor": {"update", "get", "list"}, "viewer": {"get", "list"}, "nobody": set()}
CLUSTER = {
    "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "name": "outbound|80|v1|cart.shop.svc.cluster.local",
}
DUMP = {
    "configs": [
        {
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "dynamic_active_clusters": [{"cluster": CLUSTER}],
        }
    ]
}


RULE = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
"""


STORED = {
    **next(yamldoc.objects(RULE)),
    "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7", "generation": 3},
}
"""What is there; the version of its specification is the third one, and its status has been written since."""


async def api(request):
    """The reviews of an API whose tokens are the names of their users."""
    user = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if user == BUSY:
        return web.json_response({"kind": "Status", "message": "try again later", "code": 503}, status=503)
    if user not in MAY:
        return web.json_response({"kind": "Status", "message": "Unauthorized", "code": 401}, status=401)
    if request.path.endswith("selfsubjectreviews"):
        return web.json_response({"status": {"userInfo": {"username": user}}})
    if "virtualservices" in request.path:
        if request.method in ("GET", "DELETE"):
            return web.json_response(STORED)
        given = await request.json()
        if request.query["fieldValidation"] == "Strict" and "bogus" in given:
            return web.json_response({"kind": "Status", "message": 'unknown field "bogus"', "code": 400}, status=400)
        if given["metadata"].get("resourceVersion", "7") != "7":
            return web.json_response({"kind": "Status", "message": "it was modified", "code": 409}, status=409)
        now = {**given["metadata"], "resourceVersion": "8", "generation": 4, "uid": "u"}
        return web.json_response({**given, "metadata": now})
    if request.method == "GET":
        return web.json_response({"kind": "Status", "message": "not found", "code": 404}, status=404)
    if request.method == "DELETE":
        there = request.path == "/apis/gateway.networking.k8s.io/v1/gatewayclasses/lateen"
        return web.json_response({"kind": "Status", "code": 200 if there else 404}, status=200 if there else 404)
    verb = (await request.json())["spec"]["resourceAttributes"]["verb"]
    return web.json_response({"status": {"allowed": verb in MAY[user]}})


async def istiod(request):
    if request.headers.get("Authorization") != "Bearer console":
        return web.Response(status=401)
    proxy = request.query["proxyID"]
    assert "exactly" in request.query, "a part of a name may be that of another namespace's proxy"
    return web.json_response(DUMP) if proxy == "cart-1.shop" else web.Response(status=404, text="not connected")


async def started(app):
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


def asked(path, token, tmp_path, monkeypatch, method="GET", data=None):
    """(status, text) of the console's answer."""
    (tmp_path / "token").write_text("console\n")

    async def run():
        behind = web.Application()
        behind.add_routes([web.get("/debug/config_dump", istiod), web.route("*", "/{rest:.*}", api)])
        first, base = await started(behind)
        monkeypatch.setenv("ISTIOD_URL", base)
        monkeypatch.setenv("ISTIOD_TOKEN", str(tmp_path / "token"))
        async with HttpClient(base, None) as client:
            identity = Identity(client)
            app = web.Application()
            pages = Pages(Cluster(client, "istio-system"), identity)
            for part in (identity, Envoy(identity, Istiod()), Editing(identity), pages):
                app.add_routes(part.routes("/api"))
            second, url = await started(app)
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.request(method, f"{url}/api{path}", data=data) as found,
            ):
                out = found.status, await found.text()
            await second.cleanup()
        await first.cleanup()
        return out

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("token", "status", "says"),
    [
        ("editor", 200, '{"name":"editor","edits":true}'),
        ("viewer", 200, '{"name":"viewer","edits":false}'),
        ("stranger", 401, "the token is not valid"),
        (BUSY, 502, "try again later"),
        ("", 401, "sign in with a token"),
    ],
)
def test_a_token_says_who_one_is_and_whether_one_may_edit(token, status, says, tmp_path, monkeypatch):
    found = asked("/whoami", token, tmp_path, monkeypatch)
    assert found[0] == status
    assert says in found[1]


@pytest.mark.parametrize(
    ("token", "pod", "status", "says"),
    [
        ("viewer", "cart-1", 200, "cart.shop.svc.cluster.local"),
        ("viewer", "gone", 404, "not connected to istiod"),
        ("nobody", "cart-1", 403, "may not read the pods of namespace shop"),
        ("", "cart-1", 401, "sign in with a token"),
    ],
)
def test_a_proxys_configuration_is_shown_to_those_who_may_read_its_pod(token, pod, status, says, tmp_path, monkeypatch):
    found = asked(f"/envoy/shop/{pod}", token, tmp_path, monkeypatch)
    assert found[0] == status
    assert says in found[1]


def test_what_was_written_is_answered_as_it_is_stored(tmp_path, monkeypatch):
    """So that the next change is based on it."""
    status, text = asked("/apply?dryRun=false", "editor", tmp_path, monkeypatch, "POST", RULE)
    found = json.loads(text)
    assert (status, found["written"], found["failed"]) == (200, ["VirtualService shop/web"], {})
    (stored,) = yamldoc.objects(found["yaml"])
    assert stored["metadata"] == {"name": "web", "namespace": "shop", "resourceVersion": "8", "generation": 4}
    dry = json.loads(asked("/apply?dryRun=true", "editor", tmp_path, monkeypatch, "POST", RULE)[1])
    assert "resourceVersion" not in dry["yaml"]


@pytest.mark.parametrize(("generation", "says"), [(3, ""), (2, "load the object again")])
def test_a_status_that_was_written_meanwhile_is_no_conflict(generation, says, tmp_path, monkeypatch):
    based = RULE.replace("namespace: shop", f"namespace: shop, resourceVersion: '5', generation: {generation}")
    failed = json.loads(asked("/apply?dryRun=false", "editor", tmp_path, monkeypatch, "POST", based)[1])["failed"]
    assert says in failed.get("VirtualService shop/web", "")
    assert bool(failed) is bool(says)


def test_what_was_written_can_be_taken_back(tmp_path, monkeypatch):
    based = RULE.replace("namespace: shop", "namespace: shop, resourceVersion: '7'").replace("host: web", "host: other")
    (step,) = json.loads(asked("/apply?dryRun=false", "editor", tmp_path, monkeypatch, "POST", based)[1])["undo"]
    (before,) = yamldoc.objects(step["yaml"])
    assert before["spec"] == STORED["spec"]
    assert (before["metadata"]["resourceVersion"], before["metadata"]["generation"]) == ("8", 4)
    (step,) = json.loads(asked("/apply?dryRun=false", "editor", tmp_path, monkeypatch, "POST", RULE)[1])["undo"]
    assert step == {"kind": "VirtualService", "namespace": "shop", "name": "web", "yaml": "", "generation": 4}


def test_an_unknown_field_is_refused_by_the_dry_run(tmp_path, monkeypatch):
    found = json.loads(asked("/apply?dryRun=true", "editor", tmp_path, monkeypatch, "POST", RULE + "bogus: 1\n")[1])
    assert found["failed"] == {"VirtualService shop/web": 'unknown field "bogus"'}


def test_what_is_gone_already_is_taken_back(tmp_path, monkeypatch):
    status, _ = asked("/config/Gateway/shop/web?generation=1", "editor", tmp_path, monkeypatch, "DELETE")
    assert status == 200
    status, _ = asked("/config/Gateway/shop/web", "editor", tmp_path, monkeypatch, "DELETE")
    assert status == 404


@pytest.mark.parametrize(("generation", "status"), [("3", 200), ("2", 409)])
def test_what_somebody_has_changed_since_is_not_deleted(generation, status, tmp_path, monkeypatch):
    where = f"/config/VirtualService/shop/web?generation={generation}"
    assert asked(where, "editor", tmp_path, monkeypatch, "DELETE")[0] == status


@pytest.mark.parametrize("text", ["", "# nothing", "---\n---\n", "metadata: {name: web}\n", "kind: Gateway\n"])
@pytest.mark.parametrize("path", ["/apply?dryRun=true", "/effect", "/check"])
def test_a_text_without_objects_is_refused(path, text, tmp_path, monkeypatch):
    status, says = asked(path, "editor", tmp_path, monkeypatch, "POST", text)
    assert status == {"/apply?dryRun=true": 400, "/effect": 422, "/check": 200}[path]
    assert "apiVersion, kind and metadata" in says


def test_a_kind_that_is_spelled_wrong_is_named(tmp_path, monkeypatch):
    text = RULE.replace("VirtualService", "VirtualServce")
    (says,) = json.loads(asked("/apply", "editor", tmp_path, monkeypatch, "POST", text)[1])["failed"].values()
    assert "VirtualServce of networking.istio.io/v1 is not a kind of the mesh" in says


def test_a_session_that_has_ended_is_told_from_an_object_that_is_refused(tmp_path, monkeypatch):
    assert asked("/apply?dryRun=true", "stranger", tmp_path, monkeypatch, "POST", RULE)[0] == 401
    status, text = asked("/apply?dryRun=true", BUSY, tmp_path, monkeypatch, "POST", RULE)
    assert (status, json.loads(text)["failed"]) == (200, {"VirtualService shop/web": "try again later"})


@pytest.mark.parametrize(
    ("where", "status"),
    [
        ("GatewayClass//lateen", 200),
        ("GatewayClass//other", 404),
        ("GatewayClass/shop/lateen", 404),
        ("Gateway//x", 404),
    ],
)
def test_what_the_whole_cluster_has_is_deleted_without_a_namespace(where, status, tmp_path, monkeypatch):
    assert asked(f"/config/{where}", "editor", tmp_path, monkeypatch, "DELETE")[0] == status


def test_nothing_is_written_without_a_token(tmp_path, monkeypatch):
    assert asked("/apply", "", tmp_path, monkeypatch, "POST", "kind: Gateway")[0] in (400, 401)
    assert asked("/config/Gateway/shop/web", "", tmp_path, monkeypatch, "DELETE")[0] == 401


@pytest.mark.parametrize("path", ["/check", "/effect", "/effect?delete=true"])
@pytest.mark.parametrize(
    ("token", "status", "says"),
    [
        ("viewer", 200, ""),
        ("nobody", 403, "may not read the configuration"),
        ("stranger", 401, "the token is not valid"),
        ("", 401, "sign in with a token"),
    ],
)
def test_what_a_text_would_do_is_worked_out_for_those_who_may_read_the_configuration(
    path, token, status, says, tmp_path, monkeypatch
):
    found = asked(path, token, tmp_path, monkeypatch, "POST", RULE)
    assert found[0] == status
    assert says in found[1]


def test_the_tables_are_those_of_proxy_config():
    page = envoy.page(DUMP)
    clusters = page["tables"][0]
    assert clusters["columns"][0] == "SERVICE FQDN"
    assert clusters["rows"] == [["cart.shop.svc.cluster.local", "80", "v1", "outbound", "STATIC", ""]]
    with pytest.raises(DumpError):
        envoy.page({})
