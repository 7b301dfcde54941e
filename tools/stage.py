"""Serve the console over a made-up Bookinfo: no cluster, no mesh. python tools/stage.py [PORT]

Everything behind the page is the product's own: the server reads objects as if an API had told them, the collector
scrapes proxies (which are web servers of this process that count as Bookinfo's would), traces are spans in the store.
It is what `npm run dev` shows, what the pictures of the documents are taken of, and what tests of the page alone use.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import random
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from lateen.analysis import Snapshot, Source
from lateen.api import kinds
from lateen.api.reading import HOST_PORTS
from lateen.console import effect, server
from lateen.console.collector import Collector
from lateen.console.prometheus import Api
from lateen.console.scraping import processes
from lateen.console.series.intake import Look
from lateen.console.series.scrape import samples, target_labels
from lateen.console.traces.serving import Traces
from lateen.console.traces.spans import Span
from lateen.console.traces.store import Store
from lateen.kit import jsons, tasks, yamldoc
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient
from lateen.wire import names

SAMPLES = Path(__file__).parents[1] / "samples"
ROOT = "istio-system"
BACK_S, STEP_S = 900, 5
EDITOR, VIEWER = "editor", "viewer"
"""The tokens that the made-up API takes."""


class Call(NamedTuple):
    """Requests per second between two versions, the share that fails, and their typical length in milliseconds."""

    source: str
    source_version: str
    target: str
    target_version: str
    rate: float
    failing: float
    ms: float


CALLS = (
    Call("istio-ingressgateway", "", "productpage", "v1", 6.0, 0.0, 48),
    Call("productpage", "v1", "details", "v1", 6.0, 0.0, 6),
    Call("productpage", "v1", "reviews", "v1", 2.1, 0.0, 5),
    Call("productpage", "v1", "reviews", "v2", 2.0, 0.0, 21),
    Call("productpage", "v1", "reviews", "v3", 1.9, 0.0, 26),
    Call("reviews", "v2", "ratings", "v1", 2.0, 0.02, 4),
    Call("reviews", "v3", "ratings", "v1", 1.9, 0.14, 4),
)
SIZES = ("500", "1000", "2500", "5000", "+Inf")
BOUNDS = (1, 5, 10, 25, 50, 100, 250, 500, 1000)
RULES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - timeout: 3s
    route:
    - {destination: {host: reviews, subset: v1}, weight: 34}
    - {destination: {host: reviews, subset: v2}, weight: 33}
    - {destination: {host: reviews, subset: v3}, weight: 33}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 5}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: default}
spec:
  hosts: [ratings]
  http:
  - fault: {abort: {httpStatus: 503, percentage: {value: 8}}}
    route: [{destination: {host: ratings, subset: v9}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ratings, namespace: default}
spec:
  selector: {matchLabels: {app: ratings}}
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/bookinfo-reviews]}}]}]
"""


# --- objects -------------------------------------------------------------------------------------------------------


def objects() -> list[Json]:
    texts = [SAMPLES / "bookinfo/platform/kube/bookinfo.yaml", SAMPLES / "bookinfo/networking/bookinfo-gateway.yaml"]
    found = [d for path in texts for d in yamldoc.objects(path.read_text())]
    found += [*yamldoc.objects(RULES), *_control_plane()]
    found = [_settled(d) for d in found]
    out = [d for d in found if kinds.of(d) is not None and d["kind"] != "ServiceAccount"]
    out += [_pod(d, i) for i, d in enumerate(d for d in found if d["kind"] == "Deployment")]
    for name, labels in (("default", {"istio-injection": "enabled"}), (ROOT, {}), ("kube-system", {})):
        out.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    return out


def _control_plane() -> Iterator[Json]:
    for name, image in (("istiod", "pilot:0.1.0"), ("istio-ingressgateway", "proxyv2:0.1.0")):
        labels = {"app": name, "istio": "pilot" if name == "istiod" else "ingressgateway"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
        meta = {"name": name, "namespace": ROOT, "labels": labels}
        spec = {"replicas": 1, "template": template, "selector": {"matchLabels": labels}}
        yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
    ports = [{"name": "http2", "port": 80, "targetPort": 8080}, {"name": "https", "port": 443, "targetPort": 8443}]
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "istio-ingressgateway", "namespace": ROOT, "annotations": {HOST_PORTS: "80=80,443=443"}},
        "spec": {"type": "LoadBalancer", "selector": {"istio": "ingressgateway"}, "ports": ports},
        "status": {"loadBalancer": {"ingress": [{"hostname": "localhost", "ip": "127.0.0.1"}]}},
    }


