"""Access to files below a directory that others write to: no name escapes it and no symbolic link is followed.

Every path is walked one component at a time from an open directory, each step with O_NOFOLLOW, so that a link created
between two steps is refused as well. (Kubernetes opens a subPath in the same way since CVE-2017-1002101; openat2's
RESOLVE_BENEATH would save system calls, but needs Linux 5.6.)
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from types import TracebackType

MAX_LINKS = 40
"""Linux's own limit for one path."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Unsafe(OSError):
    """A path that would escape its directory, or pass through a symbolic link; the message says which."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EPERM, message)


def parts(path: str) -> list[str]:
    """The components of a relative path. Raises Unsafe if it is absolute, empty, or contains ``..``."""
    found = [p for p in path.split("/") if p not in ("", ".")]
    if path.startswith("/") or not found or ".." in found or "\0" in path:
        raise Unsafe(f'"{path}" is not a relative path without ".."')
    return found


def resolved(top: str | os.PathLike[str], names: Sequence[str]) -> list[str]:
    """The components of a path below ``top``, with links resolved as for a process whose root is ``top``, so that none
    escapes it. The result contains no links unless somebody else writes there. Raises Unsafe for a loop of links."""
    done: list[str] = []
    todo, steps = list(names), 0
    while todo:
        name = todo.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            done = done[:-1]
            continue
        path = os.path.join(top, *done, name)
        if not os.path.islink(path):
            done.append(name)
            continue
        steps += 1
        if steps > MAX_LINKS:
            raise Unsafe(f'"{"/".join(names)}" has too many symbolic links')
        link = os.readlink(path)
        done = [] if link.startswith("/") else done
        todo = link.split("/") + todo
    return done


class Directory:
    """An open directory; a context manager that closes it."""

    def __init__(self, fd: int, shown: str) -> None:
        self.fd, self._shown = fd, shown

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Directory:
        """``path`` is trusted: links in it are followed. Raises OSError."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), str(path))

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        os.close(self.fd)

    def open_file(self, name: str, flags: int, mode: int = 0o644) -> int:
        """Open a file directly in this directory and return its descriptor. Raises Unsafe for a link, OSError
        otherwise."""
        try:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self.fd)
        except OSError as e:
            raise self._explained(e, name) from e

    def reference(self, name: str) -> int:
        """An O_PATH descriptor of whatever ``name`` is in this directory. Raises Unsafe for a link."""
        fd = self.open_file(name, os.O_PATH)
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._explained(OSError(errno.ELOOP, ""), name)
        return fd

    def directory(self, path: str, make: bool = False, mode: int = 0o755) -> Directory:
        """A directory below this one, created with its parents if ``make`` is set. Raises Unsafe, OSError."""
        return self.walk(parts(path), make, mode)

    def walk(self, components: list[str], make: bool = False, mode: int = 0o755) -> Directory:
        """Like ``directory``, for components returned by ``parts``; without any, this directory."""
        at = Directory(os.dup(self.fd), self._shown)
        for component in components:
            try:
                below = at._step(component, make, mode)
            finally:
                os.close(at.fd)
            at = below
        return at

    def _step(self, component: str, make: bool, mode: int) -> Directory:
        if make:
            try:
                os.mkdir(component, mode, dir_fd=self.fd)
            except FileExistsError:
                pass
        try:
            return Directory(os.open(component, _DIRECTORY, dir_fd=self.fd), f"{self._shown}/{component}")
        except OSError as e:
            raise self._explained(e, component) from e

    def read(self, path: str, limit: int | None = None) -> bytes | None:
        """A file's contents: all of it, its first ``limit`` bytes, or its last ``-limit`` bytes if that is negative;
        None if it does not exist. Raises Unsafe, OSError."""
        *above, name = parts(path)
        try:
            with self.walk(above) as where, os.fdopen(where.open_file(name, os.O_RDONLY | os.O_NONBLOCK), "rb") as f:
                if limit is not None and limit < 0:
                    f.seek(max(f.seek(0, os.SEEK_END) + limit, 0))
                return f.read(-1 if limit is None else abs(limit))
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes, mode: int = 0o644, group: int = -1) -> None:
        """Replace a file atomically (readers see the old bytes or the new); its directories are created."""
        *above, name = parts(path)
        with self.walk(above, make=True) as where:
            temporary = f".new-{os.urandom(8).hex()}"
            fd = where.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(fd, "wb") as f:
                    f.write(data)
                    f.flush()
                    if group >= 0:
                        os.fchown(f.fileno(), -1, group)
                    os.fchmod(f.fileno(), mode)
                os.rename(temporary, name, src_dir_fd=where.fd, dst_dir_fd=where.fd)
            except BaseException:
                os.unlink(temporary, dir_fd=where.fd)
                raise

    def files(self, above: str = "") -> Iterator[str]:
        """The paths of all files below, links included (they are not followed)."""
        for name in os.listdir(self.fd):
            try:
                below = self._step(name, False, 0)
            except OSError:
                yield above + name
                continue
            with below:
                yield from below.files(f"{above}{name}/")

    def unlink(self, path: str) -> None:
        *above, name = parts(path)
        with self.walk(above) as where:
            os.unlink(name, dir_fd=where.fd)

    def _explained(self, e: OSError, name: str) -> OSError:
        if e.errno == errno.ELOOP or (e.errno == errno.ENOTDIR and self._is_link(name)):
            return Unsafe(f'"{name}" in {self._shown} is a symbolic link, which is not followed here')
        return type(e)(e.errno, e.strerror, f"{self._shown}/{name}")

    def _is_link(self, name: str) -> bool:
        try:
            return os.readlink(name, dir_fd=self.fd) is not None
        except OSError:
            return False
