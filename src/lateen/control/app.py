"""istiod, wired from top to bottom: watch -> objects -> mesh -> views -> resources -> push; certificates; webhooks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import resource
import signal
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import grpc.aio
from aiohttp import web

from lateen import __version__
from lateen.ads.server import MAX_MESSAGE, AdsServer, Connection
from lateen.ads.session import Rejection, Session, Sets
from lateen.api import kinds
from lateen.ca.authority import ROOT_CONFIG_MAP, SECRET, Authority, Identity, parse
from lateen.control.agents import Agents
from lateen.control.ca_service import CaService
from lateen.control.patching import Patching
from lateen.control.status import StatusWriter
from lateen.control.webhooks import Webhooks
from lateen.control.world import World
from lateen.inject import pods
from lateen.kit import certs, duration, jsons, tasks, times
from lateen.kit import log as logs
from lateen.kit.certs import Pair
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer, Key
from lateen.kube.kubeconfig import in_cluster
from lateen.mesh.dangling import dangling
from lateen.mesh.model import Mesh
from lateen.mesh.views import Views
from lateen.wire import names, ports
from lateen.wire.node import NodeId
from lateen.xds import proxyless
from lateen.xds.generate import generate

log = logging.getLogger("lateen.control")

QUIET_S, LONGEST_S = 0.02, 1.0
"""A push waits until nothing has changed for this long, and at most for that long."""
GRACE_S = 0.5
"""How long a rule waits for a host or a subset that it leads to and that is not there."""
DEBUG_AUDIENCE = "lateen-debug"
WATCHED = (
    kinds.NODE,
    kinds.SERVICE,
    kinds.ENDPOINT_SLICE,
    kinds.POD,
    kinds.CONFIG_MAP,
    kinds.INGRESS,
    kinds.INGRESS_CLASS,
    *kinds.MESH,
)


class Control:
    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace
        self._dirty = asyncio.Event()
        self.world = World(namespace, self._dirty.set)
        self.views = Views(Mesh(self.world.objects))
        self.ads = AdsServer(self._allow, self._sets, self._proxyless, self._rejected)
        self.patching = Patching()
        self.rejections: dict[tuple[str, str], Rejection] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called when the mesh is another one."""
        self._last_push = 0.0
        self._pushes = 0
        self._started = time.monotonic()

    # --- pushing ---------------------------------------------------------------------------------------------

    def mesh(self) -> Mesh:
        return self.views.mesh

    def _allow(self, node: NodeId, identity: str) -> str | None:
        """A proxy may only say that it is what its certificate says."""
        try:
            who = parse(identity)
        except ValueError:
            return "a workload certificate is required"
        pod = self.world.objects.pods.get((node.namespace, node.pod))
        if who.namespace != node.namespace:
            return f"the certificate is for namespace {who.namespace}, not {node.namespace}"
        if pod is not None and pod.service_account != who.service_account:
            return f"pod {node.pod} runs as {pod.service_account}, not {who.service_account}"
        return None

    def _sets(self, connection: Connection) -> Mapping[str, Sets]:
        pod = self.views.mesh.objects.pods.get((connection.node.namespace, connection.node.pod))
        if pod is None:
            return {}  # not known yet (or not any more): nothing is sent, and nothing is taken away
        view = self.views.of(pod, connection.node.kind, connection.metadata)
        return self.patching.sets(connection, view, generate(view))

    def _proxyless(self, node: NodeId) -> Mapping[str, Sets]:
        return proxyless.generate(self.views.outbound(node.namespace))

    def _rejected(self, connection: Connection, rejection: Rejection) -> None:
        short = names.SHORT.get(rejection.type_url, rejection.type_url)
        self.rejections[(str(connection.node), short)] = rejection
        cause = f" (from {', '.join(rejection.origins)})" if rejection.origins else ""
        log.error(
            "%s refused %s %s%s: %s",
            connection.node.pod,
            short,
            ", ".join(rejection.resources),
            cause,
            rejection.message.strip(),
        )
        if self.patching.refused(connection, rejection):
            self._dirty.set()

    async def _settled(self) -> Mesh:
        """The mesh once nothing has changed for a moment; a little later where a rule leads to what is not there."""
        first = time.monotonic()
        while True:
            while self._dirty.is_set() and time.monotonic() - first < LONGEST_S:
                self._dirty.clear()
                await asyncio.sleep(QUIET_S)
            self._dirty.clear()
            mesh = Mesh(self.world.objects, self.views.mesh)
            left = first + GRACE_S - time.monotonic()
            if left <= 0 or not dangling(self.views.mesh.objects, mesh):
                return mesh
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._dirty.wait()

    async def push_loop(self) -> None:
        while True:
            await self._dirty.wait()
            mesh = await self._settled()
            started = time.perf_counter()
            try:
                self.views = Views(mesh, self.views)
                self.ads.push()
                self.changed()
            except Exception:  # whatever one instant of the mesh does, the next one is pushed
                log.exception("this state of the mesh is not pushed; proxies keep what they have")
            self._pushes += 1
            self._last_push = time.perf_counter() - started
            log.debug("pushed to %d proxies in %.1f ms", len(self.ads.connections), self._last_push * 1000)

    # --- the certificate authority ---------------------------------------------------------------------------

    async def authority(self, trust_domain: str) -> Authority:
        """The one in the secret, made on the first start."""
        while True:
            found = await self.client.get(kinds.SECRET, self.namespace, SECRET)
            if found:
                data = {k: base64.b64decode(v).decode() for k, v in found["data"].items()}
                return Authority(Pair(data["ca-cert.pem"], data["ca-key.pem"]))
            made = Authority.create(times.now(), trust_domain)
            data = {k: base64.b64encode(v.encode()).decode() for k, v in made.secret_data().items()}
            try:
                await self.client.create(
                    kinds.SECRET,
                    {
                        "apiVersion": "v1",
                        "kind": "Secret",
                        "type": "istio.io/ca-root",
                        "data": data,
                        "metadata": {"name": SECRET, "namespace": self.namespace},
                    },
                )
                log.info("made a new root certificate (secret %s)", SECRET)
                return made
            except KubeError as e:
                if e.code != 409:
                    raise

    async def root_config_map(self, namespace: Json, root: str) -> None:
        """Every namespace has the root certificate, for the proxies in it."""
        name = namespace["metadata"]["name"]
        if namespace["metadata"].get("deletionTimestamp"):
            return
        data = {"root-cert.pem": root}
        try:
            found = await self.client.get(kinds.CONFIG_MAP, name, ROOT_CONFIG_MAP)
            if found is None:
                await self.client.create(
                    kinds.CONFIG_MAP,
                    {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "data": data,
                        "metadata": {"name": ROOT_CONFIG_MAP, "namespace": name, "labels": {"istio.io/config": "true"}},
                    },
                )
            elif found.get("data") != data:
                await self.client.patch(kinds.CONFIG_MAP, name, ROOT_CONFIG_MAP, {"data": data})
        except KubeError as e:
            if e.code not in (403, 404, 409):
                log.warning("root certificate for namespace %s: %s", name, e)

    async def announce(self, root: str) -> None:
        """Let the API server trust our webhooks."""
        bundle = base64.b64encode(root.encode()).decode()
        for kind in (kinds.MUTATING_WEBHOOK, kinds.VALIDATING_WEBHOOK):
            found, _ = await self.client.list(kind, labels="app=sidecar-injector")
            more, _ = await self.client.list(kind, labels="app=istiod")
            for config in [*found, *more]:
                hooks = [{**h, "clientConfig": {**h["clientConfig"], "caBundle": bundle}} for h in config["webhooks"]]
                if hooks != config["webhooks"]:
                    await self.client.patch(kind, "", config["metadata"]["name"], {"webhooks": hooks})

    # --- what it tells of itself -----------------------------------------------------------------------------

    def status(self) -> list[Json]:
        """One entry for each connected proxy, as proxy-status shows them."""
        out = []
        for c in sorted(self.ads.connections, key=lambda c: str(c.node)):
            out.append(
                {
                    "proxy": f"{c.node.pod}.{c.node.namespace}",
                    "kind": c.node.kind,
                    "version": c.version,
                    "connectedAt": c.connected_at,
                    "bytesSent": c.bytes_sent,
                    "types": _types(c.session),
                    "rejections": {names.SHORT.get(t, t): r.message for t, r in c.session.rejections.items()},
                }
            )
        return out

    def config_of(self, proxy: str) -> Json | None:
        """Names and versions of what a connected proxy shall have, and what it asked for by name."""
        found = next((c for c in self.ads.connections if f"{c.node.pod}.{c.node.namespace}" == proxy), None)
        if found is None:
            return None
        resources = {
            names.SHORT[t]: {n: r.version for s in sets for n, r in s.resources.items()}
            for t, sets in found.session.sets().items()
        }
        return {"resources": resources, "subscribed": {names.SHORT[t]: found.session.names(t) for t in names.ORDER}}

    def metrics(self, ca: CaService, hooks: Webhooks) -> str:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        lines = [
            f'pilot_info{{version="{__version__}"}} 1',
            f"pilot_xds {len(self.ads.connections)}",
            f"pilot_services {len(self.world.objects.services)}",
            f"pilot_virt_services {len(self.world.objects.virtual_services)}",
            f"pilot_push_total {self._pushes}",
            f"pilot_last_push_seconds {self._last_push:.6f}",
            f"citadel_server_success_cert_issuance_count {ca.issued}",
            f"citadel_server_authentication_failure_count {ca.refused}",
            f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.3f}",
            f"process_resident_memory_bytes {_rss()}",
            f"istiod_uptime_seconds {time.monotonic() - self._started:.1f}",
        ]
        lines += [f'pilot_xds_pushes{{type="{t.lower()}"}} {n}' for t, n in sorted(self.ads.pushes.items())]
        lines += [f"pilot_xds_{t.lower()}_reject {n}" for t, n in sorted(self.ads.rejects.items())]
        lines += [
            f"sidecar_injection_success_total {hooks.counts['injected']}",
            f"sidecar_injection_skip_total {hooks.counts['skipped']}",
            f"galley_validation_passed {hooks.counts['valid']}",
            f"galley_validation_failed {hooks.counts['invalid']}",
        ]
        return "\n".join(lines) + "\n"


