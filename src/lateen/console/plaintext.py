"""Finds callers that use plaintext and would be rejected by a STRICT PeerAuthentication.

The collector knows which services were called without an identity, and when. The callers are found in the access logs
of the services' own proxies, if enabled: a caller in the mesh sends the cluster's name as SNI, a plaintext caller sends
none.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from lateen.api import kinds
from lateen.api.canonical import NAMES
from lateen.console import calls
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient, KubeError, Unreachable
from lateen.mesh.selecting import has_labels

SCHEME = "spiffe://"
Place = tuple[str, str]
"""(namespace, service)"""
LINES, PODS, ALL_PODS = 2000, 30, 2000
"""Lines of each access log that are read at most; logs, unless more are asked for; logs at most."""
AT_ONCE, READING_S = 8, 20.0
"""Logs that are read at the same time; how long it may take to read all of them."""
_SEEN = ("istio_requests_total", "istio_tcp_connections_opened_total")
_BY = "source_principal, destination_workload_namespace, destination_canonical_service"
_LINE = re.compile(r"\binbound\|(\d+)\|\|\S* \S+ \S+ ([0-9a-fA-F.:\[\]]+):\d+ - \S+\s*$")
"""The end of a line in Istio's default format: the port, the caller's address, and that it names no server"""
_TIME = re.compile(r"^\[([^\]]+)\]")

Ask = Callable[[str, int, int], Awaitable[list[Json]]]
"""A PromQL query over (seconds until now, in steps of seconds) -> series as Prometheus' API has them."""


class Caller(NamedTuple):
    address: str
    port: int
    last: str


@dataclass
class Seen:
    """Calls to one service without an identity."""

    times: float = 0
    last: float = 0
    """The time of the last call, in seconds since the epoch"""
    callers: dict[tuple[str, int], str] = field(default_factory=dict)
    """(address, port) -> when its last call was"""
    unread: int = 0
    """Pods whose logs were left out or could not be read, of all that it has"""


def nameless(series: Iterable[Json], step_s: float) -> dict[Place, Seen]:
    """From series of calls per step (``console.calls``), as Prometheus' API has them."""
    out: dict[Place, Seen] = {}
    for one in series:
        labels = one["metric"]
        values = [(float(at), float(value)) for at, value in one["values"] if float(value) > 0]
        if not values or labels.get("source_principal", "").startswith(SCHEME):
            continue
        place = (labels.get("destination_workload_namespace", ""), labels.get("destination_canonical_service", ""))
        seen = out.setdefault(place, Seen())
        seen.times += sum(value for _, value in values)
        seen.last = max(seen.last, max(at for at, _ in values) - step_s)
    return out


def logged(text: str) -> list[Caller]:
    """The callers in plaintext of an access log in Istio's default format."""
    out = []
    for line in text.splitlines():
        if found := _LINE.search(line):
            at = _TIME.match(line)
            out.append(Caller(found[2].strip("[]"), int(found[1]), at[1] if at else ""))
    return out


def is_strict(obj: Json) -> bool:
    """Whether a PeerAuthentication rejects plaintext for some port."""
    if kinds.of(obj) is not kinds.PEER_AUTHENTICATION:
        return False
    spec = _mapping(obj.get("spec"))
    modes = [_mapping(m).get("mode") for m in (spec.get("mtls"), *_mapping(spec.get("portLevelMtls")).values())]
    return "STRICT" in modes


def _mapping(found: Any) -> Json:
    """Nothing where a manifest has something else: what is wrong with it is for validation to say."""
    return found if isinstance(found, dict) else {}


def concerned(policies: Sequence[Json], place: Place, labels: Json, root: str) -> bool:
    """Whether one of the policies applies to a service's pods."""
    for p in policies:
        wanted = dig(p, "spec", "selector", "matchLabels", default={})
        namespace = p["metadata"].get("namespace")
        if (namespace == place[0] or (namespace == root and not wanted)) and has_labels(wanted, labels):
            return True
    return False


