"""Counters of bytes of open connections: Envoy writes totals so far, and this module adds the increments.

Each metric with its labels is a series, like Envoy's own counters; ``metrics`` adds both.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from lateen.agent.pipes import Lines, Pipe
from lateen.wire import connections as wire

SERIES, LABELS = 5_000, 4 * 1024 * 1024
"""The maximum number of series, and of characters of their labels; the latest ones are kept."""
FORGOTTEN_S, LOOK_S = 24 * 3600.0, 60.0
"""Seconds after which a connection without news is presumed to have ended (its last line was lost), and the interval of
checks for such."""

Series = tuple[str, str]
"""(metric, labels in Prometheus' text format)"""


class Connections:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[int, str], tuple[int, float]] = {}
        """(connection, metric) -> bytes so far, and when that was"""
        self._totals: dict[Series, int] = {}
        self._size = 0
        """Characters of the labels of all series"""
        self._lines, self._pipe = Lines(), Pipe(self.take)
        self._looked = clock()

    def open(self, path: Path = Path(wire.PIPE)) -> None:
        """Create the pipe and start reading from it. Raises OSError."""
        self._pipe.open(path)

    def read_now(self) -> None:
        """Process what is already in the pipe."""
        self._pipe.read_now()

    def restarted(self) -> None:
        """Envoy has ended: its counters are 0, and connection ids are reused. What it has written before is still about
        its own connections."""
        self._pipe.read_now()
        self._seen.clear()
        self._totals.clear()
        self._size = 0
        self._lines.restart()

    def take(self, text: bytes) -> None:
        """Process a chunk of Envoy's output."""
        for line in self._lines.of(text):
            # Envoy may die while writing, which leaves half a line
            with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
                self._count(json.loads(line))
        self._forget()

    def _count(self, line: dict[str, object]) -> None:
        number, counts, ended = line[wire.ID], line[wire.COUNTS], line[wire.WHEN] == wire.END
        if not isinstance(number, int) or not isinstance(counts, list):
            raise TypeError
        now = self._clock()
        for name, total, labels in counts:
            if not isinstance(total, int | float):
                raise TypeError
            total = int(total)  # Envoy writes round numbers as 1e+05, which json reads as a float
            before, _ = self._seen.pop((number, name), (0, 0.0))
            more = max(0, total - before)
            if not ended:
                self._seen[number, name] = total, now
            key = name, ",".join(f'{label}="{_escaped(value)}"' for label, value in labels)
            self._size += 0 if key in self._totals else len(key[1])
            self._totals[key] = self._totals.pop(key, 0) + more  # move to the end: most recently used

    def _forget(self) -> None:
        while len(self._totals) > SERIES or self._size > LABELS:
            oldest = next(iter(self._totals))
            del self._totals[oldest]
            self._size -= len(oldest[1])
        now = self._clock()
        if now - self._looked > LOOK_S:
            self._looked = now
            self._seen = {k: v for k, v in self._seen.items() if now - v[1] < FORGOTTEN_S}

    def text(self) -> bytes:
        """In Prometheus' text format, with Envoy's prefix."""
        lines = (f"envoy_istio_{name}{{{labels}}} {total}\n" for (name, labels), total in self._totals.items())
        return "".join(lines).encode()


def _escaped(value: object) -> str:
    """A label value in Prometheus' escaping; Envoy writes nothing for unknown values."""
    text = "-" if value is None else str(value)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
