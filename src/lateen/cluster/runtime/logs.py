"""Container logs: what a container writes to its pipe goes to a file in the pod's directory, one timestamp per line."""

from __future__ import annotations

import contextlib
import os
import selectors
import time

from lateen.kit import beneath

LOG_LIMIT = 10 * 1024 * 1024
"""Bytes in a log file before it is rotated (Kubernetes: containerLogMaxSize, 10Mi)."""
_CHUNK = 256 * 1024


class LogPipe:
    """The read end of one container's stdout and stderr, registered with the runtime's selector."""

    def __init__(self, selector: selectors.BaseSelector, fd: int, directory: str, path: str) -> None:
        """``path`` is the log file, relative to the trusted ``directory``; links below it are not followed."""
        self._selector, self._fd, self._directory, self._path = selector, fd, directory, path
        os.set_blocking(fd, False)
        selector.register(fd, selectors.EVENT_READ, self._read)

    def drain(self) -> None:
        """Write whatever is still in the pipe, as when the container has exited."""
        while self._read():
            pass

    def _read(self) -> bool:
        """Whether there may be more to read."""
        if self._fd == -1:
            return False  # closed by drain() in the same round of events
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        if data:
            self._append(data)
            return True
        self._selector.unregister(self._fd)
        os.close(self._fd)
        self._fd = -1
        return False

    def _append(self, data: bytes) -> None:
        """Each line is prefixed with the time at which it was read; the last rotated file is kept."""
        now = time.time()
        prefix = (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09d}Z ").encode()
        lines = prefix + data.rstrip(b"\n").replace(b"\n", b"\n" + prefix) + b"\n"
        *parents, name = beneath.parts(self._path)
        with (
            contextlib.suppress(OSError),  # a full disk costs log lines, never the container
            beneath.Directory.open(self._directory) as pod,
            pod.walk(parents, make=True) as logs,
        ):
            fd = logs.open_file(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            with open(fd, "ab") as f:
                f.write(lines)
                size = f.tell()
            if size > LOG_LIMIT:
                old = name.removesuffix(".log") + ".old"
                os.rename(name, old, src_dir_fd=logs.fd, dst_dir_fd=logs.fd)
