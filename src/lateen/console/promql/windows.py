"""Functions over ranges of time: the samples of many series in the window of each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lateen.console.series import codec
from lateen.console.series.codec import Bools, Floats, Ints, Labels

CHUNK = {True: 256, False: 64}
"""Series that are computed together, whether or not they are steady: their arrays fit into the processor's cache."""
Result = tuple[Floats, Bools]


@dataclass(frozen=True)
class Windows:
    """``values[i, j]``: what the series i has at ``times[j]`` (ascending, in ms). The window of step s is
    ``(ends[s] - range_ms, ends[s]]``. ``steady``: no sample is missing, none marks an end, and values never fall.
    ``given``: where there are samples, if the values do not say so themselves."""

    times: Ints
    values: Floats
    ends: Ints
    range_ms: int
    steady: bool = False
    given: Bools | None = None

    @cached_property
    def low(self) -> Ints:
        return np.searchsorted(self.times, self.ends - self.range_ms, "right")

    @cached_property
    def high(self) -> Ints:
        return np.searchsorted(self.times, self.ends, "right")

    @cached_property
    def valid(self) -> Bools:
        """Where there are samples."""
        if self.given is not None:
            return self.given
        if self.steady:
            return np.ones(self.values.shape, np.bool_)
        return ~(codec.absent(self.values) | codec.stale(self.values))

    @cached_property
    def complete(self) -> bool:
        """Whether no sample is missing."""
        return self.steady or bool(self.valid.all())

    @cached_property
    def places(self) -> tuple[Ints, Ints, Ints]:
        """(first valid column of each window, the last one, how many); one row for all series where no sample is
        missing, which is the usual case and a lot less work."""
        if self.complete:
            return self.low[None, :], self.high[None, :] - 1, (self.high - self.low)[None, :]
        width = len(self.times)
        columns = np.arange(width)
        before = np.maximum.accumulate(np.where(self.valid, columns, -1), axis=1)
        after = np.minimum.accumulate(np.where(self.valid, columns, width)[:, ::-1], axis=1)[:, ::-1]
        after = np.concatenate([after, np.full((len(after), 1), width)], axis=1)
        before = np.concatenate([np.full((len(before), 1), -1), before], axis=1)
        counts = np.zeros((len(before), width + 1), np.int64)
        np.cumsum(self.valid, axis=1, out=counts[:, 1:])
        return after[:, self.low], before[:, self.high], counts[:, self.high] - counts[:, self.low]


@dataclass(frozen=True)
class Ranges:
    """The windows of many series. ``read`` gives the values of some rows; ``there``: where these have samples, if the
    values do not say so themselves; ``steady``: the rows for which Windows may be told so."""

    labels: Sequence[Labels]
    times: Ints
    ends: Ints
    range_ms: int
    read: Callable[[Ints], Floats]
    steady: Bools
    there: Bools | None = None

    def _windows(self, rows: Ints, steady: bool) -> Windows:
        given = self.there[rows] if self.there is not None else None
        return Windows(self.times, self.read(rows), self.ends, self.range_ms, steady, given)

    def whole(self) -> Windows:
        """Of all series at once."""
        return self._windows(np.arange(len(self.labels)), False)

    def chunked(self, function: Callable[[Windows], Result]) -> Result:
        """``function`` of a few series at a time."""
        shape = len(self.labels), len(self.ends)
        values, there = np.zeros(shape), np.zeros(shape, np.bool_)
        if not len(self.times):
            return values, there
        for steady in (True, False):
            chosen = np.flatnonzero(self.steady == steady)
            for at in range(0, len(chosen), CHUNK[steady]):
                rows = chosen[at : at + CHUNK[steady]]
                found = function(self._windows(rows, steady))
                adjoining = rows[-1] - rows[0] + 1 == len(rows)
                to = slice(rows[0], rows[-1] + 1) if adjoining else rows
                values[to], there[to] = found
        return values, there


