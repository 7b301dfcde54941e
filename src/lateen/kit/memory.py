"""Memory of a long-running process."""

from __future__ import annotations

import gc
import os


def settle() -> None:
    """Exempt all present objects from cyclic garbage collection, and run it rarely from now on.

    The mesh is hundreds of thousands of long-lived objects that are freed by reference counting; with Python's
    defaults, most of the time of a build was spent scanning them. Present cycles are not looked for first: after
    imports and lists there are none that are garbage, and to look for them took a tenth of istiod's start.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def resident_mb() -> int:
    """This process's memory, from /proc."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
