"""Layers as a container engine keeps them, one directory each, become one directory.

A layer takes away what those below it have by whiteouts: character devices 0:0 and an attribute of directories
(overlayfs), or files with the prefix ``.wh.`` (fuse-overlayfs). Devices and pipes are left out, as in ``layers``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from lateen.cluster.kubelet.layers import OPAQUE, WHITEOUT, own_directories, remove, whole
from lateen.cluster.kubelet.oci import Unusable

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque")


def copy(layers: Sequence[Path], rootfs: Path, name: str, owners: bool) -> Path:
    """The directory ``name`` below ``rootfs``, copied from ``layers`` (the lowest first) if it is not there.
    ``owners``: keep the files' owners, which takes root. Raises Unusable, OSError."""

    def fill(new: Path) -> None:
        try:
            for layer in layers:
                _Layer(owners).put(layer, new)
        except PermissionError as e:
            if Path(str(e.filename)).is_relative_to(new):
                raise
            says = f"{e.filename} belongs to another user; export the image with podman save, and add it with --oci"
            raise Unusable(says) from e
        own_directories(new)

    return whole(rootfs, name, fill)


class _Layer:
    def __init__(self, owners: bool) -> None:
        self._owners = owners
        self._links: dict[tuple[int, int], Path] = {}
        """Where a file with several names has been put."""

    def put(self, source: Path, target: Path) -> None:
        entries = sorted(os.scandir(source), key=lambda e: e.name)
        hidden = [e.name.removeprefix(WHITEOUT) for e in entries if e.name.startswith(WHITEOUT) and e.name != OPAQUE]
        hidden += [e.name for e in entries if _is_whiteout(e.stat(follow_symlinks=False))]
        for name in hidden:
            if name not in ("", ".", ".."):
                remove(target / name)
        for entry in entries:
            if not entry.name.startswith(WHITEOUT):
                self._entry(Path(entry.path), target / entry.name, entry.stat(follow_symlinks=False))

    def _entry(self, source: Path, target: Path, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            if target.is_symlink() or not target.is_dir() or _is_opaque(source):
                remove(target)
                target.mkdir()
            target.chmod(0o700)  # a lower layer may have forbidden to write there
            self.put(source, target)
        elif stat.S_ISLNK(found.st_mode):
            remove(target)
            os.symlink(os.readlink(source), target)
        elif stat.S_ISREG(found.st_mode):
            remove(target)
            self._file(source, target, found)
        else:
            remove(target)  # it hides what lower layers have there
            return
        self._describe(target, found)

    def _file(self, source: Path, target: Path, found: os.stat_result) -> None:
        known = self._links.get((found.st_dev, found.st_ino))
        if known is not None and os.path.lexists(known):
            os.link(known, target)
            return
        shutil.copyfile(source, target)
        if found.st_nlink > 1:
            self._links[found.st_dev, found.st_ino] = target

    def _describe(self, target: Path, found: os.stat_result) -> None:
        """The owner first: a change of it clears setuid."""
        if self._owners:
            os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(target, stat.S_IMODE(found.st_mode))
        with contextlib.suppress(OSError, OverflowError):
            os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns), follow_symlinks=False)


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _is_opaque(directory: Path) -> bool:
    for name in _OPAQUE:
        with contextlib.suppress(OSError):
            if os.getxattr(directory, name, follow_symlinks=False) == b"y":
                return True
    return os.path.lexists(directory / OPAQUE)
