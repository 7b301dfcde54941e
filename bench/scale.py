"""One route change, a full build and pushes at 1,000 services with 1,000 routes: CPU time of istiod's own code.

Baseline of the same run: what a full build costs. Limits: a change 20 ms until the first proxy's first byte, a full
build 1 s, a push to each of 200 proxies with equal views 0.2 ms.
"""

from __future__ import annotations

import time
from statistics import median

from world import report

SERVICES, PROXIES, ROUNDS = 1000, 200, 15


def build():  # type: ignore[no-untyped-def]
    from fanout import build as services

    from lateen.api import kinds

    return services().put(kinds.VIRTUAL_SERVICE, ("d", "none"), None)


def rule(i: int, timeout: int):  # type: ignore[no-untyped-def]
    from lateen.api import kinds
    from lateen.api import objects as o
    from lateen.api.config import decode
    from lateen.api.networking import VirtualService

    spec = decode(
        VirtualService,
        {"hosts": [f"s{i}"], "http": [{"timeout": f"{timeout}s", "route": [{"destination": {"host": f"s{i}"}}]}]},
    )
    ref = kinds.VIRTUAL_SERVICE.ref("d", f"s{i}")
    return o.Resource(ref, f"u{i}", f"u{i}/{timeout}", "2026-01-01T00:00:00Z", spec)


def proxies(pod, views):  # type: ignore[no-untyped-def]
    """Sessions that have everything, as after a first push."""
    from lateen.ads.session import Request, Session
    from lateen.wire import names
    from lateen.xds.generate import generate

    out = []
    sets = generate(views.of(pod, "sidecar"))
    for _ in range(PROXIES):
        session = Session()
        session.offer(sets)
        for type_url in (names.CDS, names.LDS, names.VHDS):
            session.receive(Request(type_url))
        for type_url in (names.EDS, names.RDS):
            every = tuple(n for s in sets[type_url] for n in s.resources)
            session.receive(Request(type_url, subscribe=every))
        settle(session)
        out.append(session)
    return out


def settle(session) -> None:  # type: ignore[no-untyped-def]
    """Acknowledge until nothing is on its way."""
    from lateen.ads.session import Request
    from lateen.wire import names

    busy = True
    while busy:
        busy = False
        for type_url in names.ORDER:
            state = session._types.get(type_url)
            if state is not None and state.pending is not None:
                session.receive(Request(type_url, state.pending.nonce))
                busy = True


def main() -> None:
    from lateen.ads.server import encode
    from lateen.api import kinds
    from lateen.mesh.model import Mesh
    from lateen.mesh.views import Views
    from lateen.xds.generate import generate

    objects = build()
    for i in range(SERVICES):
        objects = objects.put(kinds.VIRTUAL_SERVICE, ("d", f"s{i}"), rule(i, 3))
    pod = objects.pods[("d", "s0-0")]

    began = time.process_time()
    views = Views(Mesh(objects))
    generate(views.of(pod, "sidecar"))
    full = time.process_time() - began
    sessions = proxies(pod, views)

    changes, pushes = [], []
    for n in range(ROUNDS):
        began = time.process_time()
        objects = objects.put(kinds.VIRTUAL_SERVICE, ("d", "s7"), rule(7, 10 + n))
        views.advance(objects)
        first = sessions[0].offer(generate(views.of(pod, "sidecar")))
        assert first
        encode(first[0])
        changes.append(time.process_time() - began)
        assert sum(len(r.resources) for r in first) == 1
        began = time.process_time()
        for session in sessions[1:]:
            for response in session.offer(generate(views.of(pod, "sidecar"))):
                encode(response)
        pushes.append((time.process_time() - began) / (PROXIES - 1))
        for session in sessions:
            settle(session)
    report(
        bench="scale",
        services=SERVICES,
        routes=SERVICES,
        full_build_s=round(full, 3),
        full_build_limit_s=1.0,
        change_ms=round(median(changes) * 1000, 1),
        change_worst_ms=round(max(changes) * 1000, 1),
        change_limit_ms=20,
        change_to_full_build=round(median(changes) / full, 4),
        push_ms=round(median(pushes) * 1000, 3),
        push_limit_ms=0.2,
    )


if __name__ == "__main__":
    main()
