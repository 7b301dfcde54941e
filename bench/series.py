"""The store of time series: a panel of Istio's dashboards over an hour.

Limit: 100 ms for the panel, which reads all of 10,000 series. Ratios are to reading the samples of 1,000 series with a
loop in Python. For the size of a day on disk see ``day.py``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import pairwise

import numpy as np

from lateen.console.promql import parsing
from lateen.console.promql.engine import Engine
from lateen.console.promql.selecting import Steps
from lateen.console.series.disk import Disk
from lateen.console.series.store import Store

START, HOUR = 1_700_000_000_000, 3600
RUNS = 5
SERIES, SERVICES = 10_000, 100
PANEL = "sum(rate(istio_requests_total{{{0}}}[1m])) by (destination_service, response_code)"


def filled(disk: Disk | None, series: int, seconds: int, every: int) -> Store:
    """Counters of which a third grow, by some requests each second."""
    store, dice = Store(disk), np.random.default_rng(1)
    names = [
        {
            "__name__": "istio_requests_total",
            "reporter": ("source", "destination")[i % 2],
            "destination_service": f"service-{i % SERVICES}.default.svc.cluster.local",
            "response_code": ("200", "404", "503")[i % 3],
            "source_workload": f"workload-{i}",
            "namespace": f"n{i % 10}",
        }
        for i in range(series)
    ]
    ids = np.array([store.registry.intern(n) for n in names], np.int64)
    values, grows = np.zeros(series), dice.random(series) < 1 / 3
    for second in range(0, seconds, every):
        values += np.where(grows, dice.integers(0, 10, series), 0)
        store.put(START + second * 1000, ids, values)
    return store


def took(work: object) -> float:
    """Median in milliseconds."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        assert callable(work)
        work()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def main() -> int:
    store = filled(None, SERIES, HOUR + 120, 5)
    end = START + (HOUR + 115) * 1000
    steps = Steps(np.arange(end - HOUR * 1000, end + 1, 15_000, dtype=np.int64), end - HOUR * 1000, end)

    def panel(matchers: str) -> float:
        tree = parsing.parse(PANEL.format(matchers))
        return took(lambda: Engine(store, lambda: None).evaluate(tree, steps))

    some = panel('reporter="source",namespace="n2"')
    every = panel("")
    text = np.arange(1_000 * 720, dtype=np.float64).tolist()
    plain = took(lambda: sum(b - a for a, b in pairwise(text) if b >= a))
    result = {
        "panel of 1,000 series over 1 h, ms": round(some, 1),
        "ratio of that to adding up their increments in Python": round(some / plain, 2),
        "panel of 10,000 series over 1 h, ms": round(every, 1),
    }
    print(json.dumps(result, indent=2))
    return 0 if every <= 100 else 1


if __name__ == "__main__":
    sys.exit(main())
