"""Issues certificates for service account tokens, over HTTPS."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from aiohttp import web

from lateen.api import kinds
from lateen.ca.authority import AUDIENCE, DEFAULT_TTL, Authority, Identity, Refused, bound, identity, parse
from lateen.control.clusters import Clusters, NotServed
from lateen.control.external import External
from lateen.control.measures import Measures
from lateen.kit import bodies, certs, jsons, times
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError
from lateen.wire.node import CLUSTER_HEADER

log = logging.getLogger("lateen.control.ca")

MAX_BODY = 256 * 1024
AT_ONCE = 64
"""The number of concurrent token reviews per path and API server; further requests wait."""
REMOTE_S = 5.0
"""The timeout of a token review by another cluster's API server. There is no queue for those: the cluster is only the
caller's claim, and one that does not answer must not delay other requests."""
BURST, PER_SECOND = 20, 0.5
"""Rate limit per caller: burst, and certificates per second. An agent needs one every few hours."""
HEARD_S, LOOK_S = 1.0, 0.05
"""How long issuing waits for the pod to become known, and the polling interval, in seconds."""
KEPT = 20_000
"""The number of callers whose rates are kept."""


class TooMany(Refused):
    """A caller exceeds its rate limit."""


class Rates:
    """A token bucket for each recent caller; only callers with a valid token or certificate are counted, so that nobody
    else can flush the table."""

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
            raise TooMany("too many requests; try again later")