def _settled(obj: Json) -> Json:
    """As the API gives it, some minutes old."""
    meta = obj["metadata"]
    meta.setdefault("namespace", "default")
    age = 300 + sum(meta["name"].encode()) % 400
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age))
    meta |= {"creationTimestamp": at, "uid": meta["name"], "managedFields": [{"manager": "kubectl", "time": at}]}
    if obj["kind"] == "Service":
        obj["spec"]["clusterIP"] = f"10.96.0.{sum(meta['name'].encode()) % 250 + 1}"
    if obj["kind"] == "Deployment":
        obj["status"] = {"readyReplicas": 1}
    return obj


def _pod(deployment: Json, number: int) -> Json:
    meta, hash_ = deployment["metadata"], "6b7c9d"
    labels = dict(deployment["spec"]["template"]["metadata"]["labels"]) | {"pod-template-hash": hash_}
    app = {**deployment["spec"]["template"]["spec"]["containers"][0], "name": labels["app"]}
    gateway, plain = meta["name"] == "istio-ingressgateway", meta["name"] == "istiod"
    proxy = {"name": "istio-proxy", "args": ["proxy", "router" if gateway else "sidecar"]}
    containers = [app] if plain else [proxy] if gateway else [app, proxy]
    if not plain:
        labels["security.istio.io/tlsMode"] = "istio"
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{meta['name']}-{hash_}", "controller": True}
    account = deployment["spec"]["template"]["spec"].get("serviceAccountName") or meta["name"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name']}-{hash_}-x{number}",
            "namespace": meta["namespace"],
            "uid": f"pod-{number}",
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {"containers": containers, "serviceAccountName": account, "nodeName": "lateen"},
        "status": {
            "phase": "Running",
            "podIP": f"127.0.47.{number + 2}",
            "startTime": "2020-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": c["name"], "ready": True} for c in containers],
        },
    }


# --- metrics -------------------------------------------------------------------------------------------------------


def _side(side: str, app: str, version: str) -> dict[str, str]:
    namespace = ROOT if app.startswith("istio") else "default"
    out = {f"{side}_workload": f"{app}-{version}" if version else app, f"{side}_workload_namespace": namespace}
    out[f"{side}_principal"] = f"spiffe://cluster.local/ns/{namespace}/sa/{app}"
    return out | {f"{side}_app": app, f"{side}_version": version or "unknown", f"{side}_canonical_service": app}


def _count(call: Call, seconds: float) -> float:
    """The integral of a rate that goes up and down."""
    return call.rate * (seconds + 20 * math.sin(seconds / 60))


def metrics(workload: str, seconds: float) -> bytes:
    """What a workload's proxy has counted after a time."""
    out = list(_own(workload, seconds))
    for call in CALLS:
        ends = {"source": (call.source, call.source_version), "destination": (call.target, call.target_version)}
        for reporter, (app, version) in ends.items():
            if workload == (f"{app}-{version}" if version else app):
                out += _lines(call, reporter, _count(call, seconds))
    return "".join(out).encode()


def _own(workload: str, seconds: float) -> Iterator[str]:
    """What its agent says of itself and of Envoy."""
    kind = {"type": "router" if workload.startswith("istio") else "sidecar"}
    yield _line("istio_build", {"component": "proxy", "tag": "0.1.0"}, 1)
    yield _line("istio_agent_envoy_cpu_seconds_total", kind, round(_count(CALLS[0], seconds) * 0.0004, 3))
    yield _line("istio_agent_envoy_memory_bytes", kind, 48_000_000 + 50_000 * (sum(workload.encode()) % 40))


def _lines(call: Call, reporter: str, count: float) -> Iterator[str]:
    host = f"{call.target}.default.svc.cluster.local"
    labels = {"reporter": reporter, **_side("source", call.source, call.source_version)}
    labels |= {**_side("destination", call.target, call.target_version), "destination_service": host}
    labels |= {"destination_service_name": call.target, "destination_service_namespace": "default"}
    security = "mutual_tls" if reporter == "destination" else "unknown"
    labels |= {"request_protocol": "http", "connection_security_policy": security}
    for code, share in (("200", 1 - call.failing), ("503", call.failing)):
        if share:
            more = {"response_code": code, "response_flags": "-" if code == "200" else "FI"}
            yield _line("istio_requests_total", labels | more, int(count * share))
    ok = labels | {"response_code": "200", "response_flags": "-"}
    for bound in (*BOUNDS, math.inf):
        share = 1 / (1 + math.exp(-3.2 * math.log(bound / call.ms))) if bound < math.inf else 1
        name = "istio_request_duration_milliseconds_bucket"
        yield _line(name, ok | {"le": "+Inf" if bound == math.inf else str(bound)}, int(count * share))
    yield _line("istio_request_duration_milliseconds_sum", ok, int(count * call.ms))
    for metric, each in (("istio_request_bytes", 900), ("istio_response_bytes", 4200)):
        for size in SIZES:
            yield _line(f"{metric}_bucket", ok | {"le": size}, int(count) if float(size) >= each else 0)
        yield _line(f"{metric}_count", ok, int(count))
        yield _line(f"{metric}_sum", ok, int(count * each))