def extrapolated(w: Windows, counter: bool, per_second: bool) -> Result:
    """rate, increase (``counter``) and delta: what was seen, extended to the ends of the window where samples come
    close to them. Source: ``extrapolatedRate`` in Prometheus' promql/functions.go."""
    first, last, count = w.places
    there = count >= 2
    first, last = np.where(there, first, 0), np.where(there, last, 0)
    start_value = _taken(w.values, first)
    with np.errstate(all="ignore"):
        sampled, to_start, to_end = _reach(w, first, last, count)
        seconds = w.range_ms / 1000 if per_second else 1.0
        result = _taken(w.values, last) - start_value
        if counter and w.steady and not (start_value < 0).any():
            return _steadily(result, start_value, there, sampled, to_start, to_end, seconds), there
        if counter:
            resets = None if w.steady else _resets(w)
            if resets is not None:
                result = result + _taken(resets, last) - _taken(resets, first)
            to_zero = np.where((result > 0) & (start_value >= 0), sampled * (start_value / result), to_start)
            to_start = np.minimum(to_start, to_zero)
        factor = (sampled + to_start + to_end) / sampled / seconds
        return np.where(there, result * factor, 0.0), there


def _reach(w: Windows, first: Ints, last: Ints, count: Ints) -> tuple[Floats, Floats, Floats]:
    """Seconds (between the first and the last sample, from there to the start of the window, to its end)."""
    sampled = (w.times[last] - w.times[first]) / 1000
    average = sampled / np.maximum(count - 1, 1)
    to_start = (w.times[first] - (w.ends - w.range_ms)) / 1000
    to_end = (w.ends - w.times[last]) / 1000
    to_start = np.where(to_start >= average * 1.1, average / 2, to_start)
    to_end = np.where(to_end >= average * 1.1, average / 2, to_end)
    return sampled, to_start, to_end


def _steadily(
    grown: Floats, start: Floats, there: Bools, sampled: Floats, to_start: Floats, to_end: Floats, seconds: float
) -> Floats:
    """The same for counters that only grow, in the fewest passes over what all series have: the durations are one row,
    and that a counter does not reach back beyond 0 is a minimum of two products."""
    sound = np.where(there, sampled * seconds, 1.0)
    ahead, back = ((np.where(there, part, 0.0) / sound) for part in (sampled + to_end, to_start))
    start *= np.where(there, sampled, 0.0) / sound
    before = grown * back
    np.minimum(before, start, out=before)
    grown *= ahead
    grown += before
    return grown


def _taken(values: Floats, columns: Ints) -> Floats:
    """Of each row the values in its columns; ``columns`` has a row for each, or one for all."""
    if len(columns) == 1:
        return np.asarray(np.take(values, columns[0], axis=1), np.float64)
    return np.asarray(values[np.arange(len(values))[:, None], columns], np.float64)


def _resets(w: Windows) -> Floats | None:
    """What counters had before they fell, summed up along time; None where none fell."""
    filled = _filled(w)
    fallen = w.valid[:, 1:] & (filled[:, 1:] < filled[:, :-1])
    if not fallen.any():
        return None
    out = np.zeros_like(filled)
    np.cumsum(np.where(fallen, filled[:, :-1], 0.0), axis=1, out=out[:, 1:])
    return out


def _filled(w: Windows) -> Floats:
    """Values with the last valid one in place of what is missing; NaN before the first."""
    if w.complete:
        return w.values
    last = np.maximum.accumulate(np.where(w.valid, np.arange(len(w.times)), -1), axis=1)
    out = w.values[np.arange(len(w.values))[:, None], np.maximum(last, 0)]
    return np.where(last >= 0, out, np.nan)


def last_two(w: Windows, counter: bool, per_second: bool) -> Result:
    """irate and idelta: from the last two samples."""
    _, last, count = w.places
    there = count >= 2
    last = np.where(there, last, 0)
    if w.complete:
        previous = np.where(there, last - 1, 0)
    else:
        before = np.maximum.accumulate(np.where(w.valid, np.arange(len(w.times)), -1), axis=1)
        shifted = np.concatenate([np.full((len(before), 1), -1), before[:, :-1]], axis=1)
        previous = np.where(there, shifted[np.arange(len(shifted))[:, None], last], 0)
    with np.errstate(all="ignore"):
        new, old = _taken(w.values, last), _taken(w.values, previous)
        result = new - old
        if counter and not w.steady:
            result = np.where(new < old, new, result)
        if per_second:
            result = result / ((w.times[last] - w.times[previous]) / 1000)
    return np.where(there, result, 0.0), there


