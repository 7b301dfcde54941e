"""Issues certificates for service account tokens, over HTTPS."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta

from aiohttp import web

from lateen.api import kinds
from lateen.ca.authority import AUDIENCE, DEFAULT_TTL, Authority, Identity, Refused, identity, parse
from lateen.control.external import External
from lateen.control.measures import Measures
from lateen.kit import bodies, jsons, times
from lateen.kube.client import Client, KubeError

log = logging.getLogger("lateen.control.ca")

MAX_BODY = 256 * 1024
AT_ONCE = 64
"""Tokens that the API server reviews at the same time; further requests wait for their turn."""
BURST, PER_SECOND = 20, 0.5
"""Certificates that one token gets at once, and per second later on: an agent needs one in hours."""
KEPT = 20_000
"""Tokens of which it is remembered how many certificates they have got lately."""


class TooMany(Refused):
    """More requests with one token than an agent makes."""


class Rates:
    """A bucket for each of the latest callers; only those with a valid token count, so that nobody else can empty the
    table."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Raises TooMany."""
        key, now = hashlib.blake2b(caller.encode(), digest_size=16).digest(), self._clock()
        left, at = self._left.pop(key, (float(BURST), now))
        left = min(float(BURST), left + (now - at) * PER_SECOND)
        self._left[key] = (max(left - 1, 0.0), now)
        if len(self._left) > KEPT:
            self._left.popitem(last=False)
        if left < 1:
            raise TooMany("too many requests with this token; try again later")


async def read(request: web.Request) -> bytes:
    """The whole body. Raises ValueError if it is too long."""
    return await bodies.whole(request.content.iter_any(), MAX_BODY)


class CaService:
    def __init__(
        self,
        client: Client,
        authority: Authority,
        trust_domain: str,
        ttl: timedelta = DEFAULT_TTL,
        external: External | None = None,
        measures: Measures | None = None,
        machines: Callable[[str, str], bool] = lambda *_: False,
    ) -> None:
        """``external`` signs in the place of ``authority``, if there is one. ``machines``: whether machines run under
        an account (namespace, name); they may renew by the certificate that they have."""
        self._external, self._machines = external, machines
        self._client, self._authority, self._trust_domain, self._ttl = client, authority, trust_domain, ttl
        self._gate, self._rates = asyncio.Semaphore(AT_ONCE), Rates()
        self._measures = measures or Measures()

    async def who(self, request: web.Request) -> Identity:
        """The identity of a token's bearer; that of a machine's certificate, since nobody renews its token. Raises
        Refused, KubeError, OSError."""
        try:
            return await self.whose(_token(request))
        except Refused:
            shown = self._shown(request)
            if shown is None:
                raise
            return shown

    def _shown(self, request: web.Request) -> Identity | None:
        """The identity in the certificate that the client has shown, which TLS has verified, if it is a machine's."""
        peer = (request.transport.get_extra_info("peercert") if request.transport else None) or {}
        try:
            (uri,) = [value for kind, value in peer.get("subjectAltName", ()) if kind == "URI"]
            found = parse(uri)
        except ValueError:
            return None
        mine = found.trust_domain == self._trust_domain and self._machines(found.namespace, found.service_account)
        return found if mine else None

    async def whose(self, token: str) -> Identity:
        """Raises Refused, KubeError, OSError."""
        if not token:
            raise Refused("a service account token is required")
        spec = {"token": token, "audiences": [AUDIENCE]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        async with self._gate:
            review = await self._client.request(kinds.TOKEN_REVIEW, "", "", "", body)
        return identity(review, self._trust_domain)

    async def sign(self, request: web.Request) -> web.Response:
        """``{"csr": PEM, "signer"}`` with a bearer token -> ``{"certificate", "root", "identity"}``."""
        self._measures.requested.add()
        try:
            body = jsons.loads(await read(request))
            who = await self.who(request)
            self._rates.take(_token(request) or str(who))
            certificate = await self._signed(str(body["csr"]), who, str(body.get("signer") or ""))
        except (Refused, ValueError, KeyError, TypeError, AttributeError) as e:
            refused = isinstance(e, Refused)
            (self._measures.unauthenticated if refused else self._measures.unreadable).add()
            log.warning("certificate refused to %s: %s", request.remote, e)
            status = 429 if isinstance(e, TooMany) else 403 if refused else 400
            return web.json_response({"error": str(e)}, status=status)
        except (KubeError, OSError) as e:
            return web.json_response({"error": f"no certificate can be issued now: {e}"}, status=503)
        self._measures.issued.add()
        log.info("certificate for %s", who)
        return web.json_response({"certificate": certificate, "root": self._authority.root, "identity": str(who)})

    async def _signed(self, csr: str, who: Identity, signer: str) -> str:
        if self._external is not None:
            return await self._external.sign(csr, who, signer, self._ttl)
        return self._authority.sign(csr, who, times.now(), self._ttl)

    async def roots(self, request: web.Request) -> web.Response:
        """``{}`` with a bearer token -> ``{"root"}``, for machines, which have no ConfigMap."""
        try:
            await self.who(request)
        except Refused as e:
            return web.json_response({"error": str(e)}, status=403)
        except (KubeError, OSError) as e:
            return web.json_response({"error": f"the token cannot be checked now: {e}"}, status=503)
        return web.json_response({"root": self._authority.root})


def _token(request: web.Request) -> str:
    """Empty if there is none."""
    header = request.headers.get("Authorization", "")
    return header.removeprefix("Bearer ").strip() if header.startswith("Bearer ") else ""
