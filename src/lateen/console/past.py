"""The proxies' increments in a past time range, from stored series, in the graph's form. Pure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lateen.console.metrics import METRICS, Added, sample
from lateen.console.series import codec
from lateen.console.series.registry import Selector
from lateen.console.series.selection import Selection
from lateen.console.series.store import RESOLUTIONS, Store

BEFORE_MS = 60_000
"""How far back all series are looked for that counted nothing in the stretch; the coarsest resolution has one sample in
30 s."""
COARSEST_MS, KEPT_MS = RESOLUTIONS[-1]
MOST = 20_000_000
AT_ONCE = 1_000
"""Series that are looked for in all that is stored."""


def added(store: Store, at_s: float, window_s: float, in_time: Callable[[], None]) -> Added:
    """Increments in the ``window_s`` seconds before ``at_s``. ``in_time`` is called between the steps, and may raise.
    Raises TooMany."""
    end, start = round(at_s * 1000), round((at_s - window_s) * 1000)
    out: Added = {}
    for metric in METRICS:
        in_time()
        found = store.select(Selector(metric, ((),)), start - BEFORE_MS, end, 0, MOST)
        before = _before(store, found, start, in_time)
        for labels, grown in zip(found.names, growth(found, start, before).tolist(), strict=True):
            meant = sample(metric, labels) if grown else None
            if meant is not None:
                out[meant] = out.get(meant, 0.0) + grown
    return out


def _before(store: Store, found: Selection, start: int, in_time: Callable[[], None]) -> codec.Floats:
    """The value from which each series goes on after ``start`` (ms); NaN where nothing says so.

    Agents leave out series that are idle and continue them later, so one that appears may have had a total long before.
    One that was idle for longer than the store remembers counts as new.
    """
    earlier = found.times <= start
    known = _known(found.values)
    out = _last(found.values[:, earlier])
    if not known[:, earlier].any():
        return out
    appeared = np.flatnonzero(np.isnan(out) & known[:, ~earlier].any(axis=1))
    out[appeared] = 0.0
    rows = {n: row for row in appeared.tolist() if (n := store.registry.find(found.names[row])) is not None}
    ids = np.array(sorted(rows), np.int64)
    for at in range(0, len(ids), AT_ONCE):
        in_time()
        some = ids[at : at + AT_ONCE]
        former = store.select(some, start - KEPT_MS, start, COARSEST_MS, MOST)
        for number, value in zip(some.tolist(), _last(former.values).tolist(), strict=True):
            if not np.isnan(value):
                out[rows[number]] = value
    return out


def growth(found: Selection, start: int, before: codec.Floats) -> codec.Floats:
    """By how much each counter grew after ``start`` (ms), from ``before`` on, else from its first value on; one that
    fell was reset."""
    later = found.values[:, found.times > start]
    known = _known(later)
    out = np.zeros(len(later))
    for row in np.flatnonzero(known.any(axis=1)).tolist():
        values = later[row, known[row]]
        path = np.concatenate(([values[0] if np.isnan(before[row]) else before[row]], values))
        steps = np.diff(path)
        out[row] = np.where(steps >= 0, steps, path[1:]).sum()
    return out


def _known(values: codec.Floats) -> codec.Bools:
    known: codec.Bools = ~codec.absent(values) & ~codec.stale(values)
    return known


def _last(values: codec.Floats) -> codec.Floats:
    """The last sample of each series (a row); NaN without one."""
    known = _known(values)
    out = np.full(len(values), np.nan)
    rows = np.flatnonzero(known.any(axis=1))
    if len(rows):
        out[rows] = values[rows, values.shape[1] - 1 - np.argmax(known[rows, ::-1], axis=1)]
    return out