def _types(session: Session) -> dict[str, str]:
    """proxy-status' columns; virtual hosts count as routes."""
    out = {names.SHORT[t]: session.synced(t) for t in names.ORDER}
    hosts = out.pop("VHDS")
    if hosts in ("ERROR", "STALE"):
        out["RDS"] = hosts
    return out


def _rss() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


def tls(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile() as f:  # the ssl module loads keys from files only; mode 0600
        f.write(pair.certificate.encode() + b"\n" + pair.key.encode())
        f.flush()
        context.load_cert_chain(f.name)
    return context


async def serve(routes: list[web.RouteDef], port: int, context: ssl.SSLContext | None) -> web.AppRunner:
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port, ssl_context=context).start()
    return runner


async def run() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    namespace = os.environ.get("POD_NAMESPACE", "istio-system")
    trust_domain = os.environ.get("TRUST_DOMAIN", "cluster.local")
    client = in_cluster()
    control = Control(client, namespace)

    # What to know: one informer for each kind; namespaces only to give them the root certificate.
    authority = await control.authority(trust_domain)
    writer = StatusWriter(client, control.world, control.ads, control.patching)

    def on_change(kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        control.world.changed(kind, key, old, new)
        writer.changed(kind, key, old, new)

    def on_namespace(kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        writer.changed(kind, key, old, new)
        if new is not None:
            tasks.spawn(control.root_config_map(new, authority.root), "root certificate")

    informers = [Informer(client, k, on_change) for k in WATCHED]
    spaces = Informer(client, kinds.NAMESPACE, on_namespace)
    writer.informers = [*informers, spaces]
    # Certificates of gateways: only of our own namespace, where the gateways are.
    informers.append(Informer(client, kinds.SECRET, control.world.changed, namespace))
    for informer in (*informers, spaces):
        tasks.spawn(informer.run(), f"informer {informer.kind.plural}")
    async with asyncio.timeout(60):
        await asyncio.gather(*(i.synced.wait() for i in informers))
    tasks.spawn(control.push_loop(), "push")
    tasks.spawn(tasks.forever(writer.run, "status"), "status")

    # What to say: certificates, webhooks, configuration, metrics.
    me = Identity(trust_domain, namespace, os.environ.get("SERVICE_ACCOUNT", "istiod"))
    dns = [f"istiod.{namespace}.svc", f"istiod.{namespace}", f"istiod.{namespace}.svc.cluster.local"]
    pair = authority.server_pair(dns, me, times.now())
    context = tls(pair)
    ttl = timedelta(seconds=duration.seconds(os.environ.get("DEFAULT_WORKLOAD_CERT_TTL", "24h")))
    ca = CaService(client, authority, trust_domain, ttl)
    settings = pods.settings(
        os.environ.get("PROXY_IMAGE", pods.Settings.image),
        jsons.loads(os.environ.get("PROXY_RESOURCES") or "{}"),
        trust_domain=trust_domain,
        istio_namespace=namespace,
    )
    hooks = Webhooks(settings, control.mesh)
    agents = Agents(ca, lambda: control.views)
    control.changed = agents.changed
    servers = [
        await serve(
            [
                web.post("/certificates", ca.sign),
                web.post("/names", agents.names),
                web.post("/bootstrap", agents.bootstrap),
            ],
            ports.CA,
            context,
        ),
        await serve(hooks.routes(), ports.WEBHOOK, context),
        await serve(monitoring(control, ca, hooks), ports.MONITORING, None),
    ]
    xds, certificate = await xds_server(control, authority, pair)
    renewal = tasks.spawn(renew(authority, dns, me, context, certificate), "server certificate")
    await tasks_until_announced(control, authority.root)
    ready.set()
    log.info(
        "istiod %s is ready: %d services, %d pods",
        __version__,
        len(control.world.objects.services),
        len(control.world.objects.pods),
    )
    await stop.wait()
    renewal.cancel()
    await xds.stop(0.5)
    for server in servers:
        await server.cleanup()
    await client.close()


ready = asyncio.Event()


async def tasks_until_announced(control: Control, root: str) -> None:
    while True:
        try:
            await control.announce(root)
            return
        except (KubeError, OSError) as e:
            log.warning("webhooks not announced yet: %s", e)
            await asyncio.sleep(1)


def monitoring(control: Control, ca: CaService, hooks: Webhooks) -> list[web.RouteDef]:
    """Metrics and readiness for everybody; debug only with a token for it."""

    async def is_ready(_: web.Request) -> web.Response:
        return web.Response(status=200 if ready.is_set() else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=control.metrics(ca, hooks), content_type="text/plain")

    async def syncz(request: web.Request) -> web.Response:
        if (refused := await _refused(control.client, request)) is not None:
            return refused
        return web.json_response({"proxies": control.status(), "bad": control.world.bad, "version": __version__})

    async def configz(request: web.Request) -> web.Response:
        if (refused := await _refused(control.client, request)) is not None:
            return refused
        found = control.config_of(request.query.get("proxy", ""))
        if found is None:
            return web.json_response({"error": f"no proxy {request.query.get('proxy')} is connected"}, status=404)
        return web.json_response(found)

    async def scopes(request: web.Request) -> web.Response:
        if (refused := await _refused(control.client, request)) is not None:
            return refused
        try:
            for name, level in request.query.items():
                logs.set_level(name, level)
        except ValueError as e:
            return web.json_response({"error": str(e)}, status=400)
        return web.json_response({"scopes": logs.scopes()})

    return [
        web.get("/ready", is_ready),
        web.get("/metrics", metrics),
        web.get("/debug/syncz", syncz),
        web.get("/debug/configz", configz),
        web.get("/debug/logging", scopes),
    ]


async def _refused(client: Client, request: web.Request) -> web.Response | None:
    """Debug paths need a token for them."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    spec = {"token": token, "audiences": [DEBUG_AUDIENCE]}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    review = await client.request(kinds.TOKEN_REVIEW, "", "", "", body)
    if dig(review, "status", "authenticated"):
        return None
    return web.json_response({"error": f"a token for the audience {DEBUG_AUDIENCE} is required"}, status=401)


async def xds_server(control: Control, authority: Authority, pair: Pair) -> tuple[grpc.aio.Server, list[Pair]]:
    """Delta ADS over mutual TLS; the certificate is fetched from ``current`` for each new connection."""
    current = [pair]
    server = grpc.aio.server(
        options=[
            ("grpc.max_send_message_length", 64 * MAX_MESSAGE),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
    )
    server.add_generic_rpc_handlers((control.ads,))

    def configuration(p: Pair) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(p.key.encode(), p.certificate.encode())], authority.root.encode()
        )

    last: list[Pair] = [pair]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        if last[0] is current[0]:
            return None
        last[0] = current[0]
        return configuration(current[0])

    credentials = grpc.dynamic_ssl_server_credentials(configuration(pair), fetch, require_client_authentication=True)
    server.add_secure_port(f"0.0.0.0:{ports.XDS}", credentials)
    await server.start()
    return server, current


async def renew(
    authority: Authority, dns: list[str], me: Identity, context: ssl.SSLContext, current: list[Pair]
) -> None:
    """Our own certificate, at half of its life."""
    while True:
        _, end = certs.validity(current[0].certificate)
        await asyncio.sleep(max(1.0, (end - times.now()) / timedelta(seconds=2)))
        pair = authority.server_pair(dns, me, times.now())
        current[0] = pair
        with tempfile.NamedTemporaryFile() as f:
            f.write(pair.certificate.encode() + b"\n" + pair.key.encode())
            f.flush()
            context.load_cert_chain(f.name)


def main() -> None:
    logs.setup()
    try:
        asyncio.run(run())
    except (KubeError, OSError, ValueError) as e:
        log.error("istiod ends: %s", e)
        raise SystemExit(1) from None
