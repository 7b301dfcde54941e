"""Issues certificates for service account tokens, over HTTPS."""

from __future__ import annotations

import logging
from datetime import timedelta

from aiohttp import web

from lateen.api import kinds
from lateen.ca.authority import AUDIENCE, DEFAULT_TTL, Authority, Identity, Refused, identity
from lateen.kit import bodies, jsons, times
from lateen.kube.client import Client, KubeError

log = logging.getLogger("lateen.control.ca")

MAX_BODY = 256 * 1024


async def read(request: web.Request) -> bytes:
    """The whole body. Raises ValueError if it is too long."""
    return await bodies.whole(request.content.iter_any(), MAX_BODY)


class CaService:
    def __init__(self, client: Client, authority: Authority, trust_domain: str, ttl: timedelta = DEFAULT_TTL) -> None:
        self._client, self._authority, self._trust_domain, self._ttl = client, authority, trust_domain, ttl
        self.issued = self.refused = 0

    def metrics(self) -> str:
        return (
            f"citadel_server_csr_count {self.issued + self.refused}\n"
            f"citadel_server_success_cert_issuance_count {self.issued}\n"
            f"citadel_server_authentication_failure_count {self.refused}\n"
        )

    async def who(self, request: web.Request) -> Identity:
        """The identity of a token's bearer. Raises Refused, KubeError, OSError."""
        header = request.headers.get("Authorization", "")
        return await self.whose(header.removeprefix("Bearer ").strip() if header.startswith("Bearer ") else "")

    async def whose(self, token: str) -> Identity:
        """Raises Refused, KubeError, OSError."""
        if not token:
            raise Refused("a service account token is required")
        review = await self._client.request(
            kinds.TOKEN_REVIEW,
            "",
            "",
            "",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [AUDIENCE]},
            },
        )
        return identity(review, self._trust_domain)

    async def sign(self, request: web.Request) -> web.Response:
        """``{"csr": PEM}`` with a bearer token -> ``{"certificate", "root", "identity"}``."""
        try:
            body = jsons.loads(await read(request))
            who = await self.who(request)
            certificate = self._authority.sign(str(body["csr"]), who, times.now(), self._ttl)
        except (Refused, ValueError, KeyError, TypeError) as e:
            self.refused += 1
            log.warning("certificate refused to %s: %s", request.remote, e)
            return web.json_response({"error": str(e)}, status=403 if isinstance(e, Refused) else 400)
        except (KubeError, OSError) as e:
            return web.json_response({"error": f"the token cannot be checked now: {e}"}, status=503)
        self.issued += 1
        log.info("certificate for %s", who)
        return web.json_response({"certificate": certificate, "root": self._authority.root, "identity": str(who)})