def _line(metric: str, labels: dict[str, str], value: float) -> str:
    inside = ",".join(f'{name}="{of}"' for name, of in labels.items())
    return f"{metric}{{{inside}}} {value}\n"


def _workload(pod: Json) -> str:
    return str(pod["metadata"]["ownerReferences"][0]["name"]).rpartition("-")[0]


class Proxies:
    """A web server a pod, at the pod's address."""

    def __init__(self, pods: list[Json]) -> None:
        self.pods, self._began = pods, time.time() - BACK_S - 600
        self._by_address = {p["status"]["podIP"]: _workload(p) for p in pods}

    def text(self, workload: str, at: float) -> bytes:
        return metrics(workload, at - self._began)

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        workload = self._by_address[request.transport.get_extra_info("sockname")[0]]
        return web.Response(body=self.text(workload, time.time()))

    def backfill(self, collector: Collector, port: int) -> None:
        """What the collector would have stored by now."""
        found = processes(self.pods, port)
        now = time.time()
        for at in range(int(now) - BACK_S, int(now), STEP_S):
            looks = {
                key: Look(target_labels(p.pod, p.port), "", samples(self.text(_workload(p.pod), at), None), True, 0.002)
                for key, p in found.items()
            }
            collector.intake.frame(at, looks, found.keys())


# --- traces --------------------------------------------------------------------------------------------------------


def spans(at_us: int, seed: int) -> list[Span]:
    """One request of the product page, in one of the versions of reviews."""
    dice = random.Random(seed)
    trace, ids = f"{dice.getrandbits(128):032x}", itertools.count(1)
    version = dice.choice(("v1", "v2", "v3"))
    failing, slow = dice.random() < 0.1, dice.choice((1, 1, 1, 1.6, 2.4, 6))

    def span(parent: str, service: str, operation: str, start: int, length: float, status: str = "200") -> Span:
        canonical = service.partition(".")[0]
        url = f"http://{canonical}:9080{operation.removeprefix('GET ')}" if parent else "http://localhost/productpage"
        tags = {"http.method": "GET", "http.url": url, "http.status_code": status, "istio.canonical_service": canonical}
        wrong, own = status != "200", f"{next(ids):016x}"
        return Span(
            trace, own, parent, service, operation, "SERVER", at_us + start, int(length * slow), tags, [], error=wrong
        )

    gateway = span("", "istio-ingressgateway.istio-system", "productpage.default.svc.cluster.local:9080/*", 0, 46_000)
    page = span(gateway.id, "productpage.default", "GET /productpage", 900, 44_000)
    out = [gateway, page, span(page.id, "details.default", "GET /details/0", 3_000, 5_000)]
    reviews = span(page.id, "reviews.default", "GET /reviews/0", 10_000, 28_000 if version != "v1" else 5_000)
    out.append(reviews)
    if version != "v1":
        out.append(span(reviews.id, "ratings.default", "GET /ratings/0", 15_000, 4_000, "503" if failing else "200"))
    return out


# --- the API and istiod, as far as the page asks them ------------------------------------------------------------


async def _api(request: web.Request) -> web.StreamResponse:
    user = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if request.path.endswith("/log"):
        return await _log(request)
    if request.path == "/api/v1/pods":  # as the console itself asks
        return web.json_response(
            {"metadata": {"resourceVersion": "1"}, "items": [o for o in objects() if o["kind"] == "Pod"]}
        )
    if user not in (EDITOR, VIEWER):
        return web.json_response({"kind": "Status", "message": "Unauthorized", "code": 401}, status=401)
    if request.path.endswith("selfsubjectreviews"):
        name = f"system:serviceaccount:istio-system:kiali-{user}"
        return web.json_response({"status": {"userInfo": {"username": name}}})
    if request.path.endswith("selfsubjectaccessreviews"):
        verb = (await request.json())["spec"]["resourceAttributes"]["verb"]
        return web.json_response({"status": {"allowed": user == EDITOR or verb in ("get", "list")}})
    if "dryRun" in request.query and user == EDITOR:
        return web.json_response(await request.json())
    return web.json_response({"kind": "Status", "message": "nothing is written on this stage", "code": 403}, status=403)


