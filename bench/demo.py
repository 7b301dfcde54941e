"""From nothing to 200 OK through the ingress: `lateen demo`, three times. Baseline: a kind cluster alone, 33 s."""

from __future__ import annotations

import time

from world import cluster, report

KIND_S = 33.0
"""time-to-k8s of kind as published by minikube's benchmarks (v1.36.0): a cluster without mesh or application."""


def main() -> None:
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        with cluster():
            seconds.append(time.monotonic() - started)
    best = sorted(seconds)[1]
    report(
        demo_s_median=round(best, 2),
        demo_s=[round(s, 2) for s in seconds],
        limit_s=15,
        ratio_to_published_kind=round(best / KIND_S, 2),
    )


if __name__ == "__main__":
    main()
