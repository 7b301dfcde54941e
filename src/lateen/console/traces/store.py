"""Spans on disk: bounded in age and size; traces with errors and the slow ones of each kind are kept longest.

One SQLite file, used by one thread at a time. Losing the last second of spans in a power failure is acceptable, so
writes are not synced one by one; the file itself survives a crash (WAL). Even to delete, SQLite has to write, so a file
beside it holds some room that is given up when the disk is full.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import apsw

from lateen.console.traces.packing import pack, unpack
from lateen.console.traces.spans import Span

log = logging.getLogger("lateen.console.traces")
T = TypeVar("T")

VERSION = 3
"""Of the file; one of another version is deleted."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS traces(
  id TEXT PRIMARY KEY, start INT, stop INT, service TEXT, name TEXT, error INT, spans INT, bytes INT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS traces_by_start ON traces(start);
CREATE TABLE IF NOT EXISTS spans(
  trace TEXT, id TEXT, shared INT, parent TEXT, service TEXT, name TEXT, kind TEXT, start INT, stop INT, error INT,
  bytes INT, body BLOB, UNIQUE(trace, id, shared));
CREATE INDEX IF NOT EXISTS spans_by_service ON spans(service, kind, start);
CREATE INDEX IF NOT EXISTS spans_by_start ON spans(start);
"""
MAX_SPANS = 2000
"""Of one trace; more are left out."""
SCANNED = 2000
"""Traces that a query looks at, the latest first."""
STEPS = 10_000
"""Of SQLite, between two looks at the clock."""
AT_ONCE, VACUUMED = 200, 200
"""Spans that one transaction adds or traces that it removes, and pages that one gives back."""
LOG = 256
"""Pages in the write-ahead log from which on it is written to the file."""
ROOM = 0.8
"""The share of the bound that is left after old traces were removed."""
FREED = 0.25
"""The share of the traces that is removed when the disk is full."""
RESERVE = 4 * 1024 * 1024
"""Bytes that are held back for then: more than the log has, which goes into the file before anything can be deleted."""
MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of spans, before they are compressed, in one answer."""
SLOW = 0.95
"""From this rank on, among the traces of the same root, a trace is slow."""


@dataclass(frozen=True)
class Query:
    """Times in microseconds; empty fields match everything."""

    service: str = ""
    name: str = ""
    kind: str = ""
    tags: dict[str, str] = field(default_factory=dict, hash=False)
    """Each must be a tag of the span with this value; with an empty value, just be there."""
    start: int = 0
    stop: int = 1 << 53
    shortest: int = 0
    longest: int = 1 << 53
    errors: bool = False
    limit: int = 20

    @property
    def of_any_span(self) -> bool:
        """Whether it is about whole traces: nothing is asked of one span but an error or tags."""
        return not (self.service or self.name or self.kind or self.shortest or self.longest < 1 << 53)

    def matches(self, s: Span) -> bool:
        return (
            (not self.service or s.service == self.service)
            and (not self.name or s.name == self.name)
            and self.shortest <= s.duration <= self.longest
            and (not self.errors or s.error)
            and all(k in s.tags and v in ("", s.tags[k]) for k, v in self.tags.items())
        )


@dataclass(frozen=True)
class Dropped:
    """A service whose calls begin new traces while it handles a request: it does not propagate trace headers."""

    service: str
    calls: int
    """The number of such calls."""
    of: int
    """The number of all its calls that begin a trace."""
    example: str
    """One of these traces."""
    within: str
    """The trace that it should belong to."""


class TooMuch(Exception):
    """A response would be too large or take too long; the message suggests a narrower query."""


