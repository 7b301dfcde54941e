"""The metrics of the agent itself, and of the Envoy that it runs."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from lateen import __version__


class Expiring(Protocol):
    """What expires at ``end``, in seconds since the epoch; 0: not known yet."""

    @property
    def end(self) -> float: ...


class Measure(NamedTuple):
    name: str
    type: str
    labels: tuple[str, ...]
    help: str


BUILD = Measure("istio_build", "gauge", ("component", "tag"), "1; the labels have the component and its version.")
UPTIME = Measure("istio_agent_uptime_seconds", "gauge", (), "Seconds since the agent was started.")
RESTARTS = Measure("istio_agent_envoy_restarts_total", "counter", (), "How often Envoy had to be started again.")
EXPIRY = Measure(
    "istio_agent_cert_expiry_seconds", "gauge", ("resource_name",), "Seconds until the workload's certificate expires."
)
CPU = Measure("istio_agent_envoy_cpu_seconds_total", "counter", ("type",), "Seconds of CPU that Envoy has used.")
MEMORY = Measure("istio_agent_envoy_memory_bytes", "gauge", ("type",), "Resident memory of Envoy in bytes.")
UNREAD = Measure(
    "istio_agent_requests_unread_total", "counter", (), "Requests that Envoy told of in lines that make no sense."
)
FORGOTTEN = Measure(
    "istio_agent_series_forgotten_total", "counter", (), "Sets of labels of requests that were more than are kept."
)
MEASURES = (BUILD, UPTIME, RESTARTS, EXPIRY, CPU, MEMORY, UNREAD, FORGOTTEN)
"""For the documentation."""


class Counting(Protocol):
    """What counts requests (``agent.requests``)."""

    unread: int
    forgotten: int


class Own:
    def __init__(self, type_: str, requests: Counting) -> None:
        """``type_``: ``sidecar`` or ``router``."""
        self._requests = requests
        self._type, self._started = type_, time.monotonic()
        self._before = 0.0
        self.restarts = 0
        self.envoy: int | None = None
        """The process; None while there is none."""
        self.certificates: Expiring | None = None

    def ended(self) -> None:
        """Envoy's process has: its CPU still counts."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._before, self.envoy = used.ru_utime + used.ru_stime, None
        self.restarts += 1

    def text(self) -> bytes:
        return "".join(line for m, value, labels in self._values() for line in _lines(m, value, labels)).encode()

    def _values(self) -> Iterator[tuple[Measure, float, Iterable[str]]]:
        yield BUILD, 1, ("proxy", __version__)
        yield UPTIME, round(time.monotonic() - self._started, 1), ()
        yield RESTARTS, self.restarts, ()
        if self.certificates is not None and (end := self.certificates.end):
            yield EXPIRY, round(end - time.time()), ("default",)
        if self.envoy is not None and (used := _used(self.envoy)):
            yield CPU, round(self._before + used[0], 2), (self._type,)
            yield MEMORY, used[1], (self._type,)
        yield UNREAD, self._requests.unread, ()
        yield FORGOTTEN, self._requests.forgotten, ()


def _lines(m: Measure, value: float, labels: Iterable[str]) -> Iterator[str]:
    named = ",".join(f'{name}="{of}"' for name, of in zip(m.labels, labels, strict=True))
    yield f"# TYPE {m.name} {m.type}\n"
    yield f"{m.name}{{{named}}} {value:.15g}\n" if named else f"{m.name} {value:.15g}\n"


def _used(pid: int) -> tuple[float, int] | None:
    """Seconds of CPU and bytes of memory; None where the process is gone. See proc(5), stat."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * resource.getpagesize()
    return None