async def _log(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for i in itertools.count():
        line = f'[{time.strftime("%H:%M:%S")}] "GET /reviews/{i % 3} HTTP/1.1" 200 - via_upstream 21 ms details:9080\n'
        try:
            await answer.write(line.encode())
        except ConnectionError:
            break  # the page was closed
        await asyncio.sleep(0.01 if i < 20 else 1)
    return answer


def config_dump(found: list[Json], pod: str) -> Json:
    """What istiod would say of a proxy."""
    own = effect.resources(Snapshot([Source(o) for o in found], root=ROOT), pod)
    shapes = {
        names.CDS: ("ClustersConfigDump", "dynamic_active_clusters", "cluster"),
        names.EDS: ("EndpointsConfigDump", "dynamic_endpoint_configs", "endpoint_config"),
        names.RDS: ("RoutesConfigDump", "dynamic_route_configs", "route_config"),
    }
    for type_url, route in own:
        if type_url == names.RDS:
            hosts = [r for t, r in own if t == names.VHDS and r["name"].partition("/")[0] == route["name"]]
            route["virtual_hosts"] = [*route.get("virtual_hosts", []), *hosts]
    configs = [
        {"@type": f"type.googleapis.com/envoy.admin.v3.{kind}", field: [{inner: r} for t, r in own if t == type_url]}
        for type_url, (kind, field, inner) in shapes.items()
    ]
    listeners = [{"name": r["name"], "active_state": {"listener": r}} for t, r in own if t == names.LDS]
    kind = "type.googleapis.com/envoy.admin.v3.ListenersConfigDump"
    return {"configs": [*configs, {"@type": kind, "dynamic_listeners": listeners}]}


# --- all of it -----------------------------------------------------------------------------------------------------


class Nothing:
    """A client of an API that never says anything: objects are put where informers put them."""


async def _site(app: web.Application, host: str = "127.0.0.1", port: int = 0) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner, int(runner.addresses[0][1])


@contextlib.asynccontextmanager
async def stage(port: int = 0) -> AsyncIterator[str]:
    """The page's address."""
    found = objects()
    pods = [o for o in found if o["kind"] == "Pod" and o["metadata"]["labels"]["app"] != "istiod"]
    proxies, runners, jobs = Proxies(pods), [], []
    app = web.Application()
    app.add_routes([web.get("/stats/prometheus", proxies.answer)])
    runner, scraped = await _site(app, pods[0]["status"]["podIP"])
    runners.append(runner)
    for pod in pods[1:]:
        await web.TCPSite(runner, pod["status"]["podIP"], scraped).start()

    collector = Collector(Nothing(), port=scraped)  # type: ignore[arg-type]
    collector.pods.objects = {(p["metadata"]["namespace"], p["metadata"]["name"]): p for p in pods}
    collector.pods.synced.set()
    proxies.backfill(collector, scraped)
    jobs.append(tasks.spawn(collector.run(), "collector"))
    app = web.Application()
    app.add_routes([*collector.routes(), *Api(collector.intake.store, collector.intake, collector.gate).routes()])
    runner, metrics_port = await _site(app)
    runners.append(runner)

    with tempfile.TemporaryDirectory() as folder:
        stored = Store(Path(folder) / "traces.sqlite", 50_000_000, 86_400)
        now = time.time_ns() // 1000
        stored.add([s for i in range(60) for s in spans(now - i * 9_000_000, i)], now)
        traces = Traces(stored)
        jobs.append(tasks.spawn(traces.run(), "traces"))
        runner, traces_port = await _site(traces.app())
        runners.append(runner)

        async def istiod(request: web.Request) -> web.Response:
            return web.Response(body=jsons.dumps(config_dump(found, request.query["proxyID"].partition(".")[0])))

        app = web.Application()
        app.add_routes([web.get("/debug/config_dump", istiod), web.route("*", "/{rest:.*}", _api)])
        runner, api_port = await _site(app)
        runners.append(runner)
        token = Path(folder) / "token"
        token.write_text("console")
        os.environ |= {
            "TRACES_URL": f"http://127.0.0.1:{traces_port}",
            "ISTIOD_URL": f"http://127.0.0.1:{api_port}",
            "ISTIOD_TOKEN": str(token),
        }
        async with HttpClient(f"http://127.0.0.1:{api_port}", ssl.create_default_context()) as client:
            console = server.Console(client, f"http://127.0.0.1:{metrics_port}")
            for obj in found:
                kind = kinds.of(obj)
                if kind in console.cluster.informers:
                    meta = obj["metadata"]
                    key = (meta.get("namespace", "") if kind.namespaced else "", meta["name"])
                    console.cluster.informers[kind]._change(key, obj)
            runner, shown = await _site(server.application(console), port=port)
            runners.append(runner)
            yield f"http://localhost:{shown}/kiali"
        await tasks.cancel(*jobs)
        for runner in runners:
            await runner.cleanup()


async def main() -> None:
    async with stage(int(sys.argv[1]) if len(sys.argv) > 1 else 20001) as url:
        print(f"{url}  (tokens: {EDITOR}, {VIEWER})", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
