"""Memory of a long-running process."""

from __future__ import annotations

import gc
import os


def settle() -> None:
    """Exempt all present objects from cyclic garbage collection, and run it rarely from now on.

    The mesh consists of hundreds of thousands of long-lived objects that are freed by reference counting; with Python's
    defaults, most of the time of a build was spent scanning them. No collection runs first: after the imports and
    the initial lists there are no garbage cycles, and looking for some took a tenth of istiod's startup time.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def resident_mb() -> int:
    """This process's resident memory in MB, from /proc."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