def services(pods: Iterable[Json]) -> dict[tuple[str, str], Json]:
    """(namespace, service) -> the label that selects its pods with a sidecar."""
    out = {}
    for pod in pods:
        containers = [*dig(pod, "spec", "containers", default=[]), *dig(pod, "spec", "initContainers", default=[])]
        if not any(c["name"] == "istio-proxy" for c in containers):
            continue
        labels = pod["metadata"].get("labels") or {}
        label = next((name for name in NAMES if labels.get(name)), None)
        if label is not None:
            out[(pod["metadata"]["namespace"], labels[label])] = {label: labels[label]}
    return out


class Found(NamedTuple):
    """``names``: address -> pod; ``step_s``: how exactly it is known when a caller was last seen; ``more``: whether
    further logs are read if more are asked for."""

    services: dict[Place, Seen]
    names: dict[str, str]
    step_s: int
    more: bool


async def look(
    client: HttpClient,
    ask: Ask,
    root: str,
    seconds: int,
    namespace: str = "",
    policies: Sequence[Json] | None = None,
    logs: int = PODS,
) -> Found:
    """The callers in plaintext of a namespace's services (empty: of all), or of those that ``policies``
    (PeerAuthentications) are for. ``logs``: how many pods' logs are read, those that can be within READING_S. Raises
    KubeError, Unreachable, and what ``ask`` raises."""
    found: dict[Place, Seen] = {}
    step = calls.step(seconds)
    for metric in _SEEN:
        for place, seen in nameless(await ask(calls.counted(metric, _BY, seconds), seconds, step), step).items():
            mine = found.setdefault(place, Seen())
            mine.times, mine.last = mine.times + seen.times, max(mine.last, seen.last)
    pods, _ = await client.list(kinds.POD, "")
    own: dict[Place, list[Json]] = {}
    for pod in pods:
        for place in services([pod]):
            own.setdefault(place, []).append(pod)
    wanted = {}
    for place, seen in found.items():
        labels = [p["metadata"].get("labels") or {} for p in own.get(place, ())]
        if policies is None:
            mine_too = not namespace or place[0] == namespace
        else:
            mine_too = any(concerned(policies, place, one, root) for one in labels)
        if labels and mine_too:
            wanted[place], seen.unread = seen, len(labels)
    since = times.stamp(times.now() - timedelta(seconds=seconds))
    chosen = shared({at: own[at] for at in wanted}, logs)

    def keep(at: Place, text: str) -> None:
        seen = wanted[at]
        seen.unread -= 1
        for caller in logged(text):
            if caller.last >= since:
                key = caller.address, caller.port
                seen.callers[key] = max(caller.last, seen.callers.get(key, ""))

    await _read(client, chosen, keep)
    names = {
        str(dig(p, "status", "podIP")): f"pod {p['metadata']['name']}.{p['metadata']['namespace']}"
        for p in pods
        if dig(p, "status", "podIP") and not dig(p, "spec", "hostNetwork", default=False)
    }
    more = logs < ALL_PODS and sum(len(own[at]) for at in wanted) > logs
    return Found(wanted, names, step, more)


def shared(pods: Mapping[Place, Sequence[Json]], most: int) -> list[tuple[Place, Json]]:
    """So many pods, each service's first one before the second one of any."""
    turns = itertools.zip_longest(*([(place, pod) for pod in some] for place, some in pods.items()))
    return [one for turn in turns for one in turn if one is not None][:most]


async def _read(client: HttpClient, pods: Iterable[tuple[Place, Json]], keep: Callable[[Place, str], None]) -> None:
    """Give each log that can be read in time to ``keep``, in any order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(at: Place, pod: Json) -> None:
        async with gate:
            text = await _log(client, pod)
        if text is not None:
            keep(at, text)

    with suppress(TimeoutError):
        async with asyncio.timeout(READING_S), asyncio.TaskGroup() as group:
            for at, pod in pods:
                group.create_task(one(at, pod))


async def _log(client: HttpClient, pod: Json) -> str | None:
    """Of a pod's proxy; None where it cannot be read."""
    meta = pod["metadata"]
    try:
        lines = [line async for line in client.logs(meta["namespace"], meta["name"], "istio-proxy", LINES)]
    except (KubeError, Unreachable, ValueError):  # a line without an end is a ValueError
        return None
    return b"".join(lines).decode(errors="replace")
