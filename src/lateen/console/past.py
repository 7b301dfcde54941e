"""The proxies' increments in a past time range, from stored series, in the graph's form. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lateen.console.metrics import METRICS, Added, sample
from lateen.console.series import codec
from lateen.console.series.registry import Selector
from lateen.console.series.store import Store

BEFORE_MS = 60_000
"""How far back a series is looked for that counted nothing in the stretch; the coarsest resolution has one sample in
30 s."""
MOST = 20_000_000


def added(store: Store, at_s: float, window_s: float, in_time: Callable[[], None]) -> Added:
    """Increments in the ``window_s`` seconds before ``at_s``. ``in_time`` is called between the steps, and may raise.
    Raises TooMany."""
    end, start = round(at_s * 1000), round((at_s - window_s) * 1000)
    out: Added = {}
    for metric in METRICS:
        in_time()
        found = store.select(Selector(metric, ((),)), start - BEFORE_MS, end, 0, MOST)
        for labels, grown in zip(found.names, growth(found.times, found.values, start).tolist(), strict=True):
            meant = sample(metric, labels) if grown else None
            if meant is not None:
                out[meant] = out.get(meant, 0.0) + grown
    return out


def growth(times: codec.Ints, values: codec.Floats, start: int) -> codec.Floats:
    """By how much each counter (a row) grew after ``start`` (ms); one that fell was reset.

    A series that is not there before ``start``, while others are, began to count then, at 0.
    """
    out = np.zeros(len(values))
    before = times <= start
    known = ~codec.absent(values) & ~codec.stale(values)
    watched = bool(known[:, before].any())
    for row in np.flatnonzero(known[:, ~before].any(axis=1)).tolist():
        earlier, later = values[row, known[row] & before], values[row, known[row] & ~before]
        first = earlier[-1] if len(earlier) else 0.0 if watched else later[0]
        path = np.concatenate(([first], later))
        steps = np.diff(path)
        out[row] = np.where(steps >= 0, steps, path[1:]).sum()
    return out
