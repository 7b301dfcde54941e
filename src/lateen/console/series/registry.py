"""Known series by number: found by their labels, dropped when nothing holds them."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from lateen.console.series.codec import Bools, Ints, Labels
from lateen.console.series.names import Codes, Names
from lateen.kit import jsons

NAME = "__name__"
Test = Callable[[str], bool]
GROWTH = 1024


@dataclass(frozen=True)
class Selector:
    """Which series: ``name`` None is any; of one of ``ways`` each (label, test) has to hold."""

    name: str | None
    ways: tuple[tuple[tuple[str, Test], ...], ...]


@dataclass
class Column:
    """The values of one label: ``of[number]`` is the code of what a series has, 0 where it lacks the label."""

    of: Codes = field(default_factory=lambda: np.zeros(0, np.int32))
    codes: dict[str, int] = field(default_factory=lambda: {"": 0})
    values: list[str] = field(default_factory=lambda: [""])
    uses: list[int] = field(default_factory=lambda: [0])
    free: list[int] = field(default_factory=list)

    def put(self, number: int, value: str) -> None:
        if number >= len(self.of):
            self.of = np.concatenate([self.of, np.zeros(number + GROWTH - len(self.of), np.int32)])
        code = self.codes.get(value)
        if code is None:
            if self.free:
                code = self.free.pop()
                self.values[code] = value
            else:
                code = len(self.values)
                self.values.append(value)
                self.uses.append(0)
            self.codes[value] = code
        self.uses[code] += 1
        self.of[number] = code

    def clear(self, number: int) -> None:
        code = int(self.of[number])
        self.of[number] = 0
        self.uses[code] -= 1
        if not self.uses[code]:
            del self.codes[self.values[code]]
            self.values[code] = ""
            self.free.append(code)

    def taken(self, ids: Ints) -> Codes:
        """The codes of series."""
        out = np.zeros(len(ids), np.int32)
        inside = ids < len(self.of)
        if inside.all():
            return self.of[ids]
        out[inside] = self.of[ids[inside]]
        return out

    def passing(self, ids: Ints, test: Test) -> Bools:
        """Which of the series have a value that passes; each value is tested once."""
        codes = self.taken(ids)
        answers = np.zeros(len(self.values), np.bool_)
        for code in np.flatnonzero(np.bincount(codes, minlength=1)).tolist():
            answers[code] = test(self.values[code])
        return np.asarray(answers[codes], np.bool_)


class Registry:
    """May be used by several threads."""

    def __init__(self) -> None:
        self._ids: dict[bytes, int] = {}
        self._labels: list[Labels | None] = []
        self._keys: list[bytes] = []
        self._free: deque[int] = deque()
        self._columns: dict[str, Column] = {}
        self._uses = np.zeros(0, np.int64)
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def size(self) -> int:
        """All numbers are below it."""
        return len(self._labels)

    def find(self, labels: Labels) -> int | None:
        return self._ids.get(_key(labels))

    def intern(self, labels: Labels) -> int:
        """The number of a series. It is the caller's to hold it before anything is forgotten."""
        key = _key(labels)
        with self._lock:
            found = self._ids.get(key)
            if found is not None:
                return found
            number = self._free.popleft() if self._free else len(self._labels)
            if number == len(self._labels):
                self._labels.append(None)
                self._keys.append(b"")
            if number >= len(self._uses):
                self._uses = np.concatenate([self._uses, np.zeros(max(GROWTH, number), np.int64)])
            kept = {sys.intern(k): sys.intern(v) for k, v in sorted(labels.items())}
            self._ids[key] = number
            self._labels[number], self._keys[number] = kept, key
            for label, value in kept.items():
                self._columns.setdefault(label, Column()).put(number, value)
            return number

    def labels(self, number: int) -> Labels:
        """Of a series that is known; never changed."""
        found = self._labels[number]
        assert found is not None
        return found

    # --- what keeps a series alive ---------------------------------------------------------------------------

    def hold(self, ids: Ints) -> None:
        with self._lock:
            self._uses[ids] += 1

    def release(self, ids: Ints) -> Ints:
        """The series that are forgotten by that; their numbers may be given to others."""
        with self._lock:
            self._uses[ids] -= 1
            gone = [n for n in ids[self._uses[ids] <= 0].tolist() if self._labels[n] is not None]
            for number in gone:
                for label in self.labels(number):
                    column = self._columns[label]
                    column.clear(number)
                    if not column.codes.keys() - {""}:
                        del self._columns[label]
                del self._ids[self._keys[number]]
                self._keys[number], self._labels[number] = b"", None
                self._uses[number] = 0
            self._free.extend(gone)
            return np.array(gone, np.int64)

    # --- lookups ---------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        column = self._columns.get(NAME, Column())
        return sorted(column.codes.keys() - {""})

    def chosen(self, selector: Selector) -> Ints:
        """The numbers of the series that are meant, ascending."""
        found = [self.matching(selector.name, way) for way in selector.ways]
        return found[0] if len(found) == 1 else np.unique(np.concatenate(found))

    def matching(self, name: str | None, tests: Iterable[tuple[str, Test]]) -> Ints:
        """The series called ``name`` (any, if None) whose labels pass; a label that is missing is empty."""
        with self._lock:
            if name is None:
                out = np.array(sorted(self._ids.values()), np.int64)
            else:
                column = self._columns.get(NAME, Column())
                code = column.codes.get(name, 0)
                out = np.flatnonzero(column.of == code) if code else np.empty(0, np.int64)
            for label, test in tests:
                found = self._columns.get(label)
                if found is not None:
                    out = out[found.passing(out, test)]
                elif not test(""):
                    return np.empty(0, np.int64)
            return out

    def named(self, ids: Ints) -> Names:
        """The labels of series that are known, as they are now."""
        with self._lock:
            codes = {label: column.taken(ids) for label, column in self._columns.items()}
            return Names([self.labels(n) for n in ids.tolist()], {k: c for k, c in codes.items() if c.any()})


def _key(labels: Labels) -> bytes:
    """16 bytes that no other labels have, in place of some hundred."""
    return hashlib.blake2b(jsons.canonical(labels), digest_size=16).digest()