class Store:
    def __init__(self, path: Path, max_bytes: int, max_age_s: int) -> None:
        """``max_bytes``: of the file. Raises OSError where it cannot be used."""
        self._max_bytes, self._max_age_us = max_bytes, max_age_s * 1_000_000
        self.lost = 0
        """Spans that were not stored: too many in one trace, or no room on the disk."""
        self.problem = ""
        """Why spans are lost; empty if all is well."""
        self._path, self._reserve = path, path.with_name(f"{path.name}.reserve")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._hold_room()
            self._db = apsw.Connection(str(path))
            if self._one("PRAGMA user_version") != VERSION:
                self._begin_anew()
            self._set(
                "journal_mode=WAL", "synchronous=NORMAL", f"wal_autocheckpoint={LOG}", f"journal_size_limit={RESERVE}"
            )
            self._db.execute(SCHEMA)
        except apsw.Error as e:
            raise OSError(f"{path} cannot be used for traces: {e}") from e

    def _begin_anew(self) -> None:
        """With an empty file, since a file that has tables never becomes one that can shrink."""
        self._db.close()
        for path in (self._path, *(self._path.with_name(f"{self._path.name}-{end}") for end in ("wal", "shm"))):
            path.unlink(missing_ok=True)
        self._db = apsw.Connection(str(self._path))
        self._set("auto_vacuum=INCREMENTAL", f"user_version={VERSION}")

    def _set(self, *settings: str) -> None:
        """Some settings answer, and those after the first answer take effect only when it has been read."""
        for setting in settings:
            list(self._db.execute(f"PRAGMA {setting}"))

    def close(self) -> None:
        self._db.close()

    @property
    def size(self) -> int:
        """Bytes of the file that are in use."""
        pages = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
        return int(pages * self._one("PRAGMA page_size"))

    def _one(self, sql: str, *values: Any) -> Any:
        return next(iter(self._db.execute(sql, values)))[0]

    # --- writing -----------------------------------------------------------------------------------------------------

    def add(self, spans: Sequence[Span], now: int) -> None:
        """``now``: microseconds since 1970. A span that is there already is replaced. Never raises for a full disk:
        old traces make room, and what does not fit then is counted in ``lost``."""
        for at in range(0, len(spans), AT_ONCE):
            self._add(spans[at : at + AT_ONCE], now)
        self._quietly_trim(now, only_if_needed=True)

    def _add(self, spans: Sequence[Span], now: int) -> None:
        for again in (False, True):
            try:
                with self._db:
                    self._insert(spans)
                break
            except (apsw.FullError, apsw.IOError) as e:
                if again:
                    self.lost += len(spans)
                    self._complain(f"{self._path} cannot be written, and spans are lost: {e}")
                else:
                    self._complain(f"the disk of {self._path} is full; the oldest traces are deleted to store new ones")
                    self._make_room(now)

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            log.warning(problem)
        self.problem = problem

    def _hold_room(self) -> None:
        """As far as there is any."""
        with contextlib.suppress(OSError), self._reserve.open("ab") as f:
            os.posix_fallocate(f.fileno(), 0, RESERVE)

    def _make_room(self, now: int) -> None:
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)
        try:
            self._shorten()
            self.trim(now)
            self._remove_oldest(FREED)
            self._shorten()
        except apsw.Error as e:
            log.warning("old traces cannot be removed: %s", e)
        self._hold_room()

    def _shorten(self) -> None:
        """Give back what the write-ahead log takes."""
        with contextlib.suppress(apsw.Error):
            self._set("wal_checkpoint(TRUNCATE)")

    def _insert(self, spans: Sequence[Span]) -> None:
        counts: dict[str, int] = {}
        for s in spans:
            if s.trace not in counts:
                found = list(self._db.execute("SELECT spans FROM traces WHERE id = ?", (s.trace,)))
                counts[s.trace] = found[0][0] if found else 0
            if counts[s.trace] >= MAX_SPANS:
                self.lost += 1
                continue
            body, size = pack(s)
            stop, key = s.start + s.duration, (s.trace, s.id, int(s.shared))
            row = (*key, s.parent, s.service, s.name, s.kind, s.start, stop, int(s.error), size, body)
            old = list(self._db.execute("SELECT bytes FROM spans WHERE trace=? AND id=? AND shared=?", key))
            self._db.execute("INSERT OR REPLACE INTO spans VALUES(?,?,?,?,?,?,?,?,?,?,?,?)", row)
            new, grown = (0, size - old[0][0]) if old else (1, size)
            counts[s.trace] += new
            self._db.execute(
                "INSERT INTO traces VALUES(?,?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET "
                "service = CASE WHEN excluded.start < start THEN excluded.service ELSE service END, "
                "name = CASE WHEN excluded.start < start THEN excluded.name ELSE name END, "
                "start = min(start, excluded.start), stop = max(stop, excluded.stop), "
                "error = max(error, excluded.error), spans = spans + excluded.spans, bytes = bytes + excluded.bytes",
                (s.trace, s.start, stop, s.service, s.name, int(s.error), new, grown),
            )

    def _quietly_trim(self, now: int, only_if_needed: bool = False) -> None:
        try:
            self.trim(now, only_if_needed)
        except apsw.Error as e:
            log.warning("old traces cannot be removed: %s", e)

    def trim(self, now: int, only_if_needed: bool = False) -> None:
        """Remove what is too old, then, if there is too much, the oldest ordinary traces, then the oldest of all."""
        with self._db:
            self._remove(
                r[0] for r in self._db.execute("SELECT id FROM traces WHERE stop < ?", (now - self._max_age_us,))
            )
        self._shrink()
        most = self._max_bytes if only_if_needed else self._max_bytes // 2
        if (size := self.size) > most:
            self._remove_oldest(1 - ROOM * most / size)

    def _remove_oldest(self, share: float) -> None:
        """Traces of this share of all bytes; the ordinary ones first."""
        excess = share * self._one("SELECT coalesce(sum(bytes), 0) FROM traces")
        sql = (
            "SELECT id, bytes FROM (SELECT id, bytes, start, error, percent_rank() OVER "
            "(PARTITION BY service, name ORDER BY stop - start) AS rank FROM traces) "
            "ORDER BY error OR rank >= ?, start"
        )
        gone = []
        ranked = self._db.cursor()
        for trace, size in ranked.execute(sql, (SLOW,)):
            if excess <= 0:
                break
            gone.append(trace)
            excess -= size
        ranked.close()  # open, it would keep the log from being begun anew
        for at in range(0, len(gone), AT_ONCE):
            with self._db:
                self._remove(gone[at : at + AT_ONCE])
            self._shorten()
            self._shrink()

    def _shrink(self) -> None:
        """Give back the free pages of the file, except a few that new spans need soon. In small steps, each written to
        the file before the next: what waits in the log takes room, too."""
        for _ in range(self._one("PRAGMA freelist_count") // VACUUMED):
            self._set(f"incremental_vacuum({VACUUMED})")
            self._shorten()

    def _remove(self, traces: Iterable[str]) -> None:
        for trace in list(traces):
            self._db.execute("DELETE FROM spans WHERE trace = ?", (trace,))
            self._db.execute("DELETE FROM traces WHERE id = ?", (trace,))

    # --- asking ------------------------------------------------------------------------------------------------------

    def within(self, limit_s: float, work: Callable[[], T]) -> T:
        """``work`` with this store. Raises TooMuch when it takes longer."""
        deadline = time.monotonic() + limit_s
        self._db.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
        try:
            return work()
        except apsw.InterruptError:
            raise TooMuch(f"it takes more than {limit_s:g} s; ask for a shorter time or one service") from None
        finally:
            self._db.set_progress_handler(None)

    def traces(self, numbers: Iterable[str]) -> list[list[Span]]:
        """Those that are there, each once. Raises TooMuch."""
        out, left = [], MAX_ANSWER
        for number in dict.fromkeys(numbers):
            left -= self._bytes(number)
            if left < 0:
                raise TooMuch(f"these traces have more than {MAX_ANSWER >> 20} MB; ask for fewer at once")
            if found := self.trace(number):
                out.append(found)
        return out

    def _bytes(self, number: str) -> int:
        return int(self._one("SELECT coalesce(sum(bytes), 0) FROM traces WHERE id = ?", number))

    def trace(self, number: str) -> list[Span]:
        """In the order of their starts; empty if there is no such trace."""
        rows = self._db.execute("SELECT body FROM spans WHERE trace = ? ORDER BY start, shared", (number,))
        return [unpack(r[0]) for r in rows]

    def find(self, q: Query) -> list[list[Span]]:
        """Traces that have a span as wanted, the latest first: as many as fit into an answer."""
        where, values = ["start BETWEEN ? AND ?"], [q.start, q.stop]
        for column, value in (("service", q.service), ("name", q.name), ("kind", q.kind)):
            if value:
                where.append(f"{column} = ?")
                values.append(value)  # type: ignore[arg-type]
        if q.errors:
            where.append("error = 1")
        where.append("stop - start BETWEEN ? AND ?")
        values += [q.shortest, min(q.longest, 1 << 53)]
        sql = f"SELECT trace, max(start) FROM spans WHERE {' AND '.join(where)} GROUP BY trace ORDER BY 2 DESC LIMIT ?"
        if q.of_any_span:  # then the traces say it, of which there are fewer
            sql = f"SELECT id, start FROM traces WHERE {' AND '.join(where)} ORDER BY 2 DESC LIMIT ?"
        out, left = [], MAX_ANSWER
        for number, _ in list(self._db.execute(sql, (*values, SCANNED if q.tags else q.limit))):
            size = self._bytes(number)
            if size > left:
                continue
            spans = self.trace(number)
            if not q.tags or any(q.matches(s) for s in spans):
                out.append(spans)
                left -= size
                if len(out) >= q.limit:
                    break
        return out

    def services(self) -> list[str]:
        return [r[0] for r in self._db.execute("SELECT DISTINCT service FROM spans ORDER BY service LIMIT 5000")]

    def names(self, service: str, kind: str = "") -> list[tuple[str, str]]:
        """(name, kind) of the spans of a service."""
        sql = (
            "SELECT DISTINCT name, kind FROM spans WHERE service = ? AND (? = '' OR kind = ?) ORDER BY name LIMIT 5000"
        )
        return [(r[0], r[1]) for r in self._db.execute(sql, (service, kind, kind))]

    def remotes(self, service: str) -> list[str]:
        return sorted({c for p, c, _, _ in self.calls(0, 1 << 53) if p == service})

    def calls(self, start: int, stop: int) -> list[tuple[str, str, int, int]]:
        """(calling service, called service, calls, failed calls) of the spans that began between two times."""
        sql = (
            "SELECT p.service, c.service, count(*), sum(c.error) FROM spans c JOIN spans p ON p.trace = c.trace AND "
            "p.id = CASE WHEN c.shared THEN c.id ELSE c.parent END AND p.shared <= (NOT c.shared) "
            "WHERE c.start BETWEEN ? AND ? AND p.service <> c.service GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return [tuple(r) for r in self._db.execute(sql, (start, stop))]

    def dropped(self, start: int, stop: int) -> list[Dropped]:
        """Services that do not propagate trace headers."""
        sql = (
            "SELECT c.service, c.trace, (SELECT s.trace FROM spans s WHERE s.service = c.service AND s.kind = 'SERVER' "
            "AND s.start BETWEEN c.start - 60000000 AND c.start AND s.stop >= c.start AND s.trace <> c.trace LIMIT 1) "
            "FROM spans c WHERE c.parent = '' AND c.kind = 'CLIENT' AND c.start BETWEEN ? AND ? "
            "ORDER BY c.start DESC LIMIT 5000"
        )
        found: dict[str, list[tuple[str, str | None]]] = {}
        for service, own, outer in self._db.execute(sql, (start, stop)):
            found.setdefault(service, []).append((own, outer))
        out = []
        for service, calls in sorted(found.items()):
            inside = [(own, outer) for own, outer in calls if outer]
            if inside and 2 * len(inside) >= len(calls):
                out.append(Dropped(service, len(inside), len(calls), inside[0][0], inside[0][1] or ""))
        return out
