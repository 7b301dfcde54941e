"""24 hours of Bookinfo on disk, by the collector's own stores, with simulated time: at most 200 MB together.

Metrics: 2,000 series, as Bookinfo's proxies and istiod have together, of which a third grows, looked at every 5 s.
Traces: one request of the product page a second, each sampled, with both spans of each hop and Envoy's tags. Where a
day of them does not fit, the store keeps errors and slow ones longest.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from series import START, filled

from lateen.console.series.disk import Disk
from lateen.console.traces.spans import Kind, Span
from lateen.console.traces.store import Store

DAY_S, LIMIT_MB, TRACES_MB, AT_ONCE = 86_400, 200, 150, 60
"""TRACES_MB: what the add-on sets; AT_ONCE: requests whose spans are written together."""


def tags(dice: random.Random, service: str, host: str, path: str, request: str, code: str) -> dict[str, str]:
    """Those of Envoy's spans."""
    address, peer = (f"10.244.0.{dice.randrange(9, 20)}" for _ in range(2))
    return {
        "http.url": f"http://{host}.default.svc.cluster.local:9080{path}",
        "http.method": "GET",
        "component": "proxy",
        "http.protocol": "HTTP/2",
        "guid:x-request-id": request,
        "upstream_cluster": f"outbound|9080||{host}.default.svc.cluster.local",
        "upstream_cluster.name": f"outbound|9080||{host}.default.svc.cluster.local",
        "http.status_code": code,
        "response_flags": "-" if code == "200" else "FI",
        "request_size": "0",
        "response_size": str(dice.randrange(200, 5000)),
        "node_id": f"sidecar~{address}~{service}-v1-6b7c9d-x3.default~default.svc.cluster.local",
        "peer.address": peer,
        "upstream_address": f"{address}:9080",
        "downstream_cluster": "-",
        "user_agent": "python-requests/2.31",
        "istio.canonical_revision": "v1",
        "istio.canonical_service": service,
        "istio.cluster_id": "Kubernetes",
        "istio.mesh_id": "cluster.local",
        "istio.namespace": "default",
    }


def request(number: int, at_us: int) -> Iterator[Span]:
    """The spans of one request; every hundredth fails in ratings, every fiftieth is slow."""
    dice = random.Random(number)
    trace, guid = f"{dice.getrandbits(128) or 1:032x}", f"{dice.getrandbits(64):016x}-9{dice.getrandbits(60):015x}"
    slow = 20 if number % 50 == 0 else 1
    last = ""

    def span(parent: str, service: str, host: str, path: str, kind: Kind, code: str = "200") -> Span:
        nonlocal last
        last = f"{dice.getrandbits(64) or 1:016x}"
        took = slow * dice.randrange(2_000, 40_000)
        found = tags(dice, service, host, path, guid, code)
        begins = at_us + dice.randrange(5_000)
        name = f"{host}.default.svc.cluster.local:9080"
        return Span(trace, last, parent, f"{service}.default", name, kind, begins, took, found, [], error=code != "200")

    yield span("", "istio-ingressgateway", "productpage", "/productpage", "CLIENT")
    yield span(last, "productpage", "productpage", "/productpage", "SERVER")
    page = last
    version = number % 3
    for host in ("details", "reviews"):
        yield span(page, "productpage", host, f"/{host}/0", "CLIENT")
        yield span(last, host, host, f"/{host}/0", "SERVER")
    if version:
        code = "503" if number % 100 == 1 else "200"
        yield span(last, "reviews", "ratings", "/ratings/0", "CLIENT", code)
        yield span(last, "ratings", "ratings", "/ratings/0", "SERVER", code)


def metrics_mb() -> float:
    with tempfile.TemporaryDirectory() as folder:
        filled(Disk(Path(folder)), 2_000, DAY_S, 5).flush()
        return sum(p.stat().st_size for p in Path(folder).iterdir()) / 1e6


def traces() -> dict[str, float]:
    spans, most, hour = 0, 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "traces.sqlite", TRACES_MB * 1_000_000, DAY_S)
        for second in range(0, DAY_S, AT_ONCE):
            now = START * 1000 + second * 1_000_000
            batch = [s for i in range(AT_ONCE) for s in request(second + i, now + i * 1_000_000)]
            spans += len(batch)
            store.add(batch, now + AT_ONCE * 1_000_000)
            most = max(most, sum(p.stat().st_size for p in Path(folder).iterdir()))
            if second == 3600:
                hour = store.size / spans
        end = START * 1000 + DAY_S * 1_000_000
        kept = store._one("SELECT count(*) FROM traces")
        failed = store._one("SELECT min(start) FROM traces WHERE error")
        store.close()
    return {
        "spans of a day": spans,
        "bytes of a span on disk": round(hour),
        "traces, MB at most": round(most / 1e6, 1),
        "traces kept, %": round(100 * kept / DAY_S),
        "hours of failed traces": round((end - failed) / 3.6e9, 1),
    }


def main() -> int:
    of_metrics, of_traces = metrics_mb(), traces()
    total = of_metrics + of_traces["traces, MB at most"]
    print(json.dumps({"metrics, MB": round(of_metrics, 1), **of_traces, "together, MB": round(total, 1)}, indent=2))
    return 0 if total <= LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