def newest(w: Windows) -> Result:
    _, last, count = w.places
    there = count > 0
    return _taken(w.values, np.where(there, last, 0)), there


def current(w: Windows) -> Result:
    """An instant vector: the last sample of each window, unless it marks the end of its series."""
    column, there = _currently(w)
    values = _taken(w.values, column)
    if not w.steady:
        there = there & ~codec.stale(values)
    return np.where(there, values, 0.0), there


def measured(w: Windows) -> Result:
    """When each of these was measured, in seconds."""
    _, there = current(w)
    return np.where(there, w.times[_currently(w)[0]] / 1000, 0.0), there


def _currently(w: Windows) -> tuple[Ints, Bools]:
    """(the column of the last sample, ends included, up to each step; whether it is in the step's window)."""
    if w.steady:
        columns, there = (w.high - 1)[None, :], (w.high > w.low)[None, :]
        return np.where(there, columns, 0), there
    some = np.where(codec.absent(w.values), -1, np.arange(len(w.times)))
    last = np.concatenate([np.full((len(some), 1), -1), np.maximum.accumulate(some, axis=1)], axis=1)[:, w.high]
    there = last >= w.low
    return np.where(there, last, 0), there


def counted(w: Windows) -> Result:
    _, _, count = w.places
    return count.astype(np.float64), count > 0


# --- one window after the other ---------------------------------------------------------------------------------------

Each = Callable[[Floats, Floats], float]
"""(seconds since the first sample of all, values) of the samples in one window -> its result; at least one sample."""


def one_by_one(w: Windows, function: Each, least: int = 1) -> Result:
    shape = len(w.values), len(w.ends)
    out, there = np.zeros(shape), np.zeros(shape, np.bool_)
    seconds = (w.times - w.times[0]) / 1000
    with np.errstate(all="ignore"):
        for row in range(shape[0]):
            valid, values = w.valid[row], w.values[row]
            for step, (low, high) in enumerate(zip(w.low.tolist(), w.high.tolist(), strict=True)):
                chosen = valid[low:high]
                found = values[low:high][chosen]
                if len(found) >= least:
                    out[row, step] = function(seconds[low:high][chosen], found)
                    there[row, step] = True
    return out, there


def changes(_: Floats, values: Floats) -> float:
    different = (values[1:] != values[:-1]) & ~(np.isnan(values[1:]) & np.isnan(values[:-1]))
    return float(np.count_nonzero(different))


def resets(_: Floats, values: Floats) -> float:
    return float(np.count_nonzero(values[1:] < values[:-1]))


def slope(times: Floats, values: Floats, at: float) -> tuple[float, float]:
    """Least squares: (slope per second, value at ``at``)."""
    x = times - at
    mean_x, mean_y = x.mean(), values.mean()
    spread = ((x - mean_x) ** 2).sum()
    if not spread:
        return float("nan"), float("nan")
    k = float(((x - mean_x) * (values - mean_y)).sum() / spread)
    return k, float(mean_y - k * mean_x)


def quantile(q: float, values: Floats) -> float:
    """Linear between the two nearest; https://prometheus.io/docs/prometheus/latest/querying/functions/ and
    ``quantile`` in promql/quantile.go."""
    if not len(values) or np.isnan(q):
        return float("nan")
    if q < 0:
        return float("-inf")
    if q > 1:
        return float("inf")
    ordered = np.concatenate([values[np.isnan(values)], np.sort(values[~np.isnan(values)])])
    rank = q * (len(ordered) - 1)
    low = max(0, int(np.floor(rank)))
    high = min(len(ordered) - 1, low + 1)
    weight = rank - np.floor(rank)
    return float(ordered[low] * (1 - weight) + ordered[high] * weight)
