"""istiod's metrics, readiness and debug paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from lateen import __version__
from lateen.api import kinds
from lateen.control.ca_service import CaService
from lateen.control.plane import DEBUG_AUDIENCE, Control
from lateen.control.reach import Reach, reach
from lateen.control.webhooks import Webhooks
from lateen.kit import log as logs
from lateen.kit.jsons import dig
from lateen.kube.client import Client

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Readiness:
    """Whether everything is known and every port is open."""

    ready = False


class Monitoring:
    """Metrics, readiness and versions for everybody; debug only with a token for it."""

    def __init__(self, control: Control, ca: CaService, hooks: Webhooks, readiness: Readiness) -> None:
        self._control, self._ca, self._hooks, self._readiness = control, ca, hooks, readiness

    def routes(self) -> list[web.RouteDef]:
        guarded = {
            "syncz": self._syncz,
            "configz": self._configz,
            "distribution": self._distribution,
            "logging": self._scopes,
        }
        return [
            web.get("/ready", self._ready),
            web.get("/metrics", self._metrics),
            web.get("/version", self._version),
            web.get("//version", self._version),  # istioctl asks so; Go's servers clean paths
            web.get("/debug/clusterz", self._clusters),
            *(web.get(f"/debug/{name}", self._guarded(answer)) for name, answer in guarded.items()),
        ]

    def _guarded(self, answer: Answer) -> Answer:
        async def guarded(request: web.Request) -> web.StreamResponse:
            refused = await _refused(self._control.client, request)
            return await answer(request) if refused is None else refused

        return guarded

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._readiness.ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._control.metrics(self._ca, self._hooks), content_type="text/plain")

    async def _version(self, _: web.Request) -> web.Response:
        """As istioctl reads it: version-commit-status."""
        return web.Response(text=f"{__version__}-lateen-Clean")

    async def _clusters(self, _: web.Request) -> web.Response:
        """The remote clusters that istiod knows, for ``istioctl remote-clusters``: it has its own one only."""
        return web.json_response([])

    async def _syncz(self, _: web.Request) -> web.Response:
        control = self._control
        return web.json_response(
            {
                "proxies": control.status(),
                "bad": {str(ref): says for ref, says in control.world.bad.items()},
                "unreadSecrets": sorted(control.credentials.refused),
                "version": __version__,
            }
        )

    async def _configz(self, request: web.Request) -> web.Response:
        found = self._control.config_of(request.query.get("proxy", ""))
        if found is None:
            return web.json_response({"error": f"no proxy {request.query.get('proxy')} is connected"}, status=404)
        return web.json_response(found)

    async def _distribution(self, request: web.Request) -> web.Response:
        """Of ``object`` (``Kind namespace/name``): how many proxies of this istiod have it, of those it concerns."""
        far = reach(self._control.ads.connections).get(request.query.get("object", ""), Reach())
        refused = [{"proxy": p, "says": says} for p, says in far.refused]
        return web.json_response({"have": far.have, "concerned": far.concerned, "refused": refused})

    async def _scopes(self, request: web.Request) -> web.Response:
        try:
            for name, level in request.query.items():
                logs.set_level(name, level)
        except ValueError as e:
            return web.json_response({"error": str(e)}, status=400)
        return web.json_response({"scopes": logs.scopes()})


async def _refused(client: Client, request: web.Request) -> web.Response | None:
    """Debug paths need a token for them."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    spec = {"token": token, "audiences": [DEBUG_AUDIENCE]}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    review = await client.request(kinds.TOKEN_REVIEW, "", "", "", body)
    if dig(review, "status", "authenticated"):
        return None
    return web.json_response({"error": f"a token for the audience {DEBUG_AUDIENCE} is required"}, status=401)
