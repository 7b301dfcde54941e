"""The labels of many series, encoded so that they can be grouped without looking at each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from lateen.console.series.codec import Ints, Labels

Codes: TypeAlias = "NDArray[np.int32]"


class Names(Sequence[Labels]):
    """``codes[label][i]`` tells the values of a label apart: equal for series that have the same, 0 for those without.
    ``dropped`` are labels that the series no longer have. Never changed."""

    def __init__(self, whole: list[Labels], codes: dict[str, Codes], dropped: frozenset[str] = frozenset()) -> None:
        self._whole, self._codes, self._dropped = whole, codes, dropped

    def __len__(self) -> int:
        return len(self._whole)

    @overload
    def __getitem__(self, index: int) -> Labels: ...
    @overload
    def __getitem__(self, index: slice) -> list[Labels]: ...
    def __getitem__(self, index: int | slice) -> Labels | list[Labels]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        whole = self._whole[index]
        return {k: v for k, v in whole.items() if k not in self._dropped} if self._dropped else whole

    def rows(self, chosen: Ints) -> Names:
        codes = {label: found[chosen] for label, found in self._codes.items()}
        return Names([self._whole[i] for i in chosen.tolist()], codes, self._dropped)

    def without(self, labels: Iterable[str]) -> Names:
        return Names(self._whole, self._codes, self._dropped | frozenset(labels))

    def alike(self, label: str) -> bool:
        """Whether all of them have the same value of a label, or none has one."""
        found = self._codes.get(label)
        return label in self._dropped or found is None or len(found) == 0 or bool((found == found[0]).all())

    def groups(self, labels: Iterable[str], inclusive: bool) -> tuple[list[int], Ints]:
        """Those that agree in these labels, or in all others: (one of each group, the group of each), in the order in
        which they come."""
        given = set(labels)
        asked = given if inclusive else self._codes.keys() - given
        mixed = np.zeros(len(self), np.int64)
        several = 1
        for codes in (self._codes[label] for label in sorted(asked - self._dropped) if label in self._codes):
            high = int(codes.max(initial=0)) + 1
            if several * high > 1 << 62:
                mixed = np.unique(mixed, return_inverse=True)[1].reshape(-1)
                several = len(self)
            mixed = mixed * high + codes
            several *= high
        _, first, index = np.unique(mixed, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return first[order].tolist(), rank[index.reshape(-1)]
