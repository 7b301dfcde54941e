"""Changes and pushes in two worlds, as CPU time of istiod's own code.

The worlds: one namespace with 1,000 services and 1,000 routes; and 100 namespaces with 1,000 services, 2,000 proxies of
200 kinds (``wide.py``).

Baseline of the same run: what a full build costs. Limits: a change 20 ms until the first proxy's first byte; in the
wide world 2,000 proxies are synced within 30 s and 1 GB, an endpoint change costs at most 250 µs for each push, a route
change at most 300 µs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from world import report

SERVICES, PROXIES, ROUNDS = 1000, 200, 15
WIDE_PROXIES = 2000


def build() -> Any:
    from fanout import build as services

    return services()


def rule(i: int, timeout: int, namespace: str = "d") -> Any:
    from lateen.api import kinds
    from lateen.api import objects as o
    from lateen.api.config import decode
    from lateen.api.networking import VirtualService

    spec = decode(
        VirtualService,
        {"hosts": [f"s{i}"], "http": [{"timeout": f"{timeout}s", "route": [{"destination": {"host": f"s{i}"}}]}]},
    )
    ref = kinds.VIRTUAL_SERVICE.ref(namespace, f"s{i}")
    return o.Resource(ref, f"u{i}", f"u{i}/{timeout}", "2026-01-01T00:00:00Z", spec)


def synced(sets: Any) -> Any:
    """A session that has everything, as after a first push."""
    from lateen.ads.conversation import Request
    from lateen.ads.session import Session
    from lateen.wire import names

    session = Session()
    session.offer(sets)
    for type_url in (names.CDS, names.LDS, names.VHDS):
        session.receive(Request(type_url))
    for type_url in (names.EDS, names.RDS):
        # Texts of its own, as they come from a proxy.
        every = tuple("".join(list(n)) for s in sets[type_url] for n in s.resources)
        session.receive(Request(type_url, subscribe=every))
    settle(session)
    return session


def settle(session: Any) -> None:
    """Acknowledge until nothing is on its way."""
    from lateen.ads.conversation import Request
    from lateen.wire import names

    busy = True
    while busy:
        busy = False
        for type_url in names.ORDER:
            state = session._types.get(type_url)
            if state is not None and state.pending is not None:
                session.receive(Request(type_url, state.pending.nonce))
                busy = True


class World:
    """The mesh, and sessions of proxies with their pods."""

    def __init__(self, objects: Any, pods: list[Any]) -> None:
        from lateen.mesh.model import Mesh
        from lateen.mesh.views import Views
        from lateen.xds.generate import generate

        self.objects, self.pods, self.generate = objects, pods, generate
        began = time.process_time()
        self.views = Views(Mesh(objects))
        generate(self.views.of(pods[0], "sidecar"))
        self.full_s = time.process_time() - began
        began = time.process_time()
        self.sessions = [synced(generate(self.views.of(p, "sidecar"))) for p in pods]
        self.sync_s = time.process_time() - began
        self.shown = [self.views.of(p, "sidecar") for p in pods]

    def change(self, objects: Any) -> tuple[float, float, int]:
        """(seconds until the first byte that some proxy gets, seconds for each push, pushes)"""
        from lateen.ads.messages import encode

        began = time.process_time()
        self.objects = objects
        self.views.advance(objects)
        first, sent = 0.0, 0
        for i, session in enumerate(self.sessions):
            self.shown[i] = self.views.of(self.pods[i], "sidecar")
            responses = session.offer(self.generate(self.shown[i]))
            for response in responses:
                encode(response)
                first = first or time.process_time() - began
            sent += bool(responses)
        took = time.process_time() - began
        for session in self.sessions:
            settle(session)
        return first, took / max(1, sent), sent


def rounds(world: World, change: Callable[[World, int], Any]) -> dict[str, float]:
    found = [world.change(change(world, n)) for n in range(ROUNDS)]
    return {
        "first_byte_ms": round(median(f for f, _, _ in found) * 1000, 2),
        "first_byte_worst_ms": round(max(f for f, _, _ in found) * 1000, 2),
        "push_us": round(median(p for _, p, _ in found) * 1e6, 1),
        "pushes": found[-1][2],
    }


def endpoint(space: str, name: str) -> Callable[[World, int], Any]:
    from lateen.api import kinds

    def change(world: World, n: int) -> Any:
        service, found = world.objects.slices[(space, name)]
        kept = WHOLE[(space, name)][: 1 + n % 2]
        return world.objects.put(kinds.ENDPOINT_SLICE, (space, name), (service, dict.fromkeys(found, kept)))

    return change


WHOLE: dict[tuple[str, str], Any] = {}


def main() -> None:
    from wide import build as wide

    from lateen.api import kinds
    from lateen.kit import memory

    memory.settle()
    objects = build()
    for i in range(SERVICES):
        objects = objects.put(kinds.VIRTUAL_SERVICE, ("d", f"s{i}"), rule(i, 3))
    world = World(objects, [objects.pods[("d", "s0-0")]] * PROXIES)
    WHOLE[("d", "s5")] = objects.slices[("d", "s5")][1]["http"]
    base = {"bench": "scale", "world": "one namespace", "services": SERVICES, "routes": SERVICES, "proxies": PROXIES}
    report(**base, full_build_s=round(world.full_s, 3), full_build_limit_s=1.0)
    for name, change in (
        ("route", lambda w, n: w.objects.put(kinds.VIRTUAL_SERVICE, ("d", "s7"), rule(7, 10 + n))),
        ("endpoint", endpoint("d", "s5")),
    ):
        found = rounds(world, change)
        ratio = round(found["first_byte_ms"] / 1000 / world.full_s, 5)
        report(**base, change=name, **found, first_byte_limit_ms=20, first_byte_to_full_build=ratio)
    del world

    objects = wide()
    pods = [p for p in objects.pods.values() if p.name.endswith(("-0", "-1"))]
    rss = memory.resident_mb()
    world = World(objects, pods[:WIDE_PROXIES])
    WHOLE[("n3", "redis")] = objects.slices[("n3", "redis")][1]["http"]
    base = {"bench": "scale", "world": "100 namespaces", "services": 1000, "proxies": len(world.sessions)}
    report(
        **base,
        full_build_s=round(world.full_s, 3),
        sync_s=round(world.sync_s, 1),
        sync_limit_s=30,
        rss_mb=memory.resident_mb(),
        rss_before_mb=rss,
        rss_limit_mb=1000,
    )
    for name, change, limit in (
        ("endpoint", endpoint("n3", "redis"), 250),
        ("route", lambda w, n: w.objects.put(kinds.VIRTUAL_SERVICE, ("n3", "s7"), rule(7, 10 + n, "n3")), 300),
    ):
        found = rounds(world, change)
        ratio = round(found["first_byte_ms"] / 1000 / world.full_s, 5)
        report(
            **base, change=name, **found, first_byte_limit_ms=20, push_limit_us=limit, first_byte_to_full_build=ratio
        )


if __name__ == "__main__":
    main()
