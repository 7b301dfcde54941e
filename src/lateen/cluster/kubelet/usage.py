"""Resource usage of containers and the machine, read from /proc on request: no cgroups, no work while idle."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lateen.kit.digits import digits

PROC = Path("/proc")
SHORTEST_S, LONGEST_S = 1.0, 60.0
"""The least and the most seconds between the two samples of a rate."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """``cpu``: seconds of its own and of the children that it has waited for."""

    parent: int
    cpu: float


@dataclass(frozen=True)
class Look:
    """The totals at one instant (``at``: seconds of a steady clock), by container's PID; the machine's is 0.

    ``cpu`` in seconds since the start, ``memory`` in bytes.
    """

    at: float
    cpu: dict[int, float]
    memory: dict[int, int]


@dataclass(frozen=True)
class Usage:
    """``cpu`` in CPUs (1.5 is one and a half), ``memory`` in bytes, ``seconds`` of CPU time so far."""

    cpu: float
    memory: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Measured:
    """(CPUs, bytes) of the machine, and by (namespace, pod) and container; ``window``: seconds of the average; CPU time
    so far in ``node_seconds`` and ``seconds``."""

    node: tuple[float, int]
    containers: dict[tuple[str, str], dict[str, tuple[float, int]]]
    window: float
    node_seconds: float
    seconds: dict[tuple[str, str], dict[str, float]]


def processes(proc: Path = PROC) -> dict[int, Process]:
    found: dict[int, Process] = {}
    for entry in os.listdir(proc):
        if not digits(entry):
            continue
        try:
            fields = (proc / entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has just exited
        found[int(entry)] = Process(int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)
    return found


def below(pid: int, children: dict[int, list[int]]) -> list[int]:
    """A container's first process and everything that it has started, directly or not."""
    out = [pid]
    for found in out:
        out += children.get(found, [])
    return out


def memory_of(pid: int, proc: Path = PROC) -> int:
    """Bytes, where pages that several processes share count in proportion; 0 for a process that has gone."""
    try:
        for line in (proc / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not ours to look at in detail, or gone
    try:
        return int((proc / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def look(containers: Iterable[int], proc: Path = PROC) -> Look:
    known = processes(proc)
    children: dict[int, list[int]] = {}
    for pid, process in known.items():
        children.setdefault(process.parent, []).append(pid)
    cpu, memory = {0: _machine_cpu(proc)}, {0: _machine_memory(proc)}
    for container in containers:
        if container in known:
            pids = below(container, children)
            cpu[container] = sum(known[p].cpu for p in pids)
            memory[container] = sum(memory_of(p, proc) for p in pids)
    return Look(time.monotonic(), cpu, memory)


def _machine_cpu(proc: Path) -> float:
    user, nice, system, _idle, _iowait, *rest = map(int, (proc / "stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(rest)) / _TICKS


def _machine_memory(proc: Path) -> int:
    lines = (line.split() for line in (proc / "meminfo").read_text().splitlines())
    size = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
    return size["MemTotal"] - size.get("MemAvailable", size["MemFree"])


def between(first: Look, last: Look) -> dict[int, Usage]:
    """Usage between two samples; containers that are not in both are left out."""
    passed = max(last.at - first.at, 1e-6)
    return {
        pid: Usage(max(total - first.cpu[pid], 0.0) / passed, last.memory[pid])
        for pid, total in last.cpu.items()
        if pid in first.cpu
    }


def spent(known: dict[int, float], before: Look | None, now: Look) -> dict[int, float]:
    """Seconds of CPU time that never decrease, unlike a sum over processes, of which some have ended unawaited."""
    earlier = before.cpu if before else {}
    return {
        pid: known[pid] + max(total - earlier[pid], 0.0) if pid in known and pid in earlier else total
        for pid, total in now.cpu.items()
    }


class Meter:
    """Rates since the previous sample; if that is too old or missing, from two samples a second apart."""

    def __init__(self) -> None:
        self._last: Look | None = None
        self._made: tuple[dict[int, Usage], float] | None = None
        self._spent: dict[int, float] = {}
        self._lock = asyncio.Lock()

    async def read(self, containers: list[int]) -> tuple[dict[int, Usage], float]:
        """By PID (0 is the machine), and the seconds that the rates are of."""
        async with self._lock:
            first, now = self._last, time.monotonic()
            if self._made and first and now - first.at < SHORTEST_S and set(containers) <= set(first.cpu):
                return self._made
            if first is None or now - first.at > LONGEST_S or not set(containers) <= set(first.cpu):
                first = await asyncio.to_thread(look, containers)
                await asyncio.sleep(SHORTEST_S)
            last = await asyncio.to_thread(look, containers)
            self._spent = spent(self._spent, self._last, last)
            used = {pid: replace(usage, seconds=self._spent[pid]) for pid, usage in between(first, last).items()}
            self._last, self._made = last, (used, last.at - first.at)
            return self._made
