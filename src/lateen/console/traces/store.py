"""Spans on disk: bounded in age and size; traces with errors and the slow ones of each kind are kept longest.

One SQLite file, used by one thread at a time. Losing the last second of spans in a power failure is acceptable, so
writes are not synced one by one; the file itself survives a crash (WAL). Even to delete, SQLite has to write, so a file
beside it holds some room that is given up when the disk is full.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import apsw

from lateen.console.traces.asking import DAMAGED, Asking
from lateen.console.traces.packing import pack
from lateen.console.traces.spans import Span

log = logging.getLogger("lateen.console.traces")

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
SLOW = 0.95
"""From this rank on, among the traces of the same root, a trace is slow."""


class Store(Asking):
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
            try:
                if self._one("PRAGMA user_version") != VERSION:
                    self._begin_anew()
                self._prepare()
            except DAMAGED as e:
                self._renew(e)
        except apsw.Error as e:
            raise OSError(f"{path} cannot be used for traces: {e}") from e

    def _prepare(self) -> None:
        self._set(
            "journal_mode=WAL", "synchronous=NORMAL", f"wal_autocheckpoint={LOG}", f"journal_size_limit={RESERVE}"
        )
        self._db.execute(SCHEMA)

    def _renew(self, why: apsw.Error) -> None:
        """In place of a file that is damaged."""
        self._complain(f"{self._path} was damaged, and the traces in it are lost: {why}")
        self._begin_anew()
        self._prepare()

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

    def add(self, spans: Sequence[Span], now: int) -> None:
        """``now``: microseconds since 1970. A span that is there already is replaced. Never raises for a full disk:
        old traces make room, and what does not fit then is counted in ``lost``."""
        for at in range(0, len(spans), AT_ONCE):
            self._add(spans[at : at + AT_ONCE], now)
        self.tidy(now, only_if_needed=True)

    def _add(self, spans: Sequence[Span], now: int) -> None:
        for again in (False, True):
            try:
                with self._db:
                    self._insert(spans)
                break
            except DAMAGED as e:
                if again:
                    self.lost += len(spans)
                self._renew(e)
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

    def tidy(self, now: int, only_if_needed: bool = False) -> None:
        """``trim``, as far as the disk lets it."""
        try:
            self.trim(now, only_if_needed)
        except DAMAGED as e:
            self._renew(e)
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
