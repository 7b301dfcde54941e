"""What the API server says about itself (health, metrics, documents), and what nobody can take away from it."""

import asyncio
import contextlib
import gc
import socket
import ssl
import weakref
from datetime import timedelta

import pytest
from apiserver import Cluster

from lateen.cluster.apiserver.documents import VERSION
from lateen.cluster.apiserver.figures import Figures
from lateen.cluster.apiserver.front_door import listen, tls
from lateen.cluster.store.objects import Store
from lateen.cluster.store.sqlite import Sqlite, StoreBroken, StoreFull
from lateen.kit import certs, times

NAMESPACES = "/api/v1/namespaces"
CONFIG_MAPS = f"{NAMESPACES}/default/configmaps"
CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


@pytest.fixture
def cluster():
    return Cluster()


@pytest.mark.parametrize("path", [f"{NAMESPACES}/default", f"{NAMESPACES}/kube-system?dryRun=All"])
def test_the_namespaces_of_every_cluster_cannot_be_deleted(cluster, path):
    code, status = cluster.ask("DELETE", path)
    assert (code, status["reason"]) == (403, "Forbidden")
    assert status["message"].endswith("is forbidden: this namespace may not be deleted")
    assert cluster.must("GET", f"{NAMESPACES}/default")["status"]["phase"] == "Active"


def test_the_priorities_of_the_system_stay_also_where_all_are_deleted(cluster):
    cluster.must("POST", CLASSES, {"metadata": {"name": "system-node-critical"}, "value": 2000001000})
    code, status = cluster.ask("DELETE", f"{CLASSES}/system-node-critical")
    assert (code, status["message"].partition("forbidden: ")[2]) == (
        403,
        "this is a system priority class and cannot be deleted",
    )
    assert cluster.ask("DELETE", CLASSES)[0] == 403
    assert cluster.must("GET", CLASSES)["items"]


def test_health_is_told_check_by_check(cluster):
    assert cluster.ask("GET", "/livez") == (200, "ok")
    assert cluster.ask("GET", "/livez/etcd") == (200, "ok")
    assert cluster.ask("GET", "/healthz/poststarthook/rbac/bootstrap-roles") == (200, "ok")
    assert cluster.ask("GET", "/livez/nothing")[0] == 404
    _, told = cluster.ask("GET", "/readyz?verbose&exclude=etcd&exclude=nothing")
    lines = told.splitlines()
    assert lines[:3] == ["[+]ping ok", "[+]etcd excluded: ok", "[+]etcd-readiness ok"]
    assert "[+]informer-sync ok" in lines
    assert lines[-2:] == [
        'warn: some health checks cannot be excluded: no matches for "nothing"',
        "readyz check passed",
    ]


def failing(error):
    """A cluster whose database fails with ``error`` while there is something in the list."""
    broken = []

    def persist(_):
        if broken:
            raise error

    return Cluster(persist), broken


@pytest.mark.parametrize(
    ("error", "lives"), [(StoreFull("the disk is full"), True), (StoreBroken("no database"), False)]
)
def test_a_database_that_cannot_be_written_is_ill_until_it_can(error, lives):
    cluster, broken = failing(error)
    broken.append(True)
    assert cluster.ask("POST", CONFIG_MAPS, {"metadata": {"name": "a"}})[0] == 507
    found, ill = cluster.ask("GET", "/readyz")
    assert (found, cluster.ask("GET", "/readyz/etcd")[0]) == (500, 500)
    assert "[-]etcd failed: reason withheld" in ill.splitlines()
    assert ill.endswith("readyz check failed\n")
    assert cluster.ask("GET", "/livez")[0] == (200 if lives else 500)
    broken.clear()  # nobody writes anything
    assert cluster.ask("GET", "/livez") == cluster.ask("GET", "/readyz") == (200, "ok")
    cluster.must("POST", CONFIG_MAPS, {"metadata": {"name": "a"}})