@dataclass(frozen=True)
class Caller:
    identity: Identity
    group: str = ""
    """The WorkloadGroup of a machine."""
    pod: str = ""
    """The pod's name, if the token belongs to a pod."""
    counted: str = ""
    """The key for its rate limit: its token, or without one the certificate's identity and the address. Not the
    certificate, since each request creates another one."""
    cluster: str = ""
    """The cluster whose API server has authenticated it; empty for istiod's own."""


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
        machines: Callable[[str, str, str], bool] = lambda *_: False,
        aliases: Callable[[], tuple[str, ...]] = lambda: (),
        describes: Callable[[str, str, str], str] = lambda *_: "",
        clusters: Clusters | None = None,
    ) -> None:
        """``external`` signs instead of ``authority``, if there is one. ``machines``: whether machines of a
        WorkloadGroup (namespace, name) use a service account; they may renew with their current certificate.
        ``aliases``: aliases of the trust domain. ``describes``: the description of a pod (cluster, namespace, name)
        in its certificate, for the metrics of its peers (``wire.labels``); empty for a pod that is not known
        (yet). ``clusters``: the other clusters, whose API servers review the tokens of their pods."""
        self._clusters = clusters
        self._external, self._machines, self._aliases, self._describes = external, machines, aliases, describes
        self._client, self._authority, self._trust_domain, self._ttl = client, authority, trust_domain, ttl
        self._gates: defaultdict[tuple[str, str], asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        """By (cluster, path), so that requests of one kind, or for one cluster, do not delay others."""
        self._rates = Rates()
        self._measures = measures or Measures()

    async def caller(self, request: web.Request, group: str = "") -> Caller:
        """Authenticate by token, or by a machine's certificate (machines' tokens are not renewed). ``group``: the
        WorkloadGroup that the caller claims. A pod's token is bound to the pod, so its bearer cannot be a machine of a
        group, even with the same service account. Raises Refused, KubeError, OSError."""
        claimed = request.headers.get(CLUSTER_HEADER, "")
        cluster = self._home(claimed)
        try:
            review = await self._review(bearer(request), cluster, request.path)
        except Refused:
            shown = self._shown(request)
            if shown is None:
                raise
            return shown
        except (KubeError, OSError) as e:
            if cluster:
                raise OSError(f"the API server of the cluster {cluster}: {e}") from e
            raise
        who = identity(review, self._trust_domain)
        machine = bool(group) and not bound(review) and self._machines(who.namespace, group, who.service_account)
        return Caller(who, group if machine else "", bound(review), bearer(request), cluster)

    def _home(self, claimed: str) -> str:
        """See ``Clusters.home``. Raises Refused."""
        try:
            return self._clusters.home(claimed) if self._clusters else ""
        except NotServed as e:
            raise Refused(str(e)) from None

    def _api(self, cluster: str) -> Client:
        """The client for a cluster (see ``_home``). Raises OSError if it is unavailable."""
        try:
            return self._clusters.client(cluster) if self._clusters and cluster else self._client
        except NotServed as e:
            raise OSError(str(e)) from None

    def _shown(self, request: web.Request) -> Caller | None:
        """The caller by its client certificate, which TLS has verified, if it was issued to a machine of a
        WorkloadGroup that still exists."""
        link = request.transport.get_extra_info("ssl_object") if request.transport else None
        if link is None:
            return None
        try:
            peer: dict[str, Any] = link.getpeercert() or {}
            (uri,) = [value for kind, value in peer.get("subjectAltName", ()) if kind == "URI"]
            found, group = parse(uri), certs.machine(link.getpeercert(True))
        except ValueError:
            return None
        mine = found.trust_domain in (self._trust_domain, *self._aliases())
        if not mine or not group or not self._machines(found.namespace, group, found.service_account):
            return None
        who = replace(found, trust_domain=self._trust_domain)
        return Caller(who, group, counted=f"{who} {group} {request.remote}")

    async def whose(self, token: str) -> Identity:
        """The identity of a token of istiod's own cluster. Raises Refused, KubeError, OSError."""
        return identity(await self._review(token), self._trust_domain)

    async def _review(self, token: str, cluster: str = "", path: str = "") -> Json:
        """The TokenReview of a valid token; ``path``: the request's. Raises Refused, KubeError, OSError."""
        if not token:
            raise Refused("a service account token is required")
        spec = {"token": token, "audiences": [AUDIENCE]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        api, gate = self._api(cluster), self._gates[cluster, path]
        if cluster and gate.locked():
            raise OSError("too many tokens are being reviewed")
        limit = asyncio.timeout(REMOTE_S if cluster else None)
        try:
            async with limit, gate:
                found = await api.request(kinds.TOKEN_REVIEW, "", "", "", body)
        except TimeoutError:
            if limit.expired():
                raise OSError(f"no answer within {REMOTE_S:.0f} s") from None
            raise
        identity(found, self._trust_domain)
        return found

    async def sign(self, request: web.Request) -> web.Response:
        """``{"csr": PEM, "signer", "group"}`` with a bearer token -> ``{"certificate", "identity"}`` and what
        ``roots`` answers."""
        self._measures.requested.add()
        try:
            body = jsons.loads(await read(request))
            caller = await self.caller(request, str(body.get("group") or ""))
            who = caller.identity
            self._rates.take(caller.counted)
            certificate = await self._signed(str(body["csr"]), caller, str(body.get("signer") or ""))
        except (Refused, ValueError, KeyError, TypeError, AttributeError) as e:
            refused = isinstance(e, Refused)
            (self._measures.unauthenticated if refused else self._measures.unreadable).add()
            log.warning("certificate refused to %s: %s", request.remote, e)
            status = 429 if isinstance(e, TooMany) else 403 if refused else 400
            return web.json_response({"error": str(e)}, status=status)
        except (KubeError, OSError) as e:
            return web.json_response({"error": f"no certificate can be issued at the moment: {e}"}, status=503)
        self._measures.issued.add()
        log.info("certificate for %s", who)
        return web.json_response({"certificate": certificate, **self._told(), "identity": str(who)})

    def _told(self) -> Json:
        told = self._authority.told
        return {"root": told.root, "crl": told.crl, "domains": told.domains}

    async def _signed(self, csr: str, caller: Caller, signer: str) -> str:
        """Sign a request. External signers do not mark machines, which therefore need a token for each renewal."""
        try:
            if self._external is not None:
                return await self._external.sign(csr, caller.identity, signer, self._ttl)
            description = await self._description(caller)
            return self._authority.sign(csr, caller.identity, times.now(), self._ttl, caller.group, description)
        except (KubeError, OSError):
            self._measures.unsigned.add()
            raise

    async def _description(self, caller: Caller) -> str:
        """The description of the caller's pod; waits a little, because pods may ask before istiod has seen them."""
        if not caller.pod:
            return ""
        for _ in range(round(HEARD_S / LOOK_S)):
            if found := self._describes(caller.cluster, caller.identity.namespace, caller.pod):
                return found
            await asyncio.sleep(LOOK_S)
        return ""

    async def roots(self, request: web.Request) -> web.Response:
        """``{}`` with a bearer token -> ``{"root", "crl", "domains"}`` (``ca.authority.Told``), for callers without
        a mounted ConfigMap."""
        try:
            await self.caller(request)
        except Refused as e:
            return web.json_response({"error": str(e)}, status=403)
        except (KubeError, OSError) as e:
            return web.json_response({"error": f"the token cannot be verified at the moment: {e}"}, status=503)
        return web.json_response(self._told())


def bearer(request: web.Request) -> str:
    """The bearer token; empty if there is none."""
    header = request.headers.get("Authorization", "")
    return header.removeprefix("Bearer ").strip() if header.startswith("Bearer ") else ""
