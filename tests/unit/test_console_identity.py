"""Who is signed in to the console, what they may do there, and what they see of proxies."""

import asyncio

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
from lateen.kube.client import HttpClient

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


async def api(request):
    """The reviews of an API whose tokens are the names of their users."""
    user = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if user not in MAY:
        return web.json_response({"kind": "Status", "message": "Unauthorized", "code": 401}, status=401)
    if request.path.endswith("selfsubjectreviews"):
        return web.json_response({"status": {"userInfo": {"username": user}}})
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
