"""The rate limit service of Istio's task "Rate Limiting using Envoy", with its counters in memory instead of Redis.

``python -m lateen.samples.bookinfo.rate_limit 8080`` reads ``$RUNTIME_ROOT/$RUNTIME_SUBDIRECTORY/config/*.yaml`` again
whenever one changes (https://github.com/envoyproxy/ratelimit#configuration). It is asked over gRPC at port 8081
(https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/ratelimit/v3/rls.proto); port 8080 has ``/healthcheck``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import grpc
import yaml
from envoy.service.ratelimit.v3 import rls_pb2

from lateen.samples.bookinfo.http import Request, Response, serve

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
UNITS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
MOST = 100_000
"""Counters that are kept; the oldest ones go first."""
Entry = tuple[str, str]


class Invalid(ValueError):
    """A configuration that cannot be used; the message says where and why."""


@dataclass
class Rule:
    limit: int | None = None
    """Requests per unit; None: no limit."""
    unit: str = "second"
    shadow: bool = False
    below: dict[tuple[str, str | None], Rule] = field(default_factory=dict)
    """By key and value; a value of None is any other one, each with a counter of its own."""


def rules(text: str) -> tuple[str, Rule]:
    """A domain and its rules, from YAML. Raises Invalid."""
    try:
        found = yaml.safe_load(text)  # noqa: TID251 - a file of the container's own user
    except yaml.YAMLError as e:
        raise Invalid(str(e)) from None
    if not isinstance(found, dict) or not isinstance(found.get("domain"), str) or not found["domain"]:
        raise Invalid("domain: must be a text that is not empty")
    top = Rule()
    _add(top, found.get("descriptors"), "descriptors")
    return found["domain"], top


def _add(rule: Rule, descriptors: Any, path: str) -> None:
    if not isinstance(descriptors, list | None):
        raise Invalid(f"{path}: must be a list")
    for i, given in enumerate(descriptors or []):
        at = f"{path}[{i}]"
        if not isinstance(given, dict) or not isinstance(given.get("key"), str) or not given["key"]:
            raise Invalid(f"{at}.key: must be a text that is not empty")
        value = given.get("value")
        name = (given["key"], None if value in (None, "") else str(value))
        if name in rule.below:
            raise Invalid(f"{at}: there is another one for {name[0]} {name[1] or ''}".rstrip())
        made = rule.below[name] = Rule(shadow=given.get("shadow_mode") is True)
        _limit(made, given.get("rate_limit"), f"{at}.rate_limit")
        _add(made, given.get("descriptors"), f"{at}.descriptors")


def _limit(rule: Rule, given: Any, path: str) -> None:
    if given is None or (isinstance(given, dict) and given.get("unlimited") is True):
        return
    unit = str(given.get("unit", "")).lower() if isinstance(given, dict) else ""
    many = given.get("requests_per_unit") if isinstance(given, dict) else None
    if unit not in UNITS_S or not isinstance(many, int) or isinstance(many, bool) or many < 0:
        raise Invalid(f"{path}: needs a unit ({', '.join(UNITS_S)}) and requests_per_unit")
    rule.limit, rule.unit = many, unit


def applies(rule: Rule, entries: Sequence[Entry]) -> Rule | None:
    """The rule for a descriptor: that of its last entry, if every entry before has one."""
    for key, value in entries:
        found = rule.below.get((key, value)) or rule.below.get((key, None))
        if found is None:
            return None
        rule = found
    return rule


class Counters:
    """Requests in the present second, minute, hour or day, by domain and descriptor."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now, self._counts, self._lock = now, dict[Any, int](), Lock()
        self.domains: dict[str, Rule] = {}

    def ask(self, domain: str, descriptors: Sequence[Sequence[Entry]], hits: int) -> rls_pb2.RateLimitResponse:
        out = rls_pb2.RateLimitResponse(overall_code=rls_pb2.RateLimitResponse.OK)
        top = self.domains.get(domain, Rule())
        for entries in descriptors:
            status = out.statuses.add(code=rls_pb2.RateLimitResponse.OK)
            rule = applies(top, entries)
            if rule is None or rule.limit is None or not entries:
                continue
            seconds, now = UNITS_S[rule.unit], self._now()
            used = self._count((domain, tuple(entries), rule.unit, int(now // seconds)), hits)
            status.current_limit.requests_per_unit = rule.limit
            status.current_limit.unit = rls_pb2.RateLimitResponse.RateLimit.Unit.Value(rule.unit.upper())
            status.limit_remaining = max(0, rule.limit - used)
            status.duration_until_reset.seconds = int(seconds - now % seconds)
            if used > rule.limit and not rule.shadow:
                status.code = out.overall_code = rls_pb2.RateLimitResponse.OVER_LIMIT
        return out

    def _count(self, what: Any, hits: int) -> int:
        with self._lock:
            used = self._counts[what] = self._counts.pop(what, 0) + hits
            while len(self._counts) > MOST:
                del self._counts[next(iter(self._counts))]
            return used


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, folder: Path) -> None:
        self._folder, self._read = folder, ""
        self._counters = Counters()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(self.ask) if details.method == METHOD else None

    def ask(self, raw: bytes, _: Any) -> bytes:
        asked = rls_pb2.RateLimitRequest.FromString(raw)
        self.look()
        given = [[(e.key, e.value) for e in d.entries] for d in asked.descriptors]
        return bytes(self._counters.ask(asked.domain, given, asked.hits_addend or 1).SerializeToString())

    def look(self) -> None:
        """Read the files again if one has changed; a configuration that cannot be used leaves the former one."""
        texts = dict(self._texts())
        if (now := repr(texts)) == self._read:
            return
        self._read = now
        try:
            self._counters.domains = dict(rules(text) for text in texts.values())
            print(f"configuration of {', '.join(self._counters.domains) or 'no domain'}", flush=True)
        except Invalid as e:
            print(f"the configuration cannot be used, the former one stays: {e}", flush=True)

    def _texts(self) -> Iterator[tuple[str, str]]:
        for path in sorted(self._folder.glob("*.yaml")):
            yield path.name, path.read_text()


async def _health(request: Request) -> Response:
    return Response(200 if request.path == "/healthcheck" else 404, b"OK\n", "text/plain")


if __name__ == "__main__":
    base = Path(os.environ.get("RUNTIME_ROOT", "/data")) / os.environ.get("RUNTIME_SUBDIRECTORY", "ratelimit")
    service = Service(base / "config")
    service.look()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(service,))
    server.add_insecure_port("[::]:8081")
    server.start()
    serve(_health)