def test_a_database_of_its_own_kind_recovers_without_a_trace(tmp_path):
    database = Sqlite(tmp_path / "db")
    cluster = Cluster(database.write)
    before, rv = list(database.load()[1]), cluster.store.rv
    assert cluster.store.recovers()
    assert (list(database.load()[1]), database.load()[0]) == (before, rv)
    database.close()


def test_a_server_that_ends_is_no_longer_ready_and_lives(cluster):
    async def run():
        assert await cluster.send("GET", "/readyz/shutdown") == (200, "ok")
        cluster._server.ends()
        return [(await cluster.send("GET", path))[0] for path in ("/readyz", "/readyz/shutdown", "/livez")]

    assert asyncio.run(run()) == [500, 500, 200]


def samples(text, name):
    lines = [line for line in text.splitlines() if line.startswith(name)]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_requests_are_counted_under_the_names_that_dashboards_of_kubernetes_ask_for(cluster):
    async def run():
        for method, path, body in (
            ("POST", CONFIG_MAPS, {"metadata": {"name": "a"}}),
            ("POST", CONFIG_MAPS, {"metadata": {"name": "a"}}),
            ("GET", f"{CONFIG_MAPS}/a", None),
            ("GET", CONFIG_MAPS, None),
            ("DELETE", f"{CONFIG_MAPS}/a?dryRun=All", None),
        ):
            await cluster.send(method, path, body)
        return (await cluster.send("GET", "/metrics"))[1]

    text = asyncio.run(run())
    counted = {
        tuple(part.partition("=")[2].strip('"') for part in key.partition("{")[2].rstrip("}").split(",")): value
        for key, value in samples(text, "apiserver_request_total").items()
        if 'resource="configmaps"' in key
    }
    what = ("", "v1", "configmaps", "")
    assert counted == {
        (*what, "resource" if verb in ("GET", "DELETE") else "namespace", verb, "apiserver", dry, code): 1.0
        for verb, dry, code in (
            ("POST", "", "201"),
            ("POST", "", "409"),
            ("GET", "", "200"),
            ("LIST", "", "200"),
            ("DELETE", "All", "200"),
        )
    }
    seconds = samples(text, "apiserver_request_duration_seconds_count")
    assert sum(v for k, v in seconds.items() if "configmaps" in k) == 5
    assert samples(text, "apiserver_storage_objects")['apiserver_storage_objects{resource="configmaps"}'] == 1
    sizes = samples(text, "apiserver_response_sizes_count")
    assert sum(v for k, v in sizes.items() if "configmaps" in k) == 2  # reads alone
    assert (
        samples(text, "apiserver_current_inflight_requests")[
            'apiserver_current_inflight_requests{request_kind="readOnly"}'
        ]
        == 1
    )  # this one
    assert samples(text, "kubernetes_build_info")
    assert samples(text, "process_start_time_seconds")


def test_requests_of_strangers_make_no_series_of_their_own(cluster):
    async def run():
        for path in (CONFIG_MAPS, f"{CONFIG_MAPS}/a", CLASSES, f"{NAMESPACES}/default/pods/p/exec", "/api/v1/nodes"):
            for method in ("GET", "POST", "DELETE", "OPTIONS", "PROPFIND"):
                await cluster.send(method, path, user="", groups=())
        return (await cluster.send("GET", "/metrics"))[1]

    text = asyncio.run(run())
    strangers = {k: v for k, v in samples(text, "apiserver_request_total").items() if 'code="403"' in k}
    assert sum(strangers.values()) == 25
    assert all('resource=""' in key for key in strangers)
    verbs = {key.partition('verb="')[2].partition('"')[0] for key in strangers}
    assert verbs == {"GET", "POST", "DELETE", "other"}


def test_metrics_are_for_those_who_may_read_them(cluster):
    assert cluster.ask("GET", "/metrics", user="bob", groups=("system:authenticated",))[0] == 403
    assert cluster.ask("GET", "/metrics", user="prometheus", groups=("system:monitoring",))[0] == 200


