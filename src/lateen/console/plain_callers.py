"""The page's list of plaintext callers, like that of ``lateen x authz plaintext``."""

from __future__ import annotations

import asyncio
import time
import weakref

import aiohttp
from aiohttp import web

from lateen.console import calls, plaintext, shapes
from lateen.console.answers import answer, why
from lateen.kit import bodies, jsons
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient, KubeError, Unreachable

SECONDS = 3600
"""How far back to look, in seconds."""
KEPT_S = 10.0
"""Seconds that a response is cached, because each one reads logs."""
LIMIT_S = 15.0
MAX_ANSWER = 32 * 1024 * 1024


class PlainCallers:
    def __init__(self, client: HttpClient, collector: str, root: str) -> None:
        """``collector``: its URL; ``root``: the namespace of the control plane."""
        self._client, self._collector, self._root = client, collector, root
        self._locks: weakref.WeakValueDictionary[tuple[str, int], asyncio.Lock] = weakref.WeakValueDictionary()
        """One for each question that somebody waits for: who asks the same waits for the same answer."""
        self._kept: dict[tuple[str, int], tuple[float, list[shapes.PlainCalls] | str]] = {}
        """(namespace, how many logs) -> when somebody has looked, and what there was, or why it failed: failures take
        longest."""

    def routes(self, root: str) -> list[web.RouteDef]:
        return [web.get(f"{root}/plaintext", self._list)]

    async def _list(self, request: web.Request) -> web.Response:
        """Of the services of one ``namespace``, or of all. ``logs=all`` reads the logs of all of their pods."""
        logs = plaintext.ALL_PODS if request.query.get("logs") == "all" else plaintext.PODS
        key = request.query.get("namespace", ""), logs
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            self._kept = {k: kept for k, kept in self._kept.items() if time.monotonic() - kept[0] <= KEPT_S}
            if key not in self._kept:
                found = await self._look(*key)
                self._kept[key] = time.monotonic(), found
            kept = self._kept[key][1]
        if isinstance(kept, str):
            raise web.HTTPBadGateway(text=kept)
        return answer(kept)

    async def _look(self, namespace: str, logs: int) -> list[shapes.PlainCalls] | str:
        """Or why it failed."""
        try:
            return rows(await plaintext.look(self._client, self._ask, self._root, SECONDS, namespace, logs=logs))
        except (KubeError, Unreachable) as e:
            return str(e)
        except bodies.TooLong:
            return f"the collector's answer has more than {MAX_ANSWER >> 20} MB: too many services have such callers"
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as e:
            return f"the collector does not answer ({why(e)}); install it with: lateen addons apply"

    async def _ask(self, query: str, seconds: int, step: int) -> list[Json]:
        asked = calls.asked(query, seconds, step, time.time())
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_S)) as session,
            session.get(f"{self._collector}/api/v1/query_range", params=asked) as found,
        ):
            body = jsons.loads(await bodies.whole(found.content.iter_any(), MAX_ANSWER))
        result = dig(body if isinstance(body, dict) else {}, "data", "result")
        if not isinstance(result, list):
            raise ValueError("its answer has no series")
        return result


def rows(found: plaintext.Found) -> list[shapes.PlainCalls]:
    return [
        {
            "namespace": namespace,
            "service": name,
            "calls": round(max(seen.times, 1)),
            "last": seen.last,
            "unread": seen.unread,
            "callers": [
                {"name": found.names.get(address, address), "port": port, "last": last}
                for (address, port), last in sorted(seen.callers.items(), key=lambda item: item[1], reverse=True)
            ],
        }
        for (namespace, name), seen in sorted(found.services.items())
    ]
