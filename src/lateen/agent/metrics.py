"""Envoy's metrics under Istio's names, the agent's own and the application's, in one response for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import re
from urllib.parse import parse_qs

from lateen.agent.connections import Connections
from lateen.agent.exposition import Exposition
from lateen.agent.options import Options
from lateen.agent.own_metrics import Own
from lateen.agent.requests import Requests, Wanted, everything
from lateen.kit import http
from lateen.wire import ports
from lateen.wire.requests import HISTOGRAMS, KINDS, MESSAGES, METRICS

_STANDARD = "/stats/prometheus?usedonly&filter=%5Eistio%5C.%7Crbac%5C.istio_%28audit%7Cdry_run%29_"
"""Also what policies have matched without a consequence."""
_GRAPH = "/stats/prometheus?usedonly&filter=%5Eistio%5C.%28requests_total%7Ctcp_%7Crequest_duration%29"


_LITERAL = re.compile(r"\^?(?:[\w|]|\\\.)*", re.ASCII)


def asked(query: str) -> Wanted:
    """The metrics of requests that a query for Envoy asks for. Regular expressions are only understood as far as they
    are names, or parts of names, joined by ``|``; others are taken to ask for everything."""
    given = {key: values[0] for key, values in parse_qs(query).items()}
    types = {"counters": (*METRICS[:1], *MESSAGES), "histograms": HISTOGRAMS}
    names = KINDS if (kind := given.get("type", "all").lower()) == "all" else types.get(kind, ())
    pattern = given.get("filter", "")
    plain = pattern.removeprefix("^").replace("\\.", ".")
    parts = plain.split("|") if _LITERAL.fullmatch(pattern) else [""]
    return lambda name: name in names and any(part in f"istio.{name}" for part in parts)


def _in_graph(name: str) -> bool:
    return name in ("requests_total", "request_duration_milliseconds")


class Metrics:
    def __init__(
        self, options: Options, connections: Connections | None = None, requests: Requests | None = None
    ) -> None:
        self._options = options
        self._connections, self._requests = connections or Connections(), requests or Requests()
        self._exposition = Exposition()
        self.own = Own(options.kind, self._requests)

    def ended(self) -> None:
        """Envoy has ended, and its counters with it."""
        self.own.ended()
        self._connections.restarted()
        self._requests.restarted()
        self._exposition.restarted()

    async def all(self, scraper: str = "") -> bytes:
        """``scraper``: the name of one that computes rates (see ``Exposition``)."""
        parts: list[bytes | None] = []
        if not self._options.proxyless:
            parts.append(await self._envoy("/stats/prometheus", scraper=scraper))
        parts.append(self.own.text())
        parts += await asyncio.gather(*(_get("127.0.0.1", port, path) for port, path in self._options.scrape_targets))
        return b"\n".join(p.rstrip(b"\n") for p in parts if p) + b"\n"

    async def envoy(self, query: str, scraper: str = "") -> bytes | None:
        """Envoy's alone, for port 15090; None if it does not answer. ``query``: for it (``usedonly``, ``filter=…``);
        ``scraper``: as for ``all``."""
        if self._options.proxyless:
            return None
        found = await _get("127.0.0.1", ports.ADMIN, f"/stats/prometheus?{query}")
        return None if found is None else self._joined(found, asked(query), scraper)

    async def standard(self, idle: bool = False) -> bytes:
        """Istio's own metrics, and the agent's, without most of Envoy's and the application's. ``idle``: with those
        that are left out otherwise (see ``Exposition``), which come last."""
        return self.own.text() + await self._envoy(_STANDARD, idle=idle)

    async def graph(self, idle: bool = False) -> bytes:
        """Only the metrics needed for edges of the graph: cheap enough to be read every second. ``idle``: as for
        ``standard``."""
        return await self._envoy(_GRAPH, _in_graph, idle=idle)

    async def _envoy(self, path: str, wanted: Wanted = everything, scraper: str = "", idle: bool = False) -> bytes:
        return self._joined(await _get("127.0.0.1", ports.ADMIN, path), wanted, scraper, idle)

    def _joined(self, found: bytes | None, wanted: Wanted, scraper: str, idle: bool = False) -> bytes:
        """``found``: Envoy's metrics; requests and the bytes of open connections are added. None if it did not answer:
        what the agent has counted is there all the same, since a series that is gone for a moment would seem to begin
        anew. ``wanted``: the metrics of requests."""
        self._connections.read_now()
        self._requests.read_now()
        series = self._requests.series(wanted)
        counted = self._connections.text()
        whole = found is not None
        return self._exposition.text(found or b"", counted, series=series, whole=whole, scraper=scraper, idle=idle)


async def _get(host: str, port: int, path: str) -> bytes | None:
    """The response; None on failure, so that the other metrics are not lost."""
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        return (await http.fetch(host, port, path, timeout=5)).body
    return None
