"""sum, avg, topk and their like: many series of one instant become few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lateen.console.promql.values import Key, Vector, empty, failed, key, merged, refused, without
from lateen.console.promql.windows import quantile
from lateen.console.series.codec import Bools, Floats, Ints, Labels
from lateen.console.series.names import Names
from lateen.console.series.registry import NAME


@dataclass(frozen=True)
class Grouping:
    """by (``inclusive``) or without these labels."""

    names: tuple[str, ...]
    inclusive: bool

    def of(self, labels: Labels) -> Key:
        if self.inclusive:
            return tuple((n, labels[n]) for n in sorted(set(self.names)) if n in labels)
        return key(without(labels, (*self.names, NAME)))

    def all(self, labels: Sequence[Labels]) -> tuple[list[Key], Ints]:
        """(the groups, the group of each series)."""
        if isinstance(labels, Names):
            names = self.names if self.inclusive else (*self.names, NAME)
            some, index = labels.groups(names, self.inclusive)
            return [self.of(labels[i]) for i in some], index
        places: dict[Key, int] = {}
        rows = [places.setdefault(self.of(one), len(places)) for one in labels]
        return list(places), np.array(rows, np.int64)


def _reduced(ufunc: np.ufunc, values: Floats, index: Ints, count: int) -> Floats:
    """Rows of each group folded together; ``index`` has each group at least once."""
    order = np.argsort(index, kind="stable")
    ends = np.cumsum(np.bincount(index, minlength=count)).tolist()
    if len(index) < 8 * count:  # many small groups
        return np.asarray(ufunc.reduceat(values[order], [0, *ends[:-1]], axis=0), np.float64)
    out, start = np.empty((count, values.shape[1])), 0
    for group, end in enumerate(ends):
        ufunc.reduce(values[order[start:end]], axis=0, out=out[group])
        start = end
    return out


def _counted(there: Bools, index: Ints, count: int) -> Floats:
    """How many series of each group there are at each step."""
    if there.all():
        of_all = np.bincount(index, minlength=count).astype(np.float64)
        return np.repeat(of_all[:, None], there.shape[1], axis=1)
    return _reduced(np.add, there.astype(np.float64), index, count)


def aggregate(op: str, vector: Vector, group: Grouping) -> Vector:
    """Those without a parameter. Raises QueryError for one that is not known."""
    keys, index = group.all(vector.labels)
    if not keys:
        return empty(vector.there.shape[1])
    fold = _FOLDS.get(op)
    if fold is None:
        raise refused(f"the aggregation {op} is not supported")
    counts = _counted(vector.there, index, len(keys))
    with np.errstate(all="ignore"):
        values = fold(vector.values, vector.there, index, counts)
    return Vector([dict(k) for k in keys], values, counts > 0)


def _sum(values: Floats, there: Bools, index: Ints, counts: Floats) -> Floats:
    return _reduced(np.add, values if there.all() else np.where(there, values, 0.0), index, len(counts))


def _average(values: Floats, there: Bools, index: Ints, counts: Floats) -> Floats:
    return _sum(values, there, index, counts) / np.maximum(counts, 1)


def _variance(values: Floats, there: Bools, index: Ints, counts: Floats) -> Floats:
    mean = _average(values, there, index, counts)[index]
    return _average((values - mean) ** 2, there, index, counts)


_FOLDS: dict[str, Callable[[Floats, Bools, Ints, Floats], Floats]] = {
    "sum": _sum,
    "avg": _average,
    "count": lambda _v, _t, _i, counts: counts,
    "group": lambda _v, _t, _i, counts: np.ones_like(counts),
    "min": lambda v, t, i, c: _reduced(np.fmin, np.where(t, v, np.nan), i, len(c)),
    "max": lambda v, t, i, c: _reduced(np.fmax, np.where(t, v, np.nan), i, len(c)),
    "stdvar": _variance,
    "stddev": lambda v, t, i, c: np.sqrt(_variance(v, t, i, c)),
}


def ranked(op: str, vector: Vector, group: Grouping, wanted: Floats) -> Vector:
    """topk and bottomk: the first ``wanted[step]`` of each group, with their own labels; NaN comes last."""
    keys, index = group.all(vector.labels)
    there = np.zeros_like(vector.there)
    worst = -np.inf if op == "topk" else np.inf
    for g in range(len(keys)):
        rows = np.flatnonzero(index == g)
        for step in range(vector.there.shape[1]):
            count = wanted[step]
            present = rows[vector.there[rows, step]]
            if not count >= 1 or not len(present):
                continue
            found = vector.values[present, step]
            judged = np.where(np.isnan(found), worst, found)
            order = np.lexsort((np.isnan(found), -judged if op == "topk" else judged))
            there[present[order[: int(min(count, len(present)))]], step] = True
    kept = np.flatnonzero(there.any(axis=1))
    if there.shape[1] == 1:  # an instant query answers in the order of rank, group by group
        values = np.where(np.isnan(vector.values[kept, 0]), worst, vector.values[kept, 0])
        kept = kept[np.lexsort((-values if op == "topk" else values, index[kept]))]
    return Vector(vector.labels, vector.values, there).row_subset(kept)


def quantiles(vector: Vector, group: Grouping, q: Floats) -> Vector:
    keys, index = group.all(vector.labels)
    steps = vector.there.shape[1]
    values, there = np.zeros((len(keys), steps)), np.zeros((len(keys), steps), np.bool_)
    for g in range(len(keys)):
        rows = np.flatnonzero(index == g)
        for step in range(steps):
            found = vector.values[rows, step][vector.there[rows, step]]
            if len(found):
                values[g, step], there[g, step] = quantile(float(q[step]), found), True
    return Vector([dict(k) for k in keys], values, there)


def counted_values(vector: Vector, group: Grouping, label: str, text: Callable[[float], str], most: int) -> Vector:
    """count_values: how many series of a group have each value. Raises QueryError beyond ``most`` series."""
    found: dict[Key, tuple[Floats, Bools]] = {}
    steps = vector.there.shape[1]
    for row, labels in enumerate(vector.labels):
        base = dict(group.of(labels))
        for step in np.flatnonzero(vector.there[row]).tolist():
            k = key({**base, label: text(float(vector.values[row, step]))})
            if k not in found:
                if len(found) >= most:
                    raise failed(f"count_values makes more than {most} series")
                found[k] = np.zeros(steps), np.zeros(steps, np.bool_)
            found[k][0][step] += 1
            found[k][1][step] = True
    if not found:
        return Vector([], np.empty((0, steps)), np.empty((0, steps), np.bool_))
    values = np.stack([v for v, _ in found.values()])
    there = np.stack([t for _, t in found.values()])
    return merged(Vector([dict(k) for k in found], values, there))
