"""The durable half of the store: one writer connection, WAL, one fsync for each group of writes.

apsw carries its own SQLite: the one in many Python builds has the WAL-reset corruption bug.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

SCHEMA = 1


class StoreFull(OSError):
    """The write was refused because the disk is full; nothing was changed."""


class StoreBroken(OSError):
    """The database cannot be read or written."""


class Sqlite:
    """Rows of (key, revision, body); writing replaces a row, and its revision becomes the cluster's latest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = apsw.Connection(str(path))
            path.chmod(0o600)
            for setting in ("busy_timeout=2000", "journal_mode=WAL", "synchronous=FULL"):
                list(self._db.execute(f"PRAGMA {setting}"))  # some answer, and take effect when they are read
            (version,) = next(self._db.execute("PRAGMA user_version"))
            if version > SCHEMA:
                raise StoreBroken(f"{path} was written by a newer lateen (schema {version}); use that version")
            if version < SCHEMA:  # a write, for whose fsync each start would wait
                self._db.execute(
                    f"""CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, rv INTEGER, body BLOB) WITHOUT ROWID;
                    CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 1), rv INTEGER);
                    INSERT OR IGNORE INTO revision VALUES (1, 1); PRAGMA user_version={SCHEMA};"""
                )
        except apsw.Error as e:
            raise StoreBroken(f"{path} cannot be opened: {e}; move it away to start empty") from e

    def load(self) -> tuple[int, Iterator[tuple[str, int, bytes]]]:
        (rv,) = next(self._db.execute("SELECT rv FROM revision"))
        return rv, iter(self._db.execute("SELECT key, rv, body FROM objects ORDER BY rv"))

    def write(self, rows: Sequence[tuple[int, str, bytes | None]]) -> None:
        """Write rows, in order, all or none; one whose body is None is deleted. Durable on return. Raises StoreFull or
        StoreBroken."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for rv, key, body in rows:
                if body is None:
                    self._db.execute("DELETE FROM objects WHERE key = ?", (key,))
                else:
                    self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (key, rv, body))
            self._db.execute("UPDATE revision SET rv = ?", (rows[-1][0],))
            self._db.execute("COMMIT")
        except apsw.Error as e:
            self._undo()
            if isinstance(e, apsw.FullError):
                raise StoreFull(f"no space left for {self.path}; free some, then repeat the command") from e
            raise StoreBroken(f"{self.path}: {e}") from e

    def _undo(self) -> None:
        """SQLite has rolled back by itself after some errors, a full disk among them."""
        if self._db.in_transaction:
            with contextlib.suppress(apsw.Error):
                self._db.execute("ROLLBACK")

    def close(self) -> None:
        self._db.close()
