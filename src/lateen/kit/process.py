"""What a process of ours says about itself, under the names of Prometheus' client libraries."""

from __future__ import annotations

import contextlib
import os
import resource
import time

from lateen.kit.metrics import Registry


def measure(r: Registry) -> None:
    """Add the metrics; their values are read at each scrape."""
    cpu = r.total("process_cpu_seconds_total", "User and system CPU time in seconds.")
    cpu.read = lambda: {(): sum(resource.getrusage(resource.RUSAGE_SELF)[:2])}
    memory = r.gauge("process_resident_memory_bytes", "Resident memory in bytes.")
    memory.read = lambda: {(): _memory(1)}
    virtual = r.gauge("process_virtual_memory_bytes", "Virtual memory in bytes.")
    virtual.read = lambda: {(): _memory(0)}
    files = r.gauge("process_open_fds", "Open file descriptors.")
    files.read = lambda: {(): len(os.listdir("/proc/self/fd"))}
    started = _started()
    start = r.gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.")
    start.read = lambda: {(): started}


def _started() -> float:
    """Seconds since 1970, from the ticks since boot of /proc/self/stat; see proc(5)."""
    with open("/proc/self/stat") as f:
        ticks = float(f.read().rpartition(")")[2].split()[19])
    since_boot = ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot


def _memory(column: int) -> float:
    """A column of /proc/self/statm in bytes: 0 is the total size, 1 the resident size. See proc(5)."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as f:
        return float(f.read().split()[column]) * os.sysconf("SC_PAGE_SIZE")
    return 0.0
