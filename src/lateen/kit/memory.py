"""Memory of a long-running process."""

from __future__ import annotations

import gc
import os


def settle() -> None:
    """Make the collector of cycles rare. The mesh is hundreds of thousands of objects that live long and are freed by
    their counts of references; with Python's defaults, most of the time of a build went into looking through them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def resident_mb() -> int:
    """Of this process, by /proc."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
