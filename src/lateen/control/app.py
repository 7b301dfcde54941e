"""istiod, wired from top to bottom: watch -> objects -> mesh -> views -> resources -> push; certificates; webhooks."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import tempfile
from datetime import timedelta

import grpc.aio
from aiohttp import web

from lateen import __version__
from lateen.ads.server import MAX_MESSAGE
from lateen.api import kinds
from lateen.ca.authority import Authority, Identity
from lateen.control.agents import Agents
from lateen.control.ca_service import CaService
from lateen.control.injection import Injector
from lateen.control.monitoring import monitoring, ready
from lateen.control.plane import Control
from lateen.control.status import StatusWriter
from lateen.control.webhooks import Webhooks
from lateen.kit import certs, duration, tasks, times
from lateen.kit import log as logs
from lateen.kit.certs import Pair
from lateen.kit.jsons import Json
from lateen.kube.client import KubeError
from lateen.kube.informer import Informer, Key
from lateen.kube.kubeconfig import in_cluster
from lateen.wire import ports

log = logging.getLogger("lateen.control")


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
    writer = StatusWriter(
        client,
        control.world,
        control.ads,
        control.patching,
        control.mesh,
        lambda: control.offered,
        namespace,
        os.environ.get("POD_NAME") or os.uname().nodename,
        control.credentials.readable,
    )
    control.credentials.changed = writer.changed

    injector = Injector(
        control.mesh,
        lambda: control.world.mesh_config.accepted,
        namespace,
        image=os.environ.get("PROXY_IMAGE", ""),
        native=os.environ.get("ENABLE_NATIVE_SIDECARS", "auto"),
    )

    def on_change(kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        injector.changed(kind, key, new)
        control.world.changed(kind, key, old, new)
        writer.changed(kind, key, old, new)

    def on_namespace(kind: kinds.Kind, key: Key, old: Json | None, new: Json | None) -> None:
        injector.changed(kind, key, new)
        writer.changed(kind, key, old, new)
        if new is not None:
            tasks.spawn(control.root_config_map(new, authority.root), "root certificate")

    informers = [Informer(client, k, on_change) for k in kinds.watched()]
    spaces = Informer(client, kinds.NAMESPACE, on_namespace)
    writer.informers = [*informers, spaces]
    for informer in (*informers, spaces):
        tasks.spawn(informer.run(), f"informer {informer.kind.plural}")
    async with asyncio.timeout(60):
        await asyncio.gather(*(i.synced.wait() for i in informers), control.credentials.follow(namespace).wait())
    tasks.spawn(control.world.mesh_config.keep(client), "mesh configuration")
    tasks.spawn(control.push_loop(), "push")
    tasks.spawn(control.registrar.sweep(), "sweep")
    tasks.spawn(tasks.forever(writer.run, "status"), "status")

    # What to say: certificates, webhooks, configuration, metrics.
    me = Identity(trust_domain, namespace, os.environ.get("SERVICE_ACCOUNT", "istiod"))
    dns = [f"istiod.{namespace}.svc", f"istiod.{namespace}", f"istiod.{namespace}.svc.cluster.local"]
    pair = authority.server_pair(dns, me, times.now())
    context = tls(pair)
    ttl = timedelta(seconds=duration.seconds(os.environ.get("DEFAULT_WORKLOAD_CERT_TTL", "24h")))
    ca = CaService(client, authority, trust_domain, ttl)
    hooks = Webhooks(injector, control.newest)
    agents = Agents(ca, lambda: control.views, control.registrar)

    def on_push() -> None:
        agents.changed()
        writer.pushed()

    control.changed = on_push
    servers = [
        await serve(
            [
                web.post("/certificates", ca.sign),
                web.post("/names", agents.names),
                web.post("/bootstrap", agents.bootstrap),
                web.post("/probe", agents.probe),
                web.post("/health", agents.health),
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
    await writer.close()
    await xds.stop(0.5)
    for server in servers:
        await server.cleanup()
    await client.close()


async def tasks_until_announced(control: Control, root: str) -> None:
    while True:
        try:
            await control.announce(root)
            return
        except (KubeError, OSError) as e:
            log.warning("webhooks not announced yet: %s", e)
            await asyncio.sleep(1)


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
