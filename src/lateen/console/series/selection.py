"""The data that a query reads from the store: samples of many series over a time range, as stored in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lateen.console.series import codec
from lateen.console.series.codec import Bools, Floats, Ints
from lateen.console.series.names import Names


class TooMany(Exception):
    """A query exceeds a limit; the text says which."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """The samples of a block (a row a series, a column a time). ``steady``: the rows in which none is missing, none
    marks an end, and none is below the one before."""

    values: Floats
    steady: Bools

    @property
    def size(self) -> int:
        return self.values.nbytes + self.steady.nbytes


def decoded(values: Floats) -> Decoded:
    steady: Bools = np.all(values[:, 1:] >= values[:, :-1], axis=1)  # false beside GAP and STALE, which are no numbers
    if values.shape[1]:
        steady &= ~np.isnan(values[:, 0])
    return Decoded(values, steady)


@dataclass(frozen=True, eq=False)
class Part:
    """``values[places[i]]`` are the samples of the series i at ``times``; it has none where the place is negative."""

    times: Ints
    values: Floats
    steady: Bools
    places: Ints

    @cached_property
    def missing(self) -> Bools | None:
        found = self.places < 0
        return found if found.any() else None

    @cached_property
    def offset(self) -> int | None:
        """Where the series stand in the same order and without others between them: the place of the first."""
        first = int(self.places[0]) if len(self.places) else 0
        adjoining = first >= 0 and np.array_equal(self.places, np.arange(first, first + len(self.places)))
        return first if adjoining else None

    def read(self, rows: Ints, into: Floats) -> None:
        """``rows`` ascend."""
        if self.offset is not None and len(rows) and rows[-1] - rows[0] + 1 == len(rows):
            first = self.offset + int(rows[0])
            into[:] = self.values[first : first + len(rows)]
            return
        into[:] = self.values[self.places[rows]] if len(self.values) else 0.0
        if self.missing is not None:
            into.view(np.int64)[self.missing[rows]] = codec.GAP_BITS


def part(times: Ints, found: Decoded, columns: slice, places: Ints) -> Part:
    """Of a block. Keeps no more of it in memory than twice what is read."""
    values, steady = found.values[:, columns], found.steady
    if 2 * len(places) < len(values):
        there = places >= 0
        values, steady = values[places[there]], steady[places[there]]
        places = np.where(there, np.cumsum(there) - 1, -1)
    return Part(times, values, steady, places)


@dataclass(frozen=True)
class Selection:
    """The series ``names[i]`` at ``times``; codec.GAP and codec.STALE as in blocks."""

    names: Names
    times: Ints
    parts: list[Part]

    def rows(self, chosen: Ints) -> Floats:
        """The samples of some series; ``chosen`` ascend."""
        out = np.empty((len(chosen), len(self.times)))
        at = 0
        for one in self.parts:
            to = at + len(one.times)
            one.read(chosen, out[:, at:to])
            at = to
        return out

    @property
    def values(self) -> Floats:
        return self.rows(np.arange(len(self.names)))

    @cached_property
    def steady(self) -> Bools:
        """The series without missing samples and ends, whose values never fall."""
        out = np.ones(len(self.names), np.bool_)
        before: Floats | None = None
        for one in self.parts:
            if not len(one.values):
                return np.zeros(len(self.names), np.bool_)
            out &= one.steady[one.places] & (one.places >= 0)
            if before is not None:
                out &= one.values[one.places, 0] >= before
            before = one.values[one.places, -1]
        return out
