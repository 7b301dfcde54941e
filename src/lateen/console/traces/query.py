"""The HTTP APIs that traces are asked by: Jaeger's and Zipkin's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

from aiohttp import web
from multidict import MultiMapping

from lateen.console.traces import jaeger, zipkin
from lateen.console.traces.asking import Query, TooMuch
from lateen.console.traces.spans import BadSpans, trace_id
from lateen.console.traces.store import Store
from lateen.kit import duration, jsons
from lateen.kit.digits import digits
from lateen.kit.jsons import Json

T = TypeVar("T")
MAX_TRACES = 1500
WAITING, LIMIT_S = 32, 10.0
"""Questions that wait for the one thread that uses the store, and how long each may keep it."""
EVERY = "*"
DAY_US = 24 * 3600 * 1_000_000
Handler = Callable[[web.Request], Awaitable[web.Response]]


class BadQuery(ValueError):
    """A parameter that cannot be read; says which, and how to write it."""


class Busy(Exception):
    """More questions wait than may."""


REFUSED = (BadQuery, BadSpans, Busy, TooMuch)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=jsons.dumps(value), content_type="application/json")


class Queries:
    def __init__(self, store: Store, executor: Executor) -> None:
        """``executor``: the one thread that uses the store."""
        self.store, self._executor, self._waiting = store, executor, 0

    def routes(self) -> list[web.RouteDef]:
        found = [
            ("/api/services", self._services),
            ("/api/services/{service}/operations", self._operations_of),
            ("/api/operations", self._operations),
            ("/api/traces", self._traces),
            ("/api/traces/{id}", self._trace),
            ("/api/dependencies", self._dependencies),
            ("/api/dropped-headers", self._dropped),
        ]
        out = [web.get(prefix + path, _jaegers(h)) for prefix in ("", "/jaeger") for path, h in found]
        theirs = [
            ("/api/v2/services", self._zipkin_services),
            ("/api/v2/spans", self._zipkin_names),
            ("/api/v2/remoteServices", self._zipkin_remotes),
            ("/api/v2/traces", self._zipkin_traces),
            ("/api/v2/trace/{id}", self._zipkin_trace),
            ("/api/v2/traceMany", self._zipkin_many),
            ("/api/v2/dependencies", self._zipkin_dependencies),
            ("/api/v2/autocompleteKeys", self._zipkin_suggested),
            ("/api/v2/autocompleteValues", self._zipkin_suggested),
        ]
        return out + [web.get(prefix + path, _zipkins(h)) for prefix in ("", "/zipkin") for path, h in theirs]

    async def ask(self, work: Callable[..., T], *given: Any) -> T:
        """What ``work`` with the store says. Raises Busy and TooMuch."""
        if self._waiting >= WAITING:
            raise Busy("too many questions are waiting; try again later")
        self._waiting += 1
        try:
            timed = partial(self.store.within, LIMIT_S, partial(work, *given))
            return await asyncio.get_running_loop().run_in_executor(self._executor, timed)
        finally:
            self._waiting -= 1

    # --- Jaeger ------------------------------------------------------------------------------------------------------

    async def _services(self, _: web.Request) -> web.Response:
        return _json(jaeger.answer(await self.ask(self.store.services)))

    async def _operations_of(self, request: web.Request) -> web.Response:
        found = await self.ask(self.store.names, request.match_info["service"])
        return _json(jaeger.answer(sorted({name for name, _ in found})))

    async def _operations(self, request: web.Request) -> web.Response:
        service = request.query.get("service", "")
        if not service:
            raise BadQuery("service: is missing")
        kind = request.query.get("spanKind", "").upper()
        found = await self.ask(self.store.names, service, kind)
        return _json(jaeger.answer([{"name": n, "spanKind": k.lower()} for n, k in found]))

    async def _traces(self, request: web.Request) -> web.Response:
        asked = request.query
        if ids := asked.getall("traceID", []):
            if len(ids) > MAX_TRACES:
                raise BadQuery(f"traceID: at most {MAX_TRACES} traces at once")
            found = await self.ask(self.store.traces, [trace_id(i) for i in ids])
        else:
            found = await self.ask(self.store.find, jaeger_query(asked, now_us()))
        return _json(jaeger.answer([jaeger.trace(t) for t in found]))

    async def _trace(self, request: web.Request) -> web.Response:
        found = await self.ask(self.store.traces, [trace_id(request.match_info["id"])])
        if not found:
            return _json(jaeger.answer(None, [{"code": 404, "msg": "trace not found"}]), 404)
        return _json(jaeger.answer([jaeger.trace(t) for t in found]))

    async def _dependencies(self, request: web.Request) -> web.Response:
        calls = await self.ask(self.store.calls, *_window(request.query))
        return _json(jaeger.answer([{"parent": p, "child": c, "callCount": n} for p, c, n, _ in calls]))

    async def _dropped(self, request: web.Request) -> web.Response:
        """Lateen's own endpoint: services that do not propagate trace headers."""
        found = await self.ask(self.store.dropped, *_window(request.query))
        return _json(jaeger.answer([asdict(d) for d in found]))

    # --- Zipkin ------------------------------------------------------------------------------------------------------

    async def _zipkin_services(self, _: web.Request) -> web.Response:
        return _json(await self.ask(self.store.services))

    async def _zipkin_names(self, request: web.Request) -> web.Response:
        found = await self.ask(self.store.names, request.query.get("serviceName", ""))
        return _json(sorted({name for name, _ in found}))

    async def _zipkin_remotes(self, request: web.Request) -> web.Response:
        return _json(await self.ask(self.store.remotes, request.query.get("serviceName", "")))

    async def _zipkin_traces(self, request: web.Request) -> web.Response:
        found = await self.ask(self.store.find, zipkin_query(request.query, now_us()))
        return _json([[zipkin.encode(s) for s in t] for t in found])

    async def _zipkin_trace(self, request: web.Request) -> web.Response:
        found = await self.ask(self.store.traces, [trace_id(request.match_info["id"])])
        if not found:
            return web.Response(status=404, text="trace not found")
        return _json([zipkin.encode(s) for s in found[0]])

    async def _zipkin_many(self, request: web.Request) -> web.Response:
        ids = [i.strip() for i in request.query.get("traceIds", "").split(",") if i.strip()]
        if not 2 <= len(ids) <= MAX_TRACES:
            raise BadQuery(f"traceIds: between 2 and {MAX_TRACES} ids with commas between them")
        found = await self.ask(self.store.traces, [trace_id(i) for i in ids])
        return _json([[zipkin.encode(s) for s in t] for t in found])

    async def _zipkin_suggested(self, _: web.Request) -> web.Response:
        """No tag is suggested, as in Zipkin unless it is told which."""
        return _json([])

    async def _zipkin_dependencies(self, request: web.Request) -> web.Response:
        calls = await self.ask(self.store.calls, *_window(request.query))
        return _json([{"parent": p, "child": c, "callCount": n, "errorCount": e} for p, c, n, e in calls])


