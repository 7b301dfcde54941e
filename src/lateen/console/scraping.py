"""The processes of the mesh that have metrics, and reading them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import aiohttp

from lateen.api.reading import has_proxy
from lateen.console.metrics import began
from lateen.console.series.intake import Key, Look
from lateen.console.series.scrape import Meta, left_out, samples, target_labels
from lateen.kit import bodies
from lateen.kit.jsons import Json, dig
from lateen.wire import ports

MAX_TEXT = 32 * 1024 * 1024
"""Of a longer text, what comes first counts: the agent begins with the numbers of requests."""


@dataclass(frozen=True)
class Process:
    """A process with metrics. ``quick``: the query of its port that answers with the metrics of the graph alone; empty
    where there is none."""

    pod: Json
    port: int
    whole: str
    quick: str = ""
    first: str = ""
    """The query that answers with all, and with what is left out otherwise; empty where nothing is."""

    @property
    def name(self) -> str:
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    def url(self, whole: bool, idle: bool = False) -> str:
        address = self.pod["status"]["podIP"]
        host = f"[{address}]" if ":" in address else address
        query = self.quick if not whole else self.first if idle and self.first else self.whole
        return f"http://{host}:{self.port}{query}"


def processes(pods: list[Json], proxy_port: int = ports.MERGED_METRICS) -> dict[Key, Process]:
    """The proxies and the control planes that run."""
    out: dict[Key, Process] = {}
    for pod in pods:
        if dig(pod, "status", "phase") != "Running" or not dig(pod, "status", "podIP"):
            continue
        meta = pod["metadata"]
        key = (str(meta["namespace"]), str(meta["name"]), str(meta.get("uid")))
        if has_proxy(pod):
            stats = "/stats/prometheus?only="
            out[key] = Process(pod, proxy_port, f"{stats}standard", f"{stats}istio", f"{stats}standard&idle=all")
        elif dig(meta, "labels", "app") == "istiod":
            out[key] = Process(pod, ports.MONITORING, "/metrics")
    return out


async def read(
    session: aiohttp.ClientSession, process: Process, whole: bool, meta: dict[str, Meta], idle: bool = False
) -> Look:
    """Scrape one process; errors are part of the result. ``meta`` is filled with the metrics' descriptions. ``idle``:
    also what is left out since it has not changed for long."""
    url, asked = process.url(whole), time.monotonic()
    text, problem, complete = b"", "", True
    try:
        async with session.get(process.url(whole, idle)) as answer:
            if answer.status != 200:
                raise aiohttp.ClientError(f"HTTP {answer.status}")
            text, complete = await bodies.start(answer.content.iter_any(), MAX_TEXT)
    except (aiohttp.ClientError, TimeoutError, OSError) as e:
        problem = str(e) or "timeout"
    complete = complete and (not text or text.endswith(b"\n"))
    text, told = left_out(text, complete) if idle else (text, None)
    complete = complete or told is not None  # what was cut off comes after what is shown
    pairs = samples(text, meta if whole else None)
    labels, seconds = target_labels(process.pod, process.port), time.monotonic() - asked
    return Look(labels, url, pairs, whole, seconds, problem, complete, began(process.pod), told)
