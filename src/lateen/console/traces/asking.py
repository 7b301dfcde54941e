"""Questions about the spans on disk, with bounds: answers are no larger than a response may be, and take no longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import apsw

from lateen.console.traces.packing import unpack
from lateen.console.traces.spans import Span

T = TypeVar("T")

DAMAGED = (apsw.CorruptError, apsw.NotADBError)
"""What SQLite says of a file that is damaged, in the middle or at its beginning."""
SCANNED = 2000
"""Traces that a query looks at, the latest first."""
STEPS = 10_000
"""Of SQLite, between two looks at the clock."""
MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of spans, before they are compressed, in one answer."""


@dataclass(frozen=True)
class Query:
    """Times in microseconds; empty fields match everything."""

    service: str = ""
    name: str = ""
    kind: str = ""
    tags: dict[str, str] = field(default_factory=dict, hash=False)
    """Each must be a tag of the span with this value; with an empty value, just be there, or have happened."""
    remote: str = ""
    """The service that the span says is at the other end."""
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
            and (not self.remote or s.remote == self.remote)
            and all(_has(s, k, v) for k, v in self.tags.items())
        )

    @property
    def of_bodies(self) -> bool:
        """Whether spans have to be unpacked to know whether they match."""
        return bool(self.tags or self.remote)


def _has(s: Span, key: str, value: str) -> bool:
    if key in s.tags:
        return value in ("", s.tags[key])
    return not value and any(e.fields.get("event") == key for e in s.events)


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


class Asking:
    _db: apsw.Connection

    def _renew(self, why: apsw.Error) -> None:
        raise NotImplementedError

    def _one(self, sql: str, *values: Any) -> Any:
        return next(iter(self._db.execute(sql, values)))[0]

    def within(self, limit_s: float, work: Callable[[], T]) -> T:
        """``work`` with this store. Raises TooMuch when it takes longer."""
        deadline = time.monotonic() + limit_s
        self._db.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
        try:
            return work()
        except DAMAGED as e:
            self._renew(e)
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
        for number, _ in list(self._db.execute(sql, (*values, SCANNED if q.of_bodies else q.limit))):
            size = self._bytes(number)
            if size > left:
                continue
            spans = self.trace(number)
            if not q.of_bodies or any(q.matches(s) for s in spans):
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
