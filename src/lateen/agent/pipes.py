"""Pipes to which Envoy writes lines, as to the file of an access log."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

CHUNK, CAPACITY = 64 * 1024, 1024 * 1024
"""Bytes that are read at once (for larger pieces, Python asks the kernel for new memory each time), and that a busy
pipe holds before Envoy's own thread for logs waits."""
PAUSE_S = 0.2
"""The longest time from the first bytes until they are read: Envoy writes pieces of a few lines each, and to be woken
up for each of them costs more than to count the lines. It is shorter where the pipe would be full before."""
LEAST_S = 0.001
LONGEST = 64 * 1024
"""The maximum length of a line in bytes; longer ones are ignored."""


class Pipe:
    """``take``: called with the text that Envoy has written since the last time, in pieces of any size."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._file = -1
        self._pause_s, self._capacity = PAUSE_S, CHUNK

    def open(self, path: Path) -> None:
        """Create the pipe and start reading from it. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISFIFO(path.stat().st_mode):
                path.unlink()
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # also open for writing: otherwise reads would return EOF whenever Envoy is not running
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._capacity = fcntl.fcntl(self._file, fcntl.F_GETPIPE_SZ)
        asyncio.get_running_loop().add_reader(self._file, self._soon)

    def _soon(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._file)
        loop.call_later(self._pause_s, self._later)

    def _later(self) -> None:
        try:
            found = self._read()
            if found > self._capacity // 2 and not self._grown():
                self._pause_s = max(self._pause_s / 2, LEAST_S)
            elif found < self._capacity // 4:
                self._pause_s = min(2 * self._pause_s, PAUSE_S)
        finally:  # a pipe that nobody reads any more grows in Envoy's memory
            asyncio.get_running_loop().add_reader(self._file, self._soon)

    def _grown(self) -> bool:
        """Make the pipe larger, unless it is already, or its user has too many: see pipe(7)."""
        if self._capacity >= CAPACITY:
            return False
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._file, fcntl.F_SETPIPE_SZ, CAPACITY)
        before, self._capacity = self._capacity, fcntl.fcntl(self._file, fcntl.F_GETPIPE_SZ)
        return self._capacity > before

    def _read(self) -> int:
        """The number of bytes."""
        found = 0
        with contextlib.suppress(BlockingIOError):
            for _ in range(CAPACITY // CHUNK):
                text = os.read(self._file, CHUNK)
                found += len(text)
                self._take(text)
        return found

    def read_now(self) -> None:
        """Process what is already in the pipe; of a writer that has ended, that is all."""
        if self._file >= 0:
            self._read()


class Lines:
    """Whole lines of a text that comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, text: bytes) -> list[bytes]:
        lines = text.split(b"\n")
        lines[0] = self._rest + lines[0]
        self._rest = lines.pop()
        if len(self._rest) > LONGEST:
            self._rest = b""
        return lines

    def restart(self) -> None:
        """Who wrote the last line has died."""
        self._rest = b""