def _jaegers(handler: Handler) -> Handler:
    async def run(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except REFUSED as e:
            return _json(jaeger.answer(None, [{"code": _status(e), "msg": str(e)}]), _status(e))

    return run


def _zipkins(handler: Handler) -> Handler:
    async def run(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except REFUSED as e:
            return web.Response(status=_status(e), text=str(e))

    return run


def _status(e: Exception) -> int:
    return 503 if isinstance(e, Busy) else 422 if isinstance(e, TooMuch) else 400


# --- reading parameters ----------------------------------------------------------------------------------------------


def jaeger_query(asked: Mapping[str, str], now: int) -> Query:
    """``service=*``: of all services, which Jaeger cannot be asked. Raises BadQuery."""
    if not asked.get("service"):
        raise BadQuery("service: is missing")
    stop = _number(asked, "end", now)
    start = _number(asked, "start", stop - _span_us(asked, "lookback", 2 * DAY_US))
    wanted = _tags(asked)
    return Query(
        service="" if asked["service"] == EVERY else asked["service"],
        name=asked.get("operation", ""),
        kind=asked.get("spanKind", "").upper(),
        tags={k: v for k, v in wanted.items() if k != "error" or v == "false"},
        errors=wanted.get("error") == "true",
        start=start,
        stop=stop,
        shortest=_span_us(asked, "minDuration", 0),
        longest=_span_us(asked, "maxDuration", 1 << 53),
        limit=_limit(asked, 20),
    )


def zipkin_query(asked: Mapping[str, str], now: int) -> Query:
    """Raises BadQuery."""
    stop = _number(asked, "endTs", now // 1000) * 1000
    wanted = {}
    for part in filter(None, (p.strip() for p in asked.get("annotationQuery", "").split(" and "))):
        key, _, value = part.partition("=")
        wanted[key] = value
    errors = "error" in wanted and not wanted.pop("error")
    return Query(
        service=asked.get("serviceName", ""),
        remote=asked.get("remoteServiceName", ""),
        name=asked.get("spanName", ""),
        tags=wanted,
        errors=errors,
        start=stop - _number(asked, "lookback", DAY_US // 1000) * 1000,
        stop=stop,
        shortest=_number(asked, "minDuration", 0),
        longest=_number(asked, "maxDuration", 1 << 53),
        limit=_limit(asked, 10),
    )


def _window(asked: Mapping[str, str]) -> tuple[int, int]:
    """``endTs`` and ``lookback``, both in milliseconds."""
    stop = _number(asked, "endTs", now_us() // 1000) * 1000
    return stop - _number(asked, "lookback", DAY_US // 1000) * 1000, stop


def _tags(asked: Mapping[str, str]) -> dict[str, str]:
    """``tags``: JSON objects of texts; ``tag``: several ``key:value``."""
    out: Json = {}
    for text in _all(asked, "tags"):
        try:
            found = jsons.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BadQuery('tags: is not a JSON object; write {"http.status_code":"503"}')
        out |= found
    for text in _all(asked, "tag"):
        key, colon, value = text.partition(":")
        if not colon:
            raise BadQuery("tag: write key:value")
        out[key] = value
    return {str(k): str(v).lower() if isinstance(v, bool) else str(v) for k, v in out.items()}


def _all(asked: Mapping[str, str], name: str) -> list[str]:
    """What a parameter says each time that it is given."""
    given = asked.getall(name, []) if isinstance(asked, MultiMapping) else [asked.get(name, "")]
    return [text for text in given if text]


def _limit(asked: Mapping[str, str], usual: int) -> int:
    found = _number(asked, "limit", usual)
    if not 0 < found <= MAX_TRACES:
        raise BadQuery(f"limit: must be between 1 and {MAX_TRACES}")
    return found


def _number(asked: Mapping[str, str], name: str, usual: int) -> int:
    text = asked.get(name, "")
    if not text:
        return usual
    if not digits(text) or len(text) > 17:
        raise BadQuery(f'{name}: "{text[:40]}" is not a number')
    return int(text)


def _span_us(asked: Mapping[str, str], name: str, usual: int) -> int:
    """``1.2s``, ``100ms``, ``500us``; plain digits are microseconds."""
    text = asked.get(name, "")
    if not text or text == "custom":
        return usual
    if digits(text):
        return _number(asked, name, usual)
    days, d, rest = text.partition("d")
    if d and not rest and digits(days) and len(days) < 6:
        return int(days) * DAY_US
    try:
        return round(duration.seconds(text) * 1_000_000)
    except ValueError as e:
        raise BadQuery(f"{name}: {e}") from None


def now_us() -> int:
    return time.time_ns() // 1000
