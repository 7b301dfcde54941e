"""The agent's port: readiness, merged metrics, probes of the application, and commands from inside the pod."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from lateen.agent.metrics import Metrics
from lateen.agent.probing import Prober
from lateen.agent.tap import Tap
from lateen.kit import http
from lateen.wire import labels, ports
from lateen.wire import tap as looking

TEXT = {"content-type": "text/plain; version=0.0.4"}

LOCAL_ONLY = ("/drain", "/quitquitquit", looking.PATH)
"""Paths with which the proxy can be stopped, or its requests observed. Istio, too, serves the first two only on the
loopback interface (``pilot/cmd/pilot-agent/status/server.go``)."""


def from_inside(peer: str) -> bool:
    """Whether a request comes from the pod itself. The guards are also loopback addresses, but the proxy uses them for
    traffic from other pods."""
    return peer == "::1" or (peer.startswith("127.") and peer != ports.GUARD)


def _scraper(request: http.Request) -> str:
    """The name of a Prometheus, or of a collector that scrapes like one: all of them say how long they wait. What they
    have seen at one port they have not seen at the other."""
    if "x-prometheus-scrape-timeout-seconds" not in request.headers:
        return ""
    behind = request.headers.get(labels.PEER_HEADER, "")[:64] if from_inside(request.peer) else ""
    return f"{behind or request.peer} {request.path.partition('?')[0]}"


class Server:
    """``ready``: None, or what is missing. ``drain`` and ``quit`` implement the commands of these names."""

    def __init__(
        self,
        metrics: Metrics,
        prober: Prober,
        tap: Tap,
        ready: Callable[[], Awaitable[str | None]],
        drain: Callable[[], Awaitable[None]],
        stop: Callable[[], None],
    ) -> None:
        self._metrics, self._prober, self._tap = metrics, prober, tap
        self._ready, self._drain, self._quit = ready, drain, stop

    async def handle(self, request: http.Request) -> http.Response:
        path = request.path.partition("?")[0]
        if path in LOCAL_ONLY and not from_inside(request.peer):
            return http.Response(403, b"only from inside the pod\n")
        match (request.method, path):
            case (_, "/healthz/ready"):
                missing = await self._ready()
                return http.Response(503, missing.encode()) if missing else http.Response(200)
            case (_, _) if path.startswith(("/app-health/", "/app-lifecycle/")):
                return await self._prober.handle(path, request.headers)
            case ("GET", "/stats/prometheus" | "/metrics"):
                return http.Response(200, await self._metrics_of(request), TEXT)
            case ("GET", labels.ENVOY_METRICS_PATH):
                found = await self._metrics.envoy(request.path.partition("?")[2], _scraper(request))
                return (
                    http.Response(200, found, TEXT)
                    if found is not None
                    else http.Response(503, b"Envoy does not answer\n")
                )
            case ("GET", looking.PATH):
                return self._tap.answer(request.path)
            case ("POST", "/drain"):
                await self._drain()
                return http.Response(200)
            case ("POST", "/quitquitquit"):
                self._quit()
                return http.Response(200)
            case (_, _) if path in LOCAL_ONLY:
                return http.Response(405, b"use POST (drain, quitquitquit) or GET (tap)\n")
        return http.Response(404)

    async def _metrics_of(self, request: http.Request) -> bytes:
        """All, or with ``only`` those that the collector asks for."""
        asked = parse_qs(request.path.partition("?")[2])
        idle = "idle" in asked
        match asked.get("only"):
            case ["istio"]:
                return await self._metrics.graph(idle)
            case ["standard"]:
                return await self._metrics.standard(idle)
        return await self._metrics.all(_scraper(request))
