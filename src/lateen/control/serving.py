"""istiod's servers: HTTPS for agents and webhooks, HTTP for metrics, delta ADS over mutual TLS, debug xDS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from aiohttp import web

from lateen.ads import listening, rpc
from lateen.ads.debug import TokenServer
from lateen.ca.authority import Authority, Identity
from lateen.kit import certs, servers, times
from lateen.kit.certs import Pair
from lateen.kit.memory_file import memory_file
from lateen.wire import ports

LOOK_S = 5.0
"""Seconds between checks whether istiod's certificate has to be replaced."""
MAX_BODY = 4 * 1024 * 1024


class Certificate:
    """istiod's own certificate, for all of its servers: replaced at half of its lifetime, and when the authority or the
    trusted roots change."""

    def __init__(self, authority: Authority, names: list[str], me: Identity) -> None:
        self._authority, self._names, self._me = authority, names, me
        self._replaced = asyncio.Event()
        self.withdrawn: list[Callable[[], None]] = []
        """Called when a root is no longer trusted, or certificates may have been revoked: such clients may be
        connected."""
        self.context = _context()
        """For HTTPS without client certificates."""
        self.asking = _verifying()
        """For HTTPS with optional client certificates of the mesh."""
        self.asking.verify_mode = ssl.CERT_OPTIONAL
        self.asking.sni_callback = self._verify_by_present_roots
        self._load(self._issue())

    @property
    def root(self) -> str:
        return self._authority.root

    def _issue(self) -> Pair:
        return self._authority.server_pair(self._names, self._me, times.now())

    def _load(self, pair: Pair) -> None:
        """Load a certificate, all or nothing: if a step fails, the former one stays in use until the next attempt."""
        # roots cannot be removed from a context, so contexts that verify clients are created anew
        http2, mutual, optional = _context("h2"), _verifying("h2"), _verifying()
        mutual.verify_mode, optional.verify_mode = ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL
        roots, lists = self.root, self._authority.lists[0]
        for context in (mutual, optional):
            context.load_verify_locations(cadata=roots)
            if lists:
                with memory_file(lists.encode()) as path:  # CRLs can only be loaded from files
                    context.load_verify_locations(cafile=path)
        for context in (mutual, optional, self.asking):  # a connection inherits the flags of its listener's context
            context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN if lists else ssl.VerifyFlags(0)
        # the ssl module can load keys only from files
        with memory_file(pair.certificate.encode() + b"\n" + pair.key.encode()) as path:
            for context in (http2, mutual, optional, self.context, self.asking):
                context.load_cert_chain(path)
        self.http2, self.mutual, self._optional = http2, mutual, optional
        self._loaded, self._lists, self.pair = roots, lists, pair

    def _verify_by_present_roots(self, link: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """SNI callback: a listener keeps its context; each connection is switched to the current one."""
        link.context = self._optional

    def replace(self) -> None:
        """Switch new connections to a new certificate and to the current trusted roots."""
        before, lists = frozenset(certs.split(self._loaded)), self._lists
        self._load(self._issue())
        self._replaced.set()
        if not before <= frozenset(certs.split(self._loaded)) or lists != self._lists:
            for told in self.withdrawn:
                told()

    async def renew(self) -> None:
        """Never returns."""
        while True:
            self._replaced.clear()
            start, end = certs.validity(self.pair.certificate)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._replaced.wait()
                    continue
            if (
                times.now() >= start + (end - start) / 2
            ):  # by the wall clock: monotonic time stops while a machine sleeps
                self.replace()


def _context(*protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    if protocols:
        context.set_alpn_protocols(list(protocols))
        context.num_tickets = 0  # keep proxies connected: they could not reconnect
    return context


def _verifying(*protocols: str) -> ssl.SSLContext:
    """The context for clients with certificates of the mesh, all of which speak TLS 1.3. Earlier versions resume
    sessions: a client could be authenticated by a former certificate without presenting it again."""
    made = _context(*protocols)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.num_tickets = 0
    return made


async def http(
    routes: list[web.RouteDef], port: int, context: ssl.SSLContext | None, host: str | None = None
) -> web.AppRunner:
    """Listen, without a ``host`` at all addresses of both families."""
    app = web.Application(client_max_size=MAX_BODY)
    app.add_routes(routes)
    runner = servers.runner(app)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=context).start()
    return runner


async def xds(certificate: Certificate, *accepts: rpc.Accept) -> listening.Server:
    """The xDS server for clients with a certificate of the mesh: each call goes to the first handler that accepts
    it."""

    def accept(call: rpc.Call) -> rpc.Handler | None:
        return next((handler for a in accepts if (handler := a(call)) is not None), None)

    server = await listening.serve(accept, "", ports.XDS, lambda: certificate.mutual)
    certificate.withdrawn.append(server.disconnect)
    return server


async def debug_xds(tokens: TokenServer, certificate: Certificate) -> listening.Server:
    """Debug xDS for clients with a token, on the loopback interface, where ``kubectl port-forward`` and istioctl
    arrive; all others need a certificate. The kernel prefers the more specific of two listeners."""
    return await listening.serve(tokens.accept, "127.0.0.1", ports.XDS, lambda: certificate.http2)
