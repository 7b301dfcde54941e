"""istiod's servers: HTTPS for agents and webhooks, HTTP for metrics, delta ADS over mutual TLS, debug xDS."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from datetime import timedelta

import grpc.aio
from aiohttp import web

from lateen.ads.debug import TokenServer
from lateen.ads.server import MAX_MESSAGE, AdsServer
from lateen.ca.authority import Authority, Identity
from lateen.kit import certs, times
from lateen.kit.certs import Pair
from lateen.wire import ports

MAX_BODY = 4 * 1024 * 1024


class Certificate:
    """istiod's own certificate, for all of its servers: replaced at half of its lifetime, and when the authority
    or what it trusts changes."""

    def __init__(self, authority: Authority, names: list[str], me: Identity) -> None:
        self._authority, self._names, self._me = authority, names, me
        self.pair = self._issue()
        self._replaced = asyncio.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load()

    @property
    def root(self) -> str:
        return self._authority.root

    def _issue(self) -> Pair:
        return self._authority.server_pair(self._names, self._me, times.now())

    def _load(self) -> None:
        with tempfile.NamedTemporaryFile() as f:  # the ssl module can load keys only from files; mode 0600
            f.write(self.pair.certificate.encode() + b"\n" + self.pair.key.encode())
            f.flush()
            self.context.load_cert_chain(f.name)

    def replace(self) -> None:
        """New connections get a new certificate, and their clients are verified by what is trusted now."""
        self.pair = self._issue()
        self._load()
        self._replaced.set()

    async def renew(self) -> None:
        """Never returns."""
        while True:
            self._replaced.clear()
            _, end = certs.validity(self.pair.certificate)
            try:
                async with asyncio.timeout(max(1.0, (end - times.now()) / timedelta(seconds=2))):
                    await self._replaced.wait()
            except TimeoutError:
                self.replace()


async def http(
    routes: list[web.RouteDef], port: int, certificate: Certificate | None, host: str = "0.0.0.0"
) -> web.AppRunner:
    app = web.Application(client_max_size=MAX_BODY)
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=certificate.context if certificate else None).start()
    return runner


async def xds(ads: AdsServer, certificate: Certificate) -> grpc.aio.Server:
    """Delta ADS for clients with a certificate of the mesh."""
    return await _grpc(ads, f"0.0.0.0:{ports.XDS}", certificate, client_certificates=True)


async def debug_xds(tokens: TokenServer, certificate: Certificate) -> grpc.aio.Server:
    """Debug xDS for clients with a token, where ``kubectl port-forward`` and istioctl come out: gRPC for Python cannot
    ask for a client's certificate without requiring one, so they cannot share the proxies' address. The kernel prefers
    the more specific of two listeners."""
    return await _grpc(tokens, f"127.0.0.1:{ports.XDS}", certificate, client_certificates=False)


async def _grpc(
    handler: grpc.GenericRpcHandler, address: str, certificate: Certificate, client_certificates: bool
) -> grpc.aio.Server:
    """Each new connection gets the present certificate."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_send_message_length", 64 * MAX_MESSAGE),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.so_reuseport", 1),
        ]
    )
    server.add_generic_rpc_handlers((handler,))
    told = [certificate.pair]

    def configuration() -> grpc.ServerCertificateConfiguration:
        told[0] = certificate.pair
        pair = (told[0].key.encode(), told[0].certificate.encode())
        return grpc.ssl_server_certificate_configuration([pair], certificate.root.encode())

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        return None if told[0] is certificate.pair else configuration()

    credentials = grpc.dynamic_ssl_server_credentials(configuration(), fetch, client_certificates)
    server.add_secure_port(address, credentials)
    await server.start()
    return server
