"""Change to effect: from the moment that a VirtualService is written to the first request that obeys it."""

from __future__ import annotations

import asyncio
import time

from world import cluster, percentile, report

from lateen.api import kinds
from lateen.cli.connect import paths_of
from lateen.cli.demo import ingress_port
from lateen.kit import http
from lateen.kube.apply import apply
from lateen.kube.kubeconfig import from_files

CHANGES = 50


def rule(i: int) -> dict[str, object]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "bookinfo", "namespace": "default"},
        "spec": {
            "hosts": ["*"],
            "gateways": ["bookinfo-gateway"],
            "http": [{"directResponse": {"status": 200, "body": {"string": f"change {i}"}}}],
        },
    }


async def measure() -> list[float]:
    out = []
    async with from_files(paths_of(None)) as client:
        port = await ingress_port(client)
        await client.get(kinds.SERVICE, "default", "details")
        for i in range(CHANGES):
            wanted = f"change {i}".encode()
            started = time.perf_counter()
            await apply(client, rule(i))
            while (await http.fetch("127.0.0.1", port, "/x", timeout=5)).body != wanted:
                await asyncio.sleep(0.001)
            out.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(0.1)
    return out


def main() -> None:
    with cluster():
        found = asyncio.run(measure())
    report(
        changes=len(found),
        p50_ms=round(percentile(found, 0.5), 1),
        p99_ms=round(percentile(found, 0.99), 1),
        limit_p50_ms=150,
        limit_p99_ms=500,
    )


if __name__ == "__main__":
    main()
