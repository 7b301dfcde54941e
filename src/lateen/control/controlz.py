"""ControlZ: log levels of a running istiod, on the loopback interface of its pod.

``istioctl admin log`` and ``istioctl dashboard controlz`` reach it by port-forward. Source: istio.io/istio,
``pkg/ctrlz/topics/scopes.go``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from html import escape

from aiohttp import web

from lateen import __version__
from lateen.control.monitoring import from_inside
from lateen.kit import jsons
from lateen.kit import log as logs
from lateen.kit.jsons import Json

Answer = Callable[[web.Request], Awaitable[web.Response]]

NO_STACKS = "none"
"""The level from which on messages have stack traces; messages about exceptions always have them, others never."""


def routes() -> list[web.RouteDef]:
    return [
        web.get("/", _inside(_home)),
        web.get("/scopez/", _inside(_home)),
        web.get("/scopej/", _inside(_scopes)),
        web.get("/scopej", _inside(_scopes)),
        web.get("/scopej/{scope}", _inside(_scope)),
        web.put("/scopej/{scope}", _inside(_set_scope)),
        web.get("/versionj/", _inside(_version)),
    ]


def _inside(answer: Answer) -> Answer:
    async def answered(request: web.Request) -> web.Response:
        if not from_inside(request):
            return _error(403, "ControlZ accepts only requests to the host localhost")
        return await answer(request)

    return answered


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def shown(scope: str) -> str:
    """A scope's name in ControlZ: istioctl does not accept dots."""
    return scope.replace(".", "-")


def _scope_of(request: web.Request) -> str:
    return request.match_info["scope"].replace("-", ".")


def _info(scope: Json) -> Json:
    return {
        "name": shown(scope["scope"]),
        "description": scope["description"],
        "output_level": scope["level"],
        "stack_trace_level": NO_STACKS,
        "log_callers": False,
    }


async def _scopes(_: web.Request) -> web.Response:
    return web.json_response([_info(s) for s in logs.scopes()])


async def _scope(request: web.Request) -> web.Response:
    name = _scope_of(request)
    found = next((s for s in logs.scopes() if s["scope"] == name), None)
    return _error(400, f"unknown scope name: {name}") if found is None else web.json_response(_info(found))


async def _set_scope(request: web.Request) -> web.Response:
    """``{"output_level"}``: debug, info, warn, error or none."""
    try:
        body = jsons.loads(await request.read())
        stacks = body.get("stack_trace_level") or NO_STACKS
        if stacks != NO_STACKS or body.get("log_callers"):
            return _error(400, "stack trace levels and log_callers are not supported; set output_level alone")
        if level := body.get("output_level"):
            logs.set_level(_scope_of(request), str(level))
    except (ValueError, AttributeError) as e:
        return _error(400, str(e))
    return web.Response(status=202)


async def _version(_: web.Request) -> web.Response:
    return web.json_response({"version": __version__})


async def _home(_: web.Request) -> web.Response:
    rows = "".join(
        f"<tr><td>{escape(shown(s['scope']))}</td><td>{escape(s['description'])}</td><td>{escape(s['level'])}</td></tr>"
        for s in logs.scopes()
    )
    return web.Response(
        text=f"<!doctype html><title>istiod</title><h1>istiod {escape(__version__)}</h1><table><tr><th>Scope</th>"
        f"<th>Description</th><th>Level</th></tr>{rows}</table>"
        "<p>Change a level: istioctl admin log --level SCOPE:LEVEL",
        content_type="text/html",
    )
