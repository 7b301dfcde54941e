"""The API server's own metrics at ``/metrics``, under kube-apiserver's names and labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lateen.cluster.apiserver.call import Call
from lateen.cluster.store.objects import Store
from lateen.kit import process
from lateen.kit.metrics import Registry

SECONDS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
BYTES = tuple(1000.0 * 10**n for n in range(7))
_WHAT = ("group", "version", "resource", "subresource", "scope", "verb", "component")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_VERBS = {"create": "POST", "update": "PUT", "patch": "PATCH", "deletecollection": "DELETECOLLECTION"}
_CHANGES = ("create", "update", "patch", "delete", "deletecollection")
_STREAMS = ("exec", "attach", "portforward", "proxy")


class Peak:
    """How many there are at a time, and the most of this second and of the one before: whoever looks now and then would
    hardly meet requests that are answered within milliseconds (kube-apiserver reports the most of a second, too)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._count = self._most = self._before = self._second = 0

    def change(self, by: int) -> None:
        self._turn()
        self._count += by
        self._most = max(self._most, self._count)

    def read(self) -> int:
        self._turn()
        return max(self._most, self._before)

    def _turn(self) -> None:
        second = int(self._clock())
        if second != self._second:
            self._before = self._most if second == self._second + 1 else self._count
            self._second, self._most = second, self._count


class Figures:
    def __init__(self, store: Store, version: dict[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        r = self._registry = Registry()
        self._requests = r.counter(
            "apiserver_request_total", "Requests, by what they were about and the code of the answer.", *_WHAT,
            "dry_run", "code",
        )  # fmt: skip
        self._seconds = r.histogram(
            "apiserver_request_duration_seconds", "Seconds until a request was answered.", SECONDS, *_WHAT, "dry_run"
        )
        self._sizes = r.histogram("apiserver_response_sizes", "Bytes of answers to reads.", BYTES, *_WHAT)
        self._watched = r.counter("apiserver_watch_events_total", "Events sent to watches.", "group", "version", "kind")
        self._now = {kind: Peak(clock) for kind in ("mutating", "readOnly")}
        inflight = r.gauge(
            "apiserver_current_inflight_requests",
            "Requests being answered: the most of the last second.",
            "request_kind",
        )
        inflight.read = lambda: {(kind,): float(peak.read()) for kind, peak in self._now.items()}
        self._long: dict[tuple[str, ...], float] = {}
        running = r.gauge("apiserver_longrunning_requests", "Watches, logs and connections to pods.", *_WHAT)
        running.read = lambda: self._long
        objects = r.gauge("apiserver_storage_objects", "Stored objects.", "resource")
        objects.read = lambda: {(name,): float(store.count(name)) for name in store.collections()}
        build = r.gauge("kubernetes_build_info", "Constant 1, with the version.", "git_version", "major", "minor")
        build.read = lambda: {(version["gitVersion"], version["major"], version["minor"]): 1.0}
        process.measure(r)

    def text(self) -> str:
        return self._registry.text()

    def answered(self, c: Call | None, verb: str, code: int, began: float, size: int) -> None:
        """``began``: of time.perf_counter; ``size``: bytes of the body. ``c`` is None for what is not an object."""
        what = _what(c, verb)
        dry = "All" if c is not None and c.dry_run else ""
        self._requests.add(*what, dry, str(code))
        self._seconds.observe(time.perf_counter() - began, *what, dry)
        if what[_WHAT.index("verb")] in ("GET", "LIST"):  # as in Kubernetes
            self._sizes.observe(size, *what)

    def watched(self, c: Call) -> None:
        self._watched.add(c.resource.group, c.version, c.resource.kind)

    @contextmanager
    def inflight(self, verb: str) -> Iterator[None]:
        peak = self._now["mutating" if verb in _CHANGES else "readOnly"]
        peak.change(1)
        try:
            yield
        finally:
            peak.change(-1)

    @contextmanager
    def running(self, c: Call, verb: str) -> Iterator[None]:
        what = _what(c, verb)
        self._long[what] = self._long.get(what, 0.0) + 1
        try:
            yield
        finally:
            self._long[what] -= 1


def _what(c: Call | None, verb: str) -> tuple[str, ...]:
    if c is None:
        method = "GET" if verb == "head" else verb.upper()
        return "", "", "", "", "", method if method in _METHODS else "other", "apiserver"
    scope = "resource" if c.name else "namespace" if c.namespace else "cluster"
    name = "CONNECT" if c.subresource in _STREAMS else _VERBS.get(verb, verb.upper() or "other")
    if verb == "patch" and "apply" in c.patch_type:
        name = "APPLY"
    return c.resource.group, c.version, c.resource.plural, c.subresource, scope, name, "apiserver"
