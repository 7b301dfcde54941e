"""istiod's monitoring port: metrics, readiness and versions for everybody, debug pages for authorized clients."""

from __future__ import annotations

import ipaddress

from aiohttp import web

from lateen import __version__
from lateen.ads.debug import NotAnswered
from lateen.ca.authority import Refused
from lateen.control.ca_service import CaService, bearer
from lateen.control.debug import INSIDE, Caller, Debug, PageError
from lateen.control.plane import Control
from lateen.kube.client import KubeError


class Readiness:
    """Whether all objects have been read and every port is open."""

    ready = False


class Monitoring:
    """Debug pages need a token for istiod (audience ``istio-ca``), except from inside of istiod's own pod."""

    def __init__(self, control: Control, ca: CaService, readiness: Readiness, debug: Debug) -> None:
        self._control, self._ca, self._readiness, self._debug = control, ca, readiness, debug

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/ready", self._ready),
            web.get("/metrics", self._metrics),
            web.get("/version", self._version),
            web.get("//version", self._version),  # istioctl sends such paths; Go's servers clean them
            web.get("/debug/{page}", self._page),
            web.get("//debug/{page}", self._page),
        ]

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._readiness.ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._control.measures.registry.text(), content_type="text/plain", charset="utf-8")

    async def _version(self, _: web.Request) -> web.Response:
        """In istioctl's format: version-commit-status."""
        return web.Response(text=f"{__version__}-lateen-Clean")

    async def _page(self, request: web.Request) -> web.Response:
        name = request.match_info["page"]
        try:
            caller = await self._caller(request)
            return web.json_response(self._debug.page(name, request.query, caller))
        except (Refused, NotAnswered) as e:
            return web.json_response({"error": f"debug pages need a token for istiod: {e}"}, status=401)
        except PageError as e:
            return web.Response(text=e.text, status=e.status)
        except (KubeError, OSError) as e:
            return web.json_response({"error": f"the token cannot be verified at the moment: {e}"}, status=503)

    async def _caller(self, request: web.Request) -> Caller:
        """Raises Refused, NotAnswered, KubeError, OSError."""
        if from_inside(request):
            return INSIDE
        return self._debug.caller(str(await self._ca.whose(bearer(request))))


def from_inside(request: web.Request) -> bool:
    """Whether a request came to the loopback interface of the pod: checks the address and the Host header, because a
    web page can make a browser call any name whose address it controls (DNS rebinding)."""
    host = request.host.rpartition(":")[0] if request.host.count(":") == 1 else request.host
    named = host in ("localhost", "127.0.0.1") or host.startswith("[::1]")
    try:
        return named and ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False
