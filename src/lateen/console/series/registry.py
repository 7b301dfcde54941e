"""The series that are known, each under a number: found by their labels, forgotten when no block has them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import numpy as np

from lateen.console.series.codec import Ints, Labels
from lateen.kit import jsons

NAME = "__name__"
Test = Callable[[str], bool]


class Registry:
    def __init__(self) -> None:
        self._ids: dict[bytes, int] = {}
        self._labels: list[Labels | None] = []
        self._keys: list[bytes] = []
        self._named: dict[str, set[int]] = {}
        self._uses = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def size(self) -> int:
        """All numbers are below it."""
        return len(self._labels)

    def find(self, labels: Labels) -> int | None:
        return self._ids.get(jsons.canonical(labels))

    def intern(self, labels: Labels) -> int:
        key = jsons.canonical(labels)
        found = self._ids.get(key)
        if found is not None:
            return found
        number = self._ids[key] = len(self._labels)
        kept = {sys.intern(k): sys.intern(v) for k, v in sorted(labels.items())}
        self._labels.append(kept)
        self._keys.append(key)
        self._named.setdefault(kept.get(NAME, ""), set()).add(number)
        if number >= len(self._uses):
            self._uses = np.concatenate([self._uses, np.zeros(max(1024, number), np.int64)])
        return number

    def labels(self, number: int) -> Labels:
        """Of a series that is known; never changed."""
        found = self._labels[number]
        assert found is not None
        return found

    # --- what keeps a series alive ---------------------------------------------------------------------------

    def hold(self, ids: Ints) -> None:
        self._uses[ids] += 1

    def release(self, ids: Ints) -> None:
        self._uses[ids] -= 1
        for number in ids[self._uses[ids] <= 0].tolist():
            labels = self._labels[number]
            if labels is None:
                continue
            del self._ids[self._keys[number]]
            self._keys[number] = b""
            self._labels[number] = None
            named = self._named[labels.get(NAME, "")]
            named.discard(number)
            if not named:
                del self._named[labels.get(NAME, "")]

    # --- what is there ---------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return sorted(self._named)

    def matching(self, name: str | None, tests: Iterable[tuple[str, Test]]) -> list[int]:
        """Numbers of the series called ``name`` (any, if None) whose labels pass; a label that is missing is empty."""
        tests = list(tests)
        on_name = [test for label, test in tests if label == NAME]
        others = [(label, test) for label, test in tests if label != NAME]
        names = self._named if name is None else [name]
        chosen = [n for n in names if all(test(n) for test in on_name)]
        out = [number for n in chosen for number in self._named.get(n, ())]
        for label, test in others:
            answers: dict[str, bool] = {}
            passed = []
            for number in out:
                value = self.labels(number).get(label, "")
                answer = answers.get(value)
                if answer is None:
                    answer = answers[value] = test(value)
                if answer:
                    passed.append(number)
            out = passed
        return sorted(out)
