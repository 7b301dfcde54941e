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

from lateen.kit import certs, http, times
from lateen.wire import ports

log = logging.getLogger("lateen.agent.istiod")

ROOT = Path("/var/run/secrets/istio/root-cert.pem")
TOKEN = Path("/var/run/secrets/tokens/istio-token")
FAILURES = (OSError, TimeoutError, ValueError, KeyError)
"""What a request to istiod can raise."""
T = TypeVar("T")


class Istiod:
    """``mark``: the socket mark that identifies the proxy's own connections; None if the user id does. ``root`` and
    ``token`` are read for each request, since both are replaced from time to time."""

    def __init__(
        self,
        host: str,
        mark: int | None,
        root: Path = ROOT,
        token: Path = TOKEN,
        port: int = ports.CA,
        shows: Path | None = None,
    ) -> None:
        """``shows``: the directory with the certificate that a machine shows, whose token nobody renews."""
        self._shows = shows
        self.host, self.mark, self.root, self._token, self._port = host, mark, root, token, port

    async def ask(self, path: str, body: dict[str, Any], timeout: float = 10) -> dict[str, Any]:
        """Raises OSError, TimeoutError, ValueError."""
        context = await asyncio.to_thread(self._context)
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
            headers={"authorization": f"Bearer {self._token.read_text().strip()}", "content-type": "application/json"},
        )
        if answer.status != 200:
            raise OSError(f"istiod refused {path}: {answer.body.decode(errors='replace')[:300]}")
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def _context(self) -> ssl.SSLContext:
        made = ssl.create_default_context(cadata=self.root.read_text())
        chain = self._shows / "cert-chain.pem" if self._shows else None
        # An expired one would end the connection, although the token may have been replaced.
        if self._shows and chain and chain.exists() and certs.validity(chain.read_text())[1] > times.now():
            made.load_cert_chain(chain, self._shows / "key.pem")
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
    """Repeat ``step`` until it succeeds, with growing pauses; each failure is logged."""
    wait = first
    while True:
        try:
            return await step()
        except FAILURES as e:
            log.warning("%s: %s (again in %.1f s)", what, str(e) or "timeout", wait)
            await asyncio.sleep(wait)
            wait = min(wait * 1.6, longest)
