"""The console's web server: the page, the state of the cluster, and the collector's graph, passed through."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol, cast

import aiohttp
from aiohttp import web
from yarl import URL

from lateen.analysis.effective import PeerModes
from lateen.api import kinds
from lateen.api.canonical import canonical_name, canonical_revision
from lateen.api.domain import CLUSTER_DOMAIN, service_host
from lateen.api.reading import has_proxy, is_finished, is_terminating
from lateen.console import health
from lateen.console.answers import why
from lateen.console.cluster import Cluster
from lateen.console.editing import Editing
from lateen.console.envoy import Envoy, Istiod
from lateen.console.identity import Identity
from lateen.console.inventory import pod
from lateen.console.logs import Logs
from lateen.console.pages import Pages
from lateen.console.plain_callers import PlainCallers
from lateen.console.sending import bounded
from lateen.console.shapes import App, Finding, Level, Mesh, Namespace, Traffic
from lateen.inject.workload import of_pod
from lateen.kit import jsons, servers
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient

log = logging.getLogger("lateen.console.server")

ROOT = "/kiali"
STATIC = Path(__file__).parent / "static"
INSTALL = "lateen addons apply"
TRACING = ("services", "traces", "dependencies", "dropped-headers")
LOCAL = ("localhost", "127.0.0.1", "[::1]", "kiali")
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'"
)

SHOWN_FINDINGS = 50
"""The number of findings shown per namespace on the overview."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _own_names() -> tuple[str, ...]:
    """The names of the Service, by which other pods reach it."""
    name = f"kiali.{os.environ.get('POD_NAMESPACE', 'istio-system')}"
    return (
        name,
        f"{name}.svc",
        service_host("kiali", name.partition(".")[2], os.environ.get("CLUSTER_DOMAIN") or CLUSTER_DOMAIN),
    )


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer only under names of this machine or this service, so that no other site's page can read it (DNS
    rebinding)."""
    host = request.host.rpartition(":")[0] or request.host
    if host not in (*LOCAL, *_own_names()) and request.path != f"{ROOT}/healthz":
        raise web.HTTPForbidden(text="open the console with: lateen dashboard kiali")
    response = await handler(request)
    if not response.prepared:
        response.headers.update(
            {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        )
    return response


class Part(Protocol):
    def routes(self, root: str) -> list[web.RouteDef]: ...


class Console:
    def __init__(self, client: HttpClient, collector: str) -> None:
        self._traces = os.environ.get("TRACES_URL", "http://tracing.istio-system").rstrip("/")
        self._client, self._collector = client, collector.rstrip("/")
        self._root = os.environ.get("POD_NAMESPACE", "istio-system")
        self.cluster = Cluster(client, self._root)
        self._following = client.another()
        """For logs, each of which keeps a connection while it is shown: what watches the cluster needs its own."""
        identity = Identity(client)
        istiod = Istiod()
        self._parts: tuple[Part, ...] = (
            Pages(self.cluster, identity),
            identity,
            Editing(identity),
            Envoy(identity, istiod),
            Logs(self._following, self.cluster, istiod),
            PlainCallers(client, self._collector, self._root),
        )
        self._session: aiohttp.ClientSession | None = None

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._home),
            web.get(ROOT, self._index),
            web.get(f"{ROOT}/", self._index),
            web.get(f"{ROOT}/healthz", self._healthy),
            web.get(f"{ROOT}/api/mesh", self._mesh),
            web.get(f"{ROOT}/api/namespaces", self._namespaces),
            web.get(f"{ROOT}/api/tracing/{{asked:[a-zA-Z0-9_.%/-]+}}", self._tracing),
            web.get(f"{ROOT}/api/graph", self._pass),
            web.get(f"{ROOT}/api/graph/history", self._pass),
            web.get(f"{ROOT}/api/graph/stream", self._pass),
            web.get(f"{ROOT}/api/v1/query_range", self._pass),
            web.get(f"{ROOT}/api/v1/label/{{label}}/values", self._pass),
            web.get(f"{ROOT}/api/pods", self._pods),
            *(route for part in self._parts for route in part.routes(f"{ROOT}/api")),
        ]

    async def session(self, _: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as self._session, self._following:
            yield

    async def _home(self, _: web.Request) -> web.Response:
        raise web.HTTPFound(ROOT)

    async def _index(self, _: web.Request) -> web.StreamResponse:
        page = STATIC / "index.html"
        if not page.is_file():
            raise web.HTTPServiceUnavailable(text="the console's page was not built; build it with: make console")
        return web.FileResponse(page, headers={"Cache-Control": "no-cache"})

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.cluster.ready() else 503)

    # --- the collector's -------------------------------------------------------------------------------------

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        url = f"{self._collector}{request.path.removeprefix(ROOT)}"
        return await self._passed(request, url, f"the collector does not answer (%s); install it with: {INSTALL}")

    async def _tracing(self, request: web.Request) -> web.StreamResponse:
        """Proxy to Jaeger's API, limited to the paths that the page uses."""
        path = request.raw_path.partition("?")[0].removeprefix(f"{ROOT}/api/tracing/")
        if path.partition("/")[0] not in TRACING or ".." in path:
            raise web.HTTPNotFound(text="there is no such endpoint for traces")
        says = f"there is no store of traces (%s); install it with: {INSTALL} jaeger"
        return await self._passed(request, f"{self._traces}/api/{path}", says)

    async def _passed(self, request: web.Request, url: str, says: str) -> web.StreamResponse:
        assert self._session is not None
        limit = aiohttp.ClientTimeout(total=None, connect=5, sock_read=60)
        try:
            async with self._session.get(URL(url, encoded=True), params=request.query, timeout=limit) as found:
                answer = web.StreamResponse(
                    status=found.status, headers={"Content-Type": found.headers["Content-Type"]}
                )
                await answer.prepare(request)
                async for chunk in found.content.iter_any():
                    await answer.write(chunk)
                return answer
        except (aiohttp.ClientError, TimeoutError) as e:
            raise web.HTTPBadGateway(text=says % why(e)) from e

    async def _health(self) -> tuple[dict[str, Traffic], str]:
        """Traffic by namespace, and why it is unknown if it is."""
        assert self._session is not None
        try:
            limit = aiohttp.ClientTimeout(total=3)
            async with self._session.get(f"{self._collector}/api/health?window=60", timeout=limit) as found:
                return await found.json(), ""
        except (aiohttp.ClientError, TimeoutError, ValueError) as e:
            return {}, f"the collector does not answer ({why(e)}); install it with: {INSTALL}"

    # --- the cluster's ---------------------------------------------------------------------------------------

    def _objects(self, kind: kinds.Kind) -> list[Json]:
        return self.cluster.objects(kind)

    def _findings(self) -> dict[str, list[Finding]]:
        """Namespace -> the analysis' present findings."""
        out: dict[str, list[Finding]] = {}
        for m in itertools.chain.from_iterable(self.cluster.findings().values()):
            found: Finding = {
                "code": m.kind.code,
                "level": cast(Level, m.kind.level),
                "object": m.source.ref,
                "text": m.text,
            }
            out.setdefault(m.source.namespace or m.source.name, []).append(found)
        return out

    async def _mesh(self, _request: web.Request) -> web.Response:
        _traffic, why = await self._health()
        mesh: Mesh = {
            "controlPlane": health.control_plane(self._objects(kinds.DEPLOYMENT), self._root),
            "gateways": health.gateways(*map(self._objects, (kinds.SERVICE, kinds.VIRTUAL_SERVICE, kinds.HTTP_ROUTE))),
            "collector": why,
        }
        return web.Response(body=jsons.dumps(mesh), content_type="application/json")

    async def _namespaces(self, _: web.Request) -> web.Response:
        traffic, _why = await self._health()
        failure = ""
        try:
            findings = self._findings()
        except Exception as e:  # a bug in one analyzer must not hide what is running
            log.exception("the analysis failed")
            findings, failure = {}, f"the analysis failed ({type(e).__name__}: {e})"
        modes = PeerModes(self._objects(kinds.PEER_AUTHENTICATION), self._root)
        known = sorted(self._objects(kinds.NAMESPACE), key=_own_first)
        out = [self._namespace(ns, traffic, findings, modes, failure) for ns in known]
        return web.Response(body=jsons.dumps(out), content_type="application/json")

    def _namespace(
        self, ns: Json, traffic: dict[str, Traffic], findings: dict[str, list[Finding]], modes: PeerModes, failure: str
    ) -> Namespace:
        name = str(ns["metadata"]["name"])
        pods = [p for p in self._of(kinds.POD, name) if not is_terminating(p) and not is_finished(p)]
        try:
            apps = health.applications(pods, self._of(kinds.DEPLOYMENT, name))
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            apps, failure = [], f"its pods cannot be read ({type(e).__name__}: {e})"
        if name == self._root:
            apps = self._with_istiod(apps)
        mine = findings.get(name, [])
        levels = [f["level"] for f in mine]
        return {
            "name": name,
            "labels": ns["metadata"].get("labels") or {},
            "apps": len(apps),
            "healthy": sum(a["state"] == "healthy" for a in apps),
            "unhealthy": [a for a in apps if a["state"] != "healthy"],
            "meshed": sum(has_proxy(p) for p in pods),
            "pods": len(pods),
            "config": sum(len(self._of(k, name)) for k in kinds.owned()),
            "errors": levels.count("Error"),
            "warnings": levels.count("Warning"),
            "found": len(mine),
            "findings": mine[:SHOWN_FINDINGS],
            "mtls": modes.of(name, {})[0],
            "traffic": traffic.get(name, {"requests": 0, "errors": 0}),
            "failure": failure,
        }

    def _with_istiod(self, apps: list[App]) -> list[App]:
        """The control plane counts as down if it is missing or scaled to 0."""
        plane = health.control_plane(self._objects(kinds.DEPLOYMENT), self._root)
        istiod: App = {"name": "istiod", "state": plane["state"], "says": plane["says"]}
        return [*(a for a in apps if a["name"] != "istiod"), istiod]

    def _of(self, kind: kinds.Kind, namespace: str) -> list[Json]:
        return [o for o in self._objects(kind) if o["metadata"].get("namespace") == namespace]

    async def _pods(self, request: web.Request) -> web.Response:
        """The pods of ``namespace``, optionally only those of an ``app``, a ``version`` or a ``workload``, as the graph
        calls them."""
        wanted = {k: v for k in ("app", "version", "workload") if (v := request.query.get(k))}
        out = [
            pod(p)
            for p in self._objects(kinds.POD)
            if p["metadata"]["namespace"] == request.query.get("namespace") and wanted.items() <= _called(p).items()
        ]
        return web.Response(body=jsons.dumps(out), content_type="application/json")


def _called(pod: Json) -> dict[str, str]:
    labels, workload = dig(pod, "metadata", "labels", default={}), of_pod(pod, "").name
    app, version = canonical_name(labels, workload), canonical_revision(labels)
    return {"app": app, "version": version, "workload": workload}


def _own_first(namespace: Json) -> tuple[bool, bool, str]:
    """The user's own namespaces first, then the mesh's, then the cluster's."""
    name = str(namespace["metadata"]["name"])
    return name.startswith("kube-"), name.startswith("istio-"), name


def application(console: Console) -> web.Application:
    app = web.Application(middlewares=[bounded(), guarded])
    app.cleanup_ctx.append(console.session)
    app.add_routes(console.routes())
    if (STATIC / "assets").is_dir():
        app.router.add_static(f"{ROOT}/assets", STATIC / "assets")
    return app


async def serve(client: HttpClient, port: int, collector: str) -> None:
    """Never returns."""
    console = Console(client, collector)
    console.cluster.start()
    runner = servers.runner(application(console))
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    log.info("console: http://localhost:%d%s", port, ROOT)
    await asyncio.Event().wait()
