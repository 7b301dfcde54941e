"""Container logs: what a container writes goes to a file in the pod's directory, one timestamp per line, and to whoever
is attached."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import time

from lateen.kit import beneath

LOG_LIMIT = 10 * 1024 * 1024
"""Bytes in a log file before it is rotated (Kubernetes: containerLogMaxSize, 10Mi)."""
_CHUNK = 256 * 1024


class Log:
    """The log file of one run of a container, for both of its outputs."""

    def __init__(self, directory: str, path: str) -> None:
        """``path`` is relative to the trusted ``directory``; links below it are not followed."""
        self._directory, self._path = directory, path

    def append(self, data: bytes) -> None:
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


class _Follower:
    """The write end of a pipe to somebody who is attached, and what they have not taken yet."""

    def __init__(self, fd: int) -> None:
        self.fd, self.pending = fd, b""


class Output:
    """Our end of one output of a container (a pipe, or the master of its terminal), registered with the selector.

    While somebody who is attached does not read, nothing more is read from the container, which therefore blocks as on
    any full pipe: about one chunk is held in memory for each of them.
    """

    def __init__(self, selector: selectors.BaseSelector, fd: int, log: Log) -> None:
        self._selector, self._fd, self._log = selector, fd, log
        self._followers: list[_Follower] = []
        self._paused = False
        os.set_blocking(fd, False)
        selector.register(fd, selectors.EVENT_READ, self._readable)

    def follow(self, fd: int) -> None:
        """Copy what is written from now on to a pipe, too; ``fd`` is closed when either end is done."""
        if self._fd == -1:
            os.close(fd)
            return
        os.set_blocking(fd, False)
        follower = _Follower(fd)
        self._followers.append(follower)
        # A pipe's write end never becomes readable; it reports an error as soon as its reader has gone.
        self._selector.register(fd, selectors.EVENT_READ, lambda: self._event(follower))

    def drain(self) -> None:
        """Read whatever is still there, as when the container has exited."""
        while self._read():
            pass

    def _readable(self) -> None:
        if not self._paused:  # by another event of the same round
            self._read()

    def _read(self) -> bool:
        """Whether there may be more to read."""
        if self._fd == -1:
            return False  # closed by drain() in the same round of events
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError as e:  # a terminal that nobody holds any more
            if e.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self.close()
            return False
        self._log.append(data)
        for follower in self._followers[:]:
            follower.pending += data
            self._flush(follower)
        return True

    def close(self) -> None:
        """Stop reading; those attached still get what they have not taken yet."""
        if self._fd == -1:
            return
        if not self._paused:
            self._selector.unregister(self._fd)
        os.close(self._fd)
        self._fd = -1
        for follower in self._followers[:]:
            self._flush(follower)

    def _event(self, follower: _Follower) -> None:
        if follower not in self._followers:
            return  # dropped in the same round of events
        if follower.pending:
            self._flush(follower)
        else:
            self._drop(follower)

    def _flush(self, follower: _Follower) -> None:
        try:
            if follower.pending:
                follower.pending = follower.pending[os.write(follower.fd, follower.pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(follower)
            return
        if not follower.pending and self._fd == -1:
            self._drop(follower)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if follower.pending else 0)
        self._selector.modify(follower.fd, wanted, lambda: self._event(follower))
        self._pause_or_go_on()

    def _drop(self, follower: _Follower) -> None:
        self._selector.unregister(follower.fd)
        os.close(follower.fd)
        self._followers.remove(follower)
        self._pause_or_go_on()

    def _pause_or_go_on(self) -> None:
        full = any(f.pending for f in self._followers)
        if self._fd == -1 or full == self._paused:
            return
        self._paused = full
        if full:
            self._selector.unregister(self._fd)
        else:
            self._selector.register(self._fd, selectors.EVENT_READ, self._readable)
