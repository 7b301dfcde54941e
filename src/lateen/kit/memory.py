"""Memory of a long-running process."""

from __future__ import annotations

import gc
import os


def settle() -> None:
    """Run the cyclic garbage collector rarely. The mesh is hundreds of thousands of long-lived objects that are freed
    by reference counting; with Python's defaults, most of a build's time was spent scanning them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def resident_mb() -> int:
    """This process's memory, from /proc."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
