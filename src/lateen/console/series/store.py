"""The store: three resolutions of the same samples, each in blocks of 60 frames, a file a block.

Data that is too old or exceeds the limit is deleted oldest first, by whole files. If the disk is full, the oldest files
are deleted as well, and then blocks stay in memory, within the same limit. Reading and writing may happen in different
threads.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from lateen.console.series import codec
from lateen.console.series.codec import Floats, Ints
from lateen.console.series.disk import Disk
from lateen.console.series.names import Names
from lateen.console.series.registry import Registry, Selector
from lateen.console.series.selection import Decoded, Part, Selection, TooMany, decoded, part
from lateen.console.series.tier import FRAMES, NONE, Block, Tier

log = logging.getLogger("lateen.console.series")

RESOLUTIONS = ((0, 600_000), (5_000, 3_600_000), (30_000, 86_400_000))
"""(distance of samples, how long they are kept), both in milliseconds; 0: as they are scraped."""
MAX_BYTES = 200 * 1024 * 1024
MAX_KNOWN = 100_000
"""Series that any block may have, also those that ended long ago."""
MAX_DECODED = 64 * 1024 * 1024
"""Bytes of blocks that are kept ready for the next query."""
BACK_MS = 60_000
"""A clock that was turned back by more than that was wrong before, or is wrong now."""
SURE_MS = 120_000
"""How long a clock must go on with the earlier time until it is believed: one that has just started may be wrong until
it hears of the time, and what is stored would be deleted for nothing."""
SUFFIX = ".block"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Store:
    def __init__(self, disk: Disk | None, max_bytes: int = MAX_BYTES, max_known: int = MAX_KNOWN) -> None:
        """``disk``: where the files are; None keeps everything in memory."""
        self._disk, self._max_bytes, self._max_known = disk, max_bytes, max_known
        self.registry = Registry()
        self.tiers = [Tier(step, keep, self.registry) for step, keep in RESOLUTIONS]
        self._lock = threading.RLock()
        self._decoded: OrderedDict[Block, Decoded] = OrderedDict()
        self._earlier_since: int | None = None
        """The first time after the clock was turned back, while that is not believed yet."""
        self.problem = ""
        """Why data is lost or not on disk; empty if all is well."""
        if disk is not None:
            self._open(disk)

    # --- writing ---------------------------------------------------------------------------------------------

    def put(self, at_ms: int, ids: Ints, values: Floats, begun: Ints = NONE) -> None:
        """One frame: what was scraped at ``at_ms``, later than all before. ``ids`` are the registry's, each once.
        ``begun``: those of counters that have begun since the frame before, in which they were 0."""
        with self._lock:
            newest = max(tier.newest for tier in self.tiers)
            if at_ms >= newest - BACK_MS:
                if self._earlier_since is not None:
                    self._earlier_since, self.problem = None, ""
            elif not self._is_sure(at_ms, newest):
                return
            else:
                self._forget_later(at_ms, newest)
            if not len(ids) or at_ms <= self.tiers[0].newest:
                return
            for tier in self.tiers:
                tier.offer(at_ms, ids, values, begun)
                if len(tier.head.times) >= FRAMES:
                    self._seal(tier)
            if not self.tiers[0].head.times:
                self._trim(at_ms)

    def flush(self) -> None:
        """Everything to disk, as before the end."""
        with self._lock:
            for tier in self.tiers:
                tier.settle()
                if tier.head.times:
                    self._seal(tier)

    def _seal(self, tier: Tier) -> None:
        ids, contents = tier.head.contents(tier.step_ms)
        data = codec.encode(contents)
        block = Block(contents.times, ids, len(data))
        name = f"{tier.step_ms}-{block.start}-{block.end}{SUFFIX}"
        if self._disk is not None and self._write(self._disk, name, data):
            block.name = name
        else:
            block.data = data
        tier.blocks.append(block)
        tier.head = type(tier.head)(self.registry)  # the block takes over what the head held

    def _write(self, disk: Disk, name: str, data: bytes) -> bool:
        """Write a file; delete the oldest files if the disk is full."""
        while True:
            try:
                disk.write(name, data)
            except OSError as e:
                if e.errno in FULL and self._drop_oldest(on_disk=True):
                    self._complain(f"{disk} is full; the oldest metrics are deleted to store new ones")
                    continue
                self._complain(f"metrics stay in memory, since {disk} cannot be written: {e.strerror or e}")
                return False
            return True

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            log.warning(problem)
        self.problem = problem

    # --- forgetting ------------------------------------------------------------------------------------------

    def _trim(self, now_ms: int) -> None:
        for tier in self.tiers:
            while tier.blocks and tier.blocks[0].end < now_ms - tier.keep_ms:
                self._drop(tier.blocks.popleft())
        while (self.size > self._max_bytes or len(self.registry) > self._max_known) and self._drop_oldest():
            pass

    def _is_sure(self, at_ms: int, newest: int) -> bool:
        """Whether the clock has told the earlier time for long enough."""
        if self._earlier_since is None or at_ms < self._earlier_since:
            self._earlier_since = at_ms
            self._complain(
                f"the clock was turned back by {(newest - at_ms) // 1000} s; if it stays so for"
                f" {SURE_MS // 1000} s, metrics of later times are deleted"
            )
        return at_ms - self._earlier_since >= SURE_MS

    def _forget_later(self, at_ms: int, newest: int) -> None:
        """The clock was wrong: what was stored under later times would be in the way of everything until then."""
        self._complain(f"the clock was turned back by {(newest - at_ms) // 1000} s; metrics of later times are deleted")
        self._earlier_since = None
        for tier in self.tiers:
            while tier.blocks and tier.blocks[-1].end > at_ms:
                self._drop(tier.blocks.pop())
            tier.end_at(at_ms)

    def release(self, ids: Ints) -> None:
        """Undo ``registry.hold``."""
        with self._lock:
            gone = self.registry.release(ids)
            for tier in self.tiers:
                tier.forget(gone)

    def _drop_oldest(self, on_disk: bool = False) -> bool:
        """Whether there was a block to drop."""
        having = [t for t in self.tiers if t.blocks and (not on_disk or t.blocks[0].name)]
        if not having:
            return False
        oldest = min(having, key=lambda t: t.blocks[0].end)
        self._drop(oldest.blocks.popleft())
        return True

    def _drop(self, block: Block) -> None:
        self._decoded.pop(block, None)
        self.release(block.ids)
        if self._disk is not None and block.name:
            with contextlib.suppress(OSError):
                self._disk.remove(block.name)

    @property
    def size(self) -> int:
        """Bytes of all blocks."""
        return sum(b.size for t in self.tiers for b in t.blocks)

    # --- startup ---------------------------------------------------------------------------------------

    def _open(self, disk: Disk) -> None:
        by_step = {t.step_ms: t for t in self.tiers}
        try:
            for name in disk.names():
                if name.endswith(SUFFIX):
                    self._load(disk, name, by_step)
                elif name.endswith(".new"):
                    disk.remove(name)
        except OSError as e:
            self._complain(f"not all metrics of {disk} can be read: {e.strerror or e}")
        for tier in self.tiers:
            tier.blocks = type(tier.blocks)(sorted(tier.blocks, key=lambda b: b.start))
        for finer, coarser in pairwise(self.tiers):
            self._catch_up(finer, coarser)

    def _load(self, disk: Disk, name: str, by_step: dict[int, Tier]) -> None:
        data = disk.read(name)
        try:
            contents = codec.decode(data)
            tier = by_step[contents.step_ms]
            codec.unpack(contents.packed, len(contents.labels), len(contents.times))
        except (codec.Corrupt, KeyError) as e:
            self._complain(f"{name} of {disk} is damaged and was deleted: {e}")
            disk.remove(name)
            return
        numbers = np.array([self.registry.intern(labels) for labels in contents.labels], np.int64)
        # Rows are in the order of the labels, ids have to ascend.
        order = np.argsort(numbers)
        if np.any(order != np.arange(len(order))):
            values = codec.unpack(contents.packed, len(numbers), len(contents.times))[order]
            labels = [contents.labels[i] for i in order.tolist()]
            data = codec.encode(codec.Contents(contents.step_ms, contents.times, labels, codec.pack(values)))
            numbers = numbers[order]
            disk.write(name, data)
        self.registry.hold(numbers)
        tier.blocks.append(Block(contents.times, numbers, len(data), name))

    def _catch_up(self, finer: Tier, coarser: Tier) -> None:
        """What a process that was killed had not yet written of the coarser resolution is in the finer one."""
        since = coarser.newest
        for block in list(finer.blocks):
            if block.end <= since:
                continue
            values = self._contents(block).values
            for column in np.flatnonzero(block.times > since).tolist():
                there = np.flatnonzero(~codec.absent(values[:, column]))
                coarser.offer(int(block.times[column]), block.ids[there], values[there, column])
                if len(coarser.head.times) >= FRAMES:
                    self._seal(coarser)

    # --- reading ---------------------------------------------------------------------------------------------

    def select(
        self, chosen: Ints | Selector, start_ms: int, end_ms: int, step_ms: int, most: int, most_series: int = MAX_KNOWN
    ) -> Selection:
        """The samples of series from ``start_ms`` to ``end_ms``, both included, of the coarsest resolution that has one
        in ``step_ms``; older ones only come coarser, and the newest only finer. Raises TooMany beyond ``most`` samples
        and ``most_series``."""
        with self._lock:
            ids = self.registry.chosen(chosen) if isinstance(chosen, Selector) else chosen
            if len(ids) > most_series:
                raise TooMany(f"the query reads more than {most_series} series")
            names = self.registry.named(ids)
            found: list[tuple[Ints, Block | Floats]] = []  # (indices, block) or (times, values)
            for tier, since, until in self._cover(start_ms, end_ms, step_ms):
                for block in tier.blocks:
                    if block.end >= since and block.start <= until:
                        found.append((_between(block.times, since, until), block))
                head = np.array(tier.head.times, np.int64)
                if len(inside := _between(head, since, until)):
                    found.append((head[inside], tier.head.read(ids)[:, inside]))
        if sum(len(inside) for inside, _ in found) * max(len(ids), 1) > most:
            raise TooMany(f"query processing would load too many samples into memory ({most})")
        parts = [self._part(inside, what, ids) for inside, what in found if len(inside)]
        return Selection(names, np.concatenate([np.empty(0, np.int64), *(p.times for p in parts)]), parts)

    def _part(self, inside: Ints, what: Block | Floats, ids: Ints) -> Part:
        if not isinstance(what, Block):
            found = decoded(what)
            return Part(inside, found.values, found.steady, np.arange(len(ids)))
        places = np.minimum(np.searchsorted(what.ids, ids), len(what.ids) - 1)
        places = np.where(what.ids[places] == ids, places, -1)
        columns = slice(int(inside[0]), int(inside[-1]) + 1)
        if not (places >= 0).any():
            return Part(what.times[columns], np.empty((0, len(inside))), np.empty(0, np.bool_), places)
        return part(what.times[columns], self._contents(what), columns, places)

    def _cover(self, start_ms: int, end_ms: int, step_ms: int) -> list[tuple[Tier, int, int]]:
        """(tier, from, to), in the order of time, without overlaps."""
        base = max(i for i, t in enumerate(self.tiers) if t.step_ms <= max(step_ms, 0))
        out = []
        until = end_ms
        for index, tier in enumerate(self.tiers):  # the finest first: it has what the next one does not have yet
            coarser = self.tiers[index + 1 :]
            if index < base:
                since = max([start_ms, *(t.newest + 1 for t in self.tiers[index + 1 : base + 1] if t.newest)])
            else:
                since = max(start_ms, tier.oldest) if any(t.oldest < tier.oldest for t in coarser) else start_ms
            if since <= until:
                out.append((tier, since, until))
                until = since - 1
        return out[::-1]

    def _contents(self, block: Block) -> Decoded:
        """Empty of samples where the file was dropped, or damaged, in the meantime."""
        with self._lock:
            found = self._decoded.get(block)
            if found is not None:
                self._decoded.move_to_end(block)
                return found
        shape = len(block.ids), len(block.times)
        try:
            data = self._disk.read(block.name) if self._disk is not None and block.name else block.data
            found = decoded(codec.unpack(codec.payload(data), *shape))
        except (OSError, codec.Corrupt) as e:
            if not isinstance(e, FileNotFoundError):
                self._complain(f"{block.name} cannot be read: {e}")
            return decoded(codec.gaps(*shape))
        with self._lock:
            self._decoded[block] = found
            while sum(d.size for d in self._decoded.values()) > MAX_DECODED and len(self._decoded) > 1:
                self._decoded.popitem(last=False)
        return found

    def names(self, chosen: list[Selector], start_ms: int, end_ms: int, in_time: Callable[[], None]) -> Names:
        """The series that one of the selectors means (all without one) and that have samples in this time, by
        block. ``in_time`` is called between the steps, and may raise."""
        with self._lock:
            found = [b.ids for t in self.tiers for b in t.blocks if b.end >= start_ms and b.start <= end_ms]
            for head in (t.head for t in self.tiers):
                if head.times and head.times[-1] >= start_ms and head.times[0] <= end_ms:
                    found.append(np.array(head.ids, np.int64))
            there = np.unique(np.concatenate([np.empty(0, np.int64), *found]))
            if chosen:
                meant = np.empty(0, np.int64)
                for one in chosen:
                    in_time()
                    meant = np.union1d(meant, self.registry.chosen(one))
                there = np.intersect1d(there, meant)
            return self.registry.named(there)


def _between(times: Ints, since: int, until: int) -> Ints:
    """Indices of the times in a range."""
    return np.arange(np.searchsorted(times, since, "left"), np.searchsorted(times, until, "right"))
