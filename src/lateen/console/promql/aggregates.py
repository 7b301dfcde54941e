"""sum, avg, topk and their like: many series of one instant become few."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lateen.console.promql.values import Key, Vector, failed, key, merged, refused
from lateen.console.promql.windows import quantile
from lateen.console.series.codec import Bools, Floats, Ints, Labels
from lateen.console.series.registry import NAME

Grouping = Callable[[Labels], Key]


def grouping(names: Sequence[str], inclusive: bool) -> Grouping:
    """by (``inclusive``) or without these labels."""
    if inclusive:
        chosen = sorted(set(names))
        return lambda labels: tuple((n, labels[n]) for n in chosen if n in labels)
    dropped = {*names, NAME}
    return lambda labels: key({k: v for k, v in labels.items() if k not in dropped})


def groups_of(labels: list[Labels], group: Grouping) -> tuple[list[Key], Ints]:
    """(the groups, the group of each series)."""
    places: dict[Key, int] = {}
    index = [places.setdefault(group(one), len(places)) for one in labels]
    return list(places), np.array(index, np.int64)


def _reduced(ufunc: np.ufunc, values: Floats, index: Ints, count: int) -> Floats:
    """Rows of each group folded together; ``index`` has each group at least once."""
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(count))
    return np.asarray(ufunc.reduceat(values[order], starts, axis=0), np.float64)


def aggregate(op: str, vector: Vector, group: Grouping) -> Vector:
    """Those without a parameter. Raises QueryError for one that is not known."""
    keys, index = groups_of(vector.labels, group)
    if not keys:
        return vector
    fold = _FOLDS.get(op)
    if fold is None:
        raise refused(f"the aggregation {op} is not supported")
    counts = _reduced(np.add, vector.there.astype(np.float64), index, len(keys))
    with np.errstate(all="ignore"):
        values = fold(vector.values, vector.there, index, counts)
    return Vector([dict(k) for k in keys], values, counts > 0)


def _sum(values: Floats, there: Bools, index: Ints, counts: Floats) -> Floats:
    return _reduced(np.add, np.where(there, values, 0.0), index, len(counts))


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
    keys, index = groups_of(vector.labels, group)
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
    if there.shape[1] == 1:  # an instant query answers in the order of rank
        values = np.nan_to_num(vector.values[kept, 0], nan=worst)
        kept = kept[np.argsort(-values if op == "topk" else values, kind="stable")]
    return Vector(vector.labels, vector.values, there).row_subset(kept)


def quantiles(vector: Vector, group: Grouping, q: Floats) -> Vector:
    keys, index = groups_of(vector.labels, group)
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
        base = dict(group(labels))
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
