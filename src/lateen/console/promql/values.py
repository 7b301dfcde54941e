"""The values of expressions, for all steps of a query at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lateen.console.series.codec import Bools, Floats, Ints, Labels
from lateen.console.series.names import Names
from lateen.console.series.registry import NAME

Key = tuple[tuple[str, str], ...]


STATUS = {
    "bad_data": 400,
    "not_found": 404,
    "not_allowed": 405,
    "execution": 422,
    "timeout": 503,
    "unavailable": 503,
    "internal": 500,
}
"""HTTP status by Prometheus' errorType."""


class QueryError(Exception):
    """``kind``: Prometheus' errorType; bad_data (an invalid query), execution (it cannot be evaluated), timeout."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind, self.text = kind, text


def refused(text: str) -> QueryError:
    return QueryError("bad_data", text)


def failed(text: str) -> QueryError:
    return QueryError("execution", text)


@dataclass(frozen=True)
class Vector:
    """``values[i, j]``: the series ``labels[i]`` at step j, if ``there[i, j]``."""

    labels: Sequence[Labels]
    values: Floats
    there: Bools

    def row_subset(self, rows: Ints) -> Vector:
        names = self.labels
        chosen = names.rows(rows) if isinstance(names, Names) else [names[i] for i in rows.tolist()]
        return Vector(chosen, self.values[rows], self.there[rows])

    def mapped(self, function: Callable[[Floats], Floats]) -> Vector:
        with np.errstate(all="ignore"):
            return unnamed(Vector(self.labels, function(self.values), self.there))


Scalar: TypeAlias = "Floats"
"""One value a step."""
Value: TypeAlias = "Vector | Scalar | str"


def empty(steps: int) -> Vector:
    return Vector([], np.empty((0, steps)), np.empty((0, steps), np.bool_))


def key(labels: Labels) -> Key:
    return tuple(sorted(labels.items()))


def without(labels: Labels, names: Iterable[str]) -> Labels:
    dropped = frozenset(names)
    return {k: v for k, v in labels.items() if k not in dropped}


def unnamed(vector: Vector) -> Vector:
    """Without metric names. Raises QueryError where that makes two series the same."""
    labels = vector.labels
    out: Sequence[Labels]
    if isinstance(labels, Names):
        alike, out = labels.alike(NAME), labels.without((NAME,))
    else:
        alike = len({one.get(NAME) for one in labels}) <= 1
        out = [without(one, (NAME,)) for one in labels]
    found = Vector(out, vector.values, vector.there)
    return found if alike else merged(found)


def merged(vector: Vector, problem: str = "vector cannot contain metrics with the same labelset") -> Vector:
    """Series with the same labels become one. Raises QueryError where two have a value at the same step."""
    places: dict[Key, int] = {}
    rows = [places.setdefault(key(labels), len(places)) for labels in vector.labels]
    if len(places) == len(rows):
        return vector
    index = np.array(rows)
    counts = np.zeros((len(places), vector.there.shape[1]), np.int64)
    np.add.at(counts, index, vector.there)
    if (counts > 1).any():
        raise failed(problem)
    values = np.zeros(counts.shape)
    for row, to in enumerate(rows):
        values[to][vector.there[row]] = vector.values[row][vector.there[row]]
    return Vector([dict(k) for k in places], values, counts > 0)
