"""histogram_quantile over classic buckets.

Source: ``BucketQuantile`` in Prometheus' promql/quantile.go.
"""

from __future__ import annotations

import numpy as np

from lateen.console.promql.aggregates import Grouping
from lateen.console.promql.values import Vector
from lateen.console.series.codec import Floats

BOUND = "le"


def histogram_quantile(q: Floats, vector: Vector) -> Vector:
    bounds = [_bound(labels.get(BOUND)) for labels in vector.labels]
    vector = vector.row_subset(np.array([i for i, b in enumerate(bounds) if b is not None], np.int64))
    kept = np.array([b for b in bounds if b is not None], np.float64)
    keys, index = Grouping((BOUND,), False).all(vector.labels)
    steps = vector.there.shape[1]
    values, there = np.zeros((len(keys), steps)), np.zeros((len(keys), steps), np.bool_)
    with np.errstate(all="ignore"):
        for g in range(len(keys)):
            rows = np.flatnonzero(index == g)
            rows = rows[np.argsort(kept[rows], kind="stable")]
            present = vector.there[rows]
            there[g] = present.any(axis=0)
            # Mostly every step has the same buckets; those that do are computed together.
            patterns, which = np.unique(present, axis=1, return_inverse=True)
            for p in range(patterns.shape[1]):
                some, at = rows[patterns[:, p]], np.flatnonzero(which.ravel() == p)
                if len(some):
                    values[g, at] = _quantiles(q[at], kept[some], vector.values[np.ix_(some, at)])
    return Vector([dict(k) for k in keys], values, there)


def _bound(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _quantiles(q: Floats, bounds: Floats, counts: Floats) -> Floats:
    """``counts[i, s]``: observations up to ``bounds[i]`` (ascending) at step s."""
    upper, inverse = np.unique(bounds, return_inverse=True)
    summed = np.zeros((len(upper), counts.shape[1]))
    np.add.at(summed, inverse, counts)
    if len(upper) < 2 or upper[-1] != np.inf:
        return _limits(q, np.full(len(q), np.nan))
    summed = np.maximum.accumulate(summed, axis=0)
    total = summed[-1]
    rank = q * total
    chosen = (summed[:-1] < rank).sum(axis=0)
    steps = np.arange(len(q))
    at = np.minimum(chosen, len(upper) - 2)
    below = np.where(at > 0, summed[np.maximum(at - 1, 0), steps], 0.0)
    start = np.where(at > 0, upper[np.maximum(at - 1, 0)], 0.0)
    end = upper[at]
    inside = start + (end - start) * ((rank - below) / (summed[at, steps] - below))
    out = np.where(chosen >= len(upper) - 1, upper[-2], inside)
    out = np.where((chosen == 0) & (upper[0] <= 0), upper[0], out)
    return _limits(q, np.where(total == 0, np.nan, out))


def _limits(q: Floats, out: Floats) -> Floats:
    out = np.where(q < 0, -np.inf, np.where(q > 1, np.inf, out))
    return np.where(np.isnan(q), np.nan, out)
