"""Memory of a long-running process."""

from __future__ import annotations

import gc
import os
from asyncio import sslproto

TLS_RECORD = 16 * 1024


def settle() -> None:
    """Exempt all present objects from cyclic garbage collection, and run it rarely from now on.

    The mesh consists of hundreds of thousands of long-lived objects that are freed by reference counting; with Python's
    defaults, most of the time of a build was spent scanning them. No collection runs first: after the imports and
    the initial lists there are no garbage cycles, and looking for some took a tenth of istiod's startup time.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    gc.enable()


def bound_connections() -> None:
    """Let connections of strangers cost little memory, and not for long; after ``settle``.

    A TLS connection that fails, and a request that is none, leave a cycle behind: an exception with the frames that it
    went through, and the connection in them. asyncio has a buffer of 256 KiB for each; a record of TLS is smaller.
    """
    sslproto.SSLProtocol.max_size = TLS_RECORD
    gc.set_threshold(10_000, 10, 5_000)


def resident_mb() -> int:
    """This process's resident memory in MB, from /proc."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
