"""istiod's metrics, readiness and debug paths."""

from __future__ import annotations

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


class Readiness:
    """Whether everything is known and every port is open."""

    ready = False


def monitoring(control: Control, ca: CaService, hooks: Webhooks, readiness: Readiness) -> list[web.RouteDef]:
    """Metrics and readiness for everybody; debug only with a token for it."""

    async def is_ready(_: web.Request) -> web.Response:
        return web.Response(status=200 if readiness.ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=control.metrics(ca, hooks), content_type="text/plain")

    async def syncz(request: web.Request) -> web.Response:
        if (refused := await _refused(control.client, request)) is not None:
            return refused
        return web.json_response(
            {
                "proxies": control.status(),
                "bad": {str(ref): says for ref, says in control.world.bad.items()},
                "unreadSecrets": sorted(control.credentials.refused),
                "version": __version__,
            }
        )

    async def configz(request: web.Request) -> web.Response:
        if (refused := await _refused(control.client, request)) is not None:
            return refused
        found = control.config_of(request.query.get("proxy", ""))
        if found is None:
            return web.json_response({"error": f"no proxy {request.query.get('proxy')} is connected"}, status=404)
        return web.json_response(found)

    async def distribution(request: web.Request) -> web.Response:
        """Of ``object`` (``Kind namespace/name``): how many proxies of this istiod have it, of those it concerns."""
        if (refused := await _refused(control.client, request)) is not None:
            return refused
        far = reach(control.ads.connections).get(request.query.get("object", ""), Reach())
        return web.json_response(
            {
                "have": far.have,
                "concerned": far.concerned,
                "refused": [{"proxy": p, "says": says} for p, says in far.refused],
            }
        )

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
        web.get("/debug/distribution", distribution),
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
