"""Files of a volume that change all at once, in the layout of Kubernetes' volumes.

``..data`` is a link to a directory with all files, and what is beside it are links through it: ``..data`` is replaced
when something has changed, which is what programs that reload their configuration wait for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat

from lateen.kit import beneath, times

Files = dict[str, tuple[bytes, int]]
"""Path in the volume -> contents and mode."""

DATA = "..data"
_NEW = "..data_tmp"


def publish(directory: beneath.Directory, files: Files, group: int = -1) -> None:
    """Have the directory contain exactly these files. Raises OSError, Unsafe for a path that would leave it."""
    wanted = {"/".join(_parts(path)): (data, _mode(mode, group)) for path, (data, mode) in files.items()}
    before = _version(directory)
    if before is None or _read(directory, before) != wanted:
        _link(directory, _written(directory, wanted, group), DATA)
    _show(directory, {path.partition("/")[0] for path in wanted})
    current = _version(directory)
    for name in os.listdir(directory.fd):
        if name.startswith("..") and name not in (DATA, current):
            _remove(directory, name)


def _parts(path: str) -> list[str]:
    found = beneath.parts(path)
    if found[0].startswith(".."):
        raise beneath.Unsafe(f'"{path}" begins with "..", as only the volume\'s own links do')
    return found


def _written(directory: beneath.Directory, files: Files, group: int) -> str:
    """The name of a new directory with the files."""
    version = f"..{times.stamp().replace(':', '_')}.{os.urandom(4).hex()}"
    try:
        with directory.directory(version, make=True) as made:
            os.fchmod(made.fd, 0o755)
            for path, (data, mode) in files.items():
                made.write(path, data, mode, group)
    except OSError:
        shutil.rmtree(version, ignore_errors=True, dir_fd=directory.fd)
        raise
    return version


def _mode(mode: int, group: int) -> int:
    return mode | (0o440 if group >= 0 else 0)


def _version(directory: beneath.Directory) -> str | None:
    """The name of the directory with the files."""
    try:
        found = os.readlink(DATA, dir_fd=directory.fd)
    except OSError:
        return None
    return found if found.startswith("..") and "/" not in found and len(found) > 2 else None


def _read(directory: beneath.Directory, version: str) -> Files | None:
    try:
        with directory.directory(version) as made:
            found: Files = {}
            for path in made.files():
                *above, name = beneath.parts(path)
                with made.walk(above) as where:
                    mode = stat.S_IMODE(os.stat(name, dir_fd=where.fd, follow_symlinks=False).st_mode)
                found[path] = (made.read(path) or b"", mode)
            return found
    except OSError:
        return None


def _show(directory: beneath.Directory, names: set[str]) -> None:
    """Links to the files, or to the outermost of their directories."""
    for name in names:
        target = f"{DATA}/{name}"
        try:
            if os.readlink(name, dir_fd=directory.fd) == target:
                continue
        except OSError:
            pass  # there is none, or a file of an earlier version of Lateen
        _link(directory, target, name)
    for name in os.listdir(directory.fd):
        if not name.startswith("..") and name not in names:
            _remove(directory, name)


def _link(directory: beneath.Directory, target: str, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_NEW, dir_fd=directory.fd)
    os.symlink(target, _NEW, dir_fd=directory.fd)
    try:
        os.rename(_NEW, name, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
    except IsADirectoryError:
        _remove(directory, name)
        os.rename(_NEW, name, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)


def _remove(directory: beneath.Directory, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory.fd)
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=directory.fd)