def test_the_root_lists_what_is_served(cluster):
    paths = cluster.must("GET", "/")["paths"]
    assert paths == sorted(paths)
    assert {"/api/v1", "/apis/apps/v1", "/livez/etcd", "/metrics", "/openapi/v3", "/version"} <= set(paths)
    for path in paths:
        assert cluster.ask("GET", path)[0] == 200, path


def test_a_client_that_has_the_openapi_document_does_not_get_it_again(cluster):
    cluster.must("GET", "/openapi/v2")
    tag = next(line for line in cluster.head.splitlines() if line.lower().startswith("etag: ")).partition(" ")[2]
    assert cluster.ask("GET", "/openapi/v2", headers={"If-None-Match": tag})[0] == 304
    assert cluster.ask("GET", "/openapi/v2", headers={"If-None-Match": '"other"'})[0] == 200


def test_the_gauge_of_requests_shows_those_that_a_scrape_would_miss():
    now = [100.0]
    figures = Figures(Store(lambda _: None), VERSION, lambda: now[0])

    def shown(kind):
        name = "apiserver_current_inflight_requests"
        return samples(figures.text(), name)[f'{name}{{request_kind="{kind}"}}']

    with contextlib.ExitStack() as stack:
        for verb in ("get", "list", "create", "patch", "delete"):
            stack.enter_context(figures.inflight(verb))
    assert (shown("readOnly"), shown("mutating")) == (2, 3), "all of them are answered"
    now[0] += 1
    assert shown("mutating") == 3
    now[0] += 1
    assert shown("mutating") == 0
    with figures.inflight("create"):
        now[0] += 10
        assert shown("mutating") == 1, "one that takes its time"


def test_a_quiet_watch_ends_with_its_client(cluster):
    async def running(wanted):
        async with asyncio.timeout(10):
            while True:
                text = (await cluster.send("GET", "/metrics"))[1]
                if list(samples(text, "apiserver_longrunning_requests").values()) == [wanted]:
                    return
                await asyncio.sleep(0.01)

    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {CONFIG_MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await running(1)
        protocol.connection_lost(None)
        await running(0)

    asyncio.run(run())
    assert not list(cluster.store._history._watchers["configmaps"])


@pytest.mark.parametrize("path", [CONFIG_MAPS, f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1", "/healthz"])
def test_nothing_stays_of_a_connection_that_has_ended(cluster, path):
    async def run():
        protocol, peer = cluster.connection()
        protocol.connection_made(peer)
        protocol.data_received(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(10):
            while not peer.closed:
                await asyncio.sleep(0.001)
        protocol.connection_lost(None)
        return weakref.ref(protocol), weakref.ref(peer)

    left = asyncio.run(run())
    gc.collect()
    assert [r() for r in left] == [None, None]


def test_the_kernel_asks_after_silent_clients(cluster, tmp_path):
    ca = certs.authority("server", times.now(), days=2)
    made = certs.issue(ca, ["127.0.0.1"], times.now(), timedelta(days=1))
    (tmp_path / "crt").write_text(made.certificate)
    (tmp_path / "key").write_text(made.key)
    (tmp_path / "ca").write_text(ca.certificate)
    found = []

    class Door(asyncio.Protocol):
        def connection_made(self, transport):
            own = transport.get_extra_info("socket")
            found.append(own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            found.append(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))

    async def run():
        with socket.create_server(("127.0.0.1", 0)) as free:
            at = free.getsockname()
        await listen(Door, at, tls(*(str(tmp_path / n) for n in ("crt", "key", "ca"))))
        trusting = ssl.create_default_context(cadata=ca.certificate)
        _, writer = await asyncio.open_connection(*at, ssl=trusting)
        writer.close()

    asyncio.run(run())
    assert found == [1, 15]
