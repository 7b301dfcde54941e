"""Requests to istiod for certificates, bootstrap patches and the name table: HTTPS, with the pod's token."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from lateen.kit import certs, http, times, tls
from lateen.wire import ports
from lateen.wire.node import CLUSTER_HEADER

log = logging.getLogger("lateen.agent.istiod")

ROOT = Path("/var/run/secrets/istio/root-cert.pem")
CRL = Path("crl/ca-crl.pem")
"""The file with the revocation lists, next to the mounted roots of sidecars."""
TOKEN = Path("/var/run/secrets/tokens/istio-token")
FAILURES = (OSError, TimeoutError, ValueError, KeyError)
"""What a request to istiod can raise."""
NOT_YET_VALID, EXPIRED = 9, 10
"""OpenSSL's codes of certificates that are not valid at this time (X509_V_ERR_…)."""
FORBIDDEN = 403
T = TypeVar("T")


class NotAnswered(OSError):
    """istiod has rejected the request."""


class Istiod:
    """``mark``: the socket mark that identifies the proxy's own connections; None if the user id does. ``root`` and
    ``token`` are read for each request, because both are renewed from time to time."""

    def __init__(
        self,
        host: str,
        mark: int | None,
        root: Path = ROOT,
        token: Path = TOKEN,
        port: int = ports.CA,
        shows: Path | None = None,
        cluster: str = "",
    ) -> None:
        """``shows``: the directory with the client certificate of a machine, whose token is not renewed. ``cluster``:
        the cluster whose API server issued the token; empty for istiod's."""
        self._cluster = cluster
        self._shows = shows
        self.host, self.mark, self.root, self._token, self._port = host, mark, root, token, port

    async def ask(self, path: str, body: dict[str, Any], timeout: float = 10) -> dict[str, Any]:
        """Raises OSError, TimeoutError, ValueError."""
        chain = await asyncio.to_thread(self._shown)
        token = self._bearer(needed=chain is None)
        if chain is None:
            return await self._ask(path, body, timeout, token, None)
        try:
            return await self._ask(path, body, timeout, token, chain)
        except NotAnswered:
            raise
        except OSError as e:  # istiod closes connections with a certificate that it does not accept (any more)
            if not token:
                raise
            log.info("istiod may not accept this machine's certificate (%s); retrying with the token only", e)
            return await self._ask(path, body, timeout, token, None)

    async def _ask(
        self, path: str, body: dict[str, Any], timeout: float, token: str, chain: Path | None
    ) -> dict[str, Any]:
        bearer = {"authorization": f"Bearer {token}"} if token else {}
        context = await asyncio.to_thread(self._context, chain)
        try:
            answer = await http.fetch(
                self.host,
                self._port,
                path,
                method="POST",
                body=json.dumps(body).encode(),
                ssl=context,
                server_hostname=self.host,
                timeout=timeout,
                sock=await self._connect(self._port),
                headers={**bearer, "content-type": "application/json", CLUSTER_HEADER: self._cluster},
            )
        except ssl.SSLCertVerificationError as e:
            if e.verify_code not in (NOT_YET_VALID, EXPIRED):
                raise
            now = times.now().isoformat(timespec="seconds")
            says = f"istiod's certificate: {e.verify_message}, by the clock here, which says {now}; is it right?"
            raise OSError(says) from e
        if answer.status != 200:
            says = f"istiod refused {path}: {answer.body.decode(errors='replace')[:300]}"
            if answer.status == FORBIDDEN and self._shows is not None:
                says += (
                    "; if this machine's token has expired, replace its file istio-token by that of"
                    " `lateen x workload entry configure`, and restart the sidecar"
                )
            raise NotAnswered(says)
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def _bearer(self, needed: bool) -> str:
        """The token; empty if there is none, which is an error without a client certificate. Raises OSError."""
        try:
            return self._token.read_text().strip()
        except (OSError, ValueError) as e:
            if not needed:
                return ""
            why = e.strerror if isinstance(e, OSError) else "it is not text"
            raise OSError(f"the token {self._token}, by which istiod knows who asks, cannot be read: {why}") from None

    def _shown(self) -> Path | None:
        """The file with a machine's client certificate, if it is usable. An expired one would fail the connection,
        although the token may have been replaced."""
        chain = self._shows / "cert-chain.pem" if self._shows else None
        try:
            usable = chain is not None and certs.validity(chain.read_text())[1] > times.now()
        except (OSError, ValueError):
            usable = False
        return chain if usable else None

    def _context(self, chain: Path | None) -> ssl.SSLContext:
        made = tls.client_context(self.root.read_text())
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust anchors may be intermediates, as in Envoy
        lists = self.root.parent / CRL
        if lists.exists() and lists.stat().st_size:
            made.load_verify_locations(cafile=lists)
            made.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        if chain is not None:
            made.load_cert_chain(chain, chain.with_name("key.pem"))
        return made

    async def _connect(self, port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.host, port, type=socket.SOCK_STREAM, family=socket.AF_INET)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if self.mark is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.mark)
            async with asyncio.timeout(5):
                await loop.sock_connect(sock, found[0][4])
        except BaseException:
            sock.close()
            raise
        return sock


async def until_answered(step: Callable[[], Awaitable[T]], what: str, first: float = 0.1, longest: float = 10.0) -> T:
    """Repeat ``step`` until it succeeds, with back-off; each failure is logged."""
    wait = first
    while True:
        try:
            return await step()
        except FAILURES as e:
            log.warning("%s: %s (again in %.1f s)", what, str(e) or "timeout", wait)
            await asyncio.sleep(wait)
            wait = min(wait * 1.6, longest)
