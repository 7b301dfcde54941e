"""One resolution of the store: sealed blocks, oldest first, and the head, which grows."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from lateen.console.series.codec import GAP_BITS, Contents, Floats, Ints, Labels, absent, gaps, pack
from lateen.console.series.registry import Registry

FRAMES = 60
"""The samples of a series in one block."""
NONE: Ints = np.empty(0, np.int64)


@dataclass(eq=False)
class Block:
    """``ids`` are ascending. ``name``: of its file; it is empty where the disk had no room, and ``data`` has it."""

    times: Ints
    ids: Ints
    size: int
    name: str = ""
    data: bytes = b""

    @property
    def start(self) -> int:
        return int(self.times[0])

    @property
    def end(self) -> int:
        return int(self.times[-1])


class Head:
    """Frames that are not sealed yet: a row a series, a column a frame."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._rows = np.full(0, -1, np.int64)
        self._values = gaps(0, FRAMES)
        self.times: list[int] = []
        self.ids: list[int] = []

    def put(self, at_ms: int, ids: Ints, values: Floats) -> None:
        self.times.append(at_ms)
        rows = self._rows_of(ids)
        self._values[rows, len(self.times) - 1] = values

    def begin(self, ids: Ints) -> None:
        """These were 0 at the last frame, if it has no sample of them."""
        rows, last = self._rows_of(ids), len(self.times) - 1
        self._values[rows[absent(self._values[rows, last])], last] = 0.0

    def end_at(self, at_ms: int) -> None:
        """Forget later frames."""
        self.times = [at for at in self.times if at <= at_ms]
        self._values.view(np.int64)[:, len(self.times) :] = GAP_BITS

    def _rows_of(self, ids: Ints) -> Ints:
        if self._registry.size > len(self._rows):
            more = np.full(self._registry.size + 1024 - len(self._rows), -1, np.int64)
            self._rows = np.concatenate([self._rows, more])
        rows = self._rows[ids]
        new = ids[rows < 0]
        if len(new):
            self._rows[new] = np.arange(len(self.ids), len(self.ids) + len(new))
            self.ids += new.tolist()
            self._registry.hold(new)
            rows = self._rows[ids]
            if len(self.ids) > len(self._values):
                self._values = np.concatenate([self._values, gaps(len(self.ids) + 256 - len(self._values), FRAMES)])
        return rows

    def read(self, ids: Ints) -> Floats:
        """The values of these series, gaps where it has none."""
        out = gaps(len(ids), len(self.times))
        inside = np.flatnonzero(ids < len(self._rows))
        rows = self._rows[ids[inside]]
        out[inside[rows >= 0]] = self._values[rows[rows >= 0], : len(self.times)]
        return out

    def contents(self, step_ms: int) -> tuple[Ints, Contents]:
        ids = np.array(sorted(self.ids), np.int64)
        values = self._values[self._rows[ids], : len(self.times)]
        labels: list[Labels] = [self._registry.labels(i) for i in ids.tolist()]
        return ids, Contents(step_ms, np.array(self.times, np.int64), labels, pack(values))


@dataclass
class Tier:
    """Samples at least ``step_ms`` apart, for ``keep_ms``."""

    step_ms: int
    keep_ms: int
    registry: Registry
    blocks: deque[Block] = field(default_factory=deque)
    head: Head = field(init=False)
    _pending: Floats = field(init=False)
    _last: int = 0

    def __post_init__(self) -> None:
        self.head = Head(self.registry)
        self._pending = gaps(1, 0)[0]

    def offer(self, at_ms: int, ids: Ints, values: Floats, begun: Ints = NONE) -> None:
        """A frame of the next finer resolution. Of those in one step the last sample of each series is kept, under the
        time of the last frame. ``begun``: the series that were 0 before it."""
        if self.step_ms > 0 and self._last and at_ms // self.step_ms != self._last // self.step_ms:
            self.settle()
        if len(begun):
            self._begin(at_ms, begun)
        if self.step_ms <= 0:
            self.head.put(at_ms, ids, values)
            return
        if self.registry.size > len(self._pending):
            self._pending = np.concatenate([self._pending, gaps(1, self.registry.size + 1024 - len(self._pending))[0]])
        self._pending[ids] = values
        self._last = at_ms

    def _begin(self, at_ms: int, ids: Ints) -> None:
        if self.head.times:
            self.head.begin(ids)
            return
        # A block has just ended.
        before = at_ms // self.step_ms * self.step_ms - 1 if self.step_ms else at_ms - 1000
        self.head.put(max(before, self.newest + 1), ids, np.zeros(len(ids)))

    def forget(self, ids: Ints) -> None:
        """Series whose numbers may be given to others."""
        self._pending.view(np.int64)[ids[ids < len(self._pending)]] = GAP_BITS

    def end_at(self, at_ms: int) -> None:
        """Without what was offered under later times."""
        self.head.end_at(at_ms)
        if self._last > at_ms:
            self._pending.view(np.int64).fill(GAP_BITS)
            self._last = 0

    def settle(self) -> None:
        """What is pending becomes a frame."""
        there = np.flatnonzero(~absent(self._pending))
        if self._last and len(there):
            self.head.put(self._last, there, self._pending[there])
            self._pending.view(np.int64).fill(GAP_BITS)
        self._last = 0

    @property
    def newest(self) -> int:
        """The time of the last frame; 0 where there is none."""
        if self.head.times:
            return self.head.times[-1]
        return self.blocks[-1].end if self.blocks else 0

    @property
    def oldest(self) -> int:
        """The time of the first frame; beyond all times where there is none."""
        if self.blocks:
            return self.blocks[0].start
        return self.head.times[0] if self.head.times else 1 << 62
