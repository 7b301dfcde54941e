"""Whom the files of a volume belong to: ``fsGroup``."""

from __future__ import annotations

import os
import stat

_FILE, _DIRECTORY = 0o660, 0o2770
"""What the group may do, beside what a file's mode says; new files inherit the group of a directory."""


def give(top: int, group: int) -> None:
    """Give everything below an open directory to a group, unless the directory itself belongs to it already: that of
    a pod without ``fsGroup``, or with another one. Raises OSError.

    Source: pkg/volume/volume_linux.go (SetVolumeOwnership), with the policy OnRootMismatch for every pod, because a
    node daemon that starts again prepares the volumes of containers that go on writing to them.
    """
    if os.fstat(top).st_gid == group:
        return
    for _, directories, files, at in os.fwalk(".", dir_fd=top, follow_symlinks=False):
        for name in (*directories, *files):
            _give(at, name, group)
    os.fchown(top, -1, group)


def _give(directory: int, name: str, group: int) -> None:
    """Through a descriptor: a container may put a link in the place of what was looked at."""
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISLNK(mode):
            path = f"/proc/self/fd/{fd}"
            os.chown(path, -1, group)
            os.chmod(path, stat.S_IMODE(mode) | (_DIRECTORY if stat.S_ISDIR(mode) else _FILE))
    finally:
        os.close(fd)
