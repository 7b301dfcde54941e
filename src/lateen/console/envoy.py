"""A proxy's configuration as the tables of proxy-config, and as a whole dump.

The console queries istiod, which has the configuration of each proxy (without private keys), with a token of its own
for istiod. It does so for users whose token may read the pods of the namespace.
"""

from __future__ import annotations

import os
from pathlib import Path

import aiohttp
from aiohttp import web

from lateen.console import shapes
from lateen.console.answers import answer, why
from lateen.console.identity import Identity, may, refused
from lateen.dump import ConfigDump, DumpError, secrets, tables
from lateen.kit import bodies, jsons, times
from lateen.kit.jsons import Json
from lateen.kube.client import KubeError, Unreachable

TOKEN = Path("/var/run/secrets/tokens/istio-token")
ISTIOD = "http://istiod.istio-system:15014"
LIMIT_S = 10.0
MAX_DUMP = 64 * 1024 * 1024


class Istiod:
    """Queries istiod for the configuration of proxies."""

    def __init__(self) -> None:
        self._url = os.environ.get("ISTIOD_URL", ISTIOD).rstrip("/")
        self._token = Path(os.environ.get("ISTIOD_TOKEN", str(TOKEN)))

    async def dump(self, proxy: str) -> Json:
        """Raises HTTPBadGateway and HTTPNotFound."""
        try:
            headers = {"Authorization": f"Bearer {self._token.read_text().strip()}"}
            limit = aiohttp.ClientTimeout(total=LIMIT_S)
            # the user may read exactly this pod, not another one whose name contains its name
            query = {"proxyID": proxy, "exactly": "true", "include_eds": "true"}
            async with (
                aiohttp.ClientSession(timeout=limit, headers=headers) as session,
                session.get(f"{self._url}/debug/config_dump", params=query) as found,
            ):
                body = await bodies.whole(found.content.iter_any(), MAX_DUMP)
        except OSError as e:
            raise web.HTTPBadGateway(text=f"istiod does not answer ({why(e)}); is it running? lateen check") from None
        except (aiohttp.ClientError, TimeoutError) as e:
            raise web.HTTPBadGateway(text=f"istiod does not answer ({why(e)}); lateen check") from None
        except bodies.TooLong:
            says = f"the configuration of {proxy} has more than {MAX_DUMP >> 20} MB; read it with lateen proxy-config"
            raise web.HTTPBadGateway(text=says) from None
        if found.status == 404:
            raise web.HTTPNotFound(text=f"the proxy of {proxy} is not connected to istiod; lateen proxy-status")
        if found.status != 200:
            raise web.HTTPBadGateway(text=f"istiod answered {found.status}: {body[:300].decode(errors='replace')}")
        try:
            return dict(jsons.loads(body))
        except (ValueError, TypeError):
            raise web.HTTPBadGateway(text="istiod's answer is not JSON") from None


class Envoy:
    def __init__(self, identity: Identity, istiod: Istiod) -> None:
        self._identity, self._istiod = identity, istiod

    def routes(self, root: str) -> list[web.RouteDef]:
        return [web.get(f"{root}/envoy/{{namespace}}/{{pod}}", self._page)]

    async def _page(self, request: web.Request) -> web.Response:
        namespace, pod = request.match_info["namespace"], request.match_info["pod"]
        async with self._identity.client(request) as client:
            try:
                allowed = await may(client, "get", "", "pods", namespace)
            except (KubeError, Unreachable) as e:
                raise refused(e) from None
        if not allowed:
            raise web.HTTPForbidden(text=f"your account may not read the pods of namespace {namespace}")
        try:
            return answer(page(await self._istiod.dump(f"{pod}.{namespace}")))
        except DumpError as e:
            raise web.HTTPBadGateway(text=f"istiod's answer {e}") from None


def page(value: Json) -> shapes.EnvoyPage:
    """Raises DumpError."""
    dump = ConfigDump(value)
    found: list[shapes.EnvoyTable] = [
        _table("Clusters", tables.CLUSTER, tables.clusters(dump)),
        _table("Listeners", tables.LISTENER, tables.listeners(dump)),
        _table("Routes", tables.ROUTE, tables.routes(dump)),
        _table("Endpoints", tables.ENDPOINT_CONFIG, tables.endpoint_configs(dump)),
        _table("Secrets", tables.SECRET, secrets.rows(dump, times.now())),
        _table("Filters", tables.EXTENSION, tables.extensions(dump)),
    ]
    return {"tables": found, "config": jsons.pretty(dump.value)}


def _table(title: str, columns: list[str], rows: list[tuple[list[str], Json]]) -> shapes.EnvoyTable:
    return {"title": title, "columns": columns, "rows": [row for row, _ in rows]}
