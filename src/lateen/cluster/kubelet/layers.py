"""Unpacks the layers of an image into a directory: each layer's files go on top of earlier ones; whiteouts delete.

Names in an archive never lead out of the directory: links are followed only as the image itself would see them
(``beneath.resolved``), and nothing else writes there meanwhile. Devices are left out: containers have some of the
machine's.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from lateen.cluster import kernel
from lateen.cluster.kubelet.accounts import Accounts
from lateen.cluster.kubelet.oci import Checked, Layout, Manifest, Unusable, stop_signal
from lateen.kit import beneath
from lateen.kit.jsons import Json

MAX_BYTES, MAX_ENTRIES = 16 << 30, 1_000_000
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
_CHUNK = 1 << 20
_OWN = ("dev", "etc", "proc", "sys")
"""Directories that the runtime mounts or writes in."""


def unpack(layout: Layout, manifest: Manifest, rootfs: Path, owners: bool, name: str = "") -> Path:
    """The directory with the image's files below ``rootfs``, called ``name`` or by the digest, made if it is not there.
    ``owners``: keep the files' owners, which takes root. Raises Unusable, OSError."""

    def fill(new: Path) -> None:
        made = _Unpacked(new, owners)
        for layer in manifest.layers:
            with layout.blob(layer.digest) as blob:
                made.add(blob, layer.compressed)
        made.finish()

    return whole(rootfs, name or manifest.digest.replace(":", "-"), fill)


def whole(rootfs: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """The directory ``name`` below ``rootfs``; ``fill`` makes it if it is not there, and it appears at once, with all
    of its files on the disk: whoever finds it after a power failure takes it for complete."""
    rootfs.mkdir(mode=0o700, exist_ok=True)
    done = rootfs / name
    if done.exists():
        return done
    new = rootfs / f".new-{os.urandom(8).hex()}"
    new.mkdir()
    try:
        fill(new)
        kernel.sync(new)
        new.rename(done)
    finally:
        with contextlib.suppress(OSError):
            remove(new)
    return done


def entry(rootfs: Path, config: Json) -> Json:
    """What the catalogue keeps of an unpacked image; ``config``: what it says of its command. Raises Unusable,
    LookupError."""
    return {
        "rootfs": str(rootfs),
        "command": config.get("Entrypoint") or [],
        "arguments": config.get("Cmd") or [],
        "env": dict(str(e).partition("=")[::2] for e in config.get("Env") or []),
        "user": Accounts(str(rootfs)).user(str(config.get("User") or "")),
        "directory": config.get("WorkingDir") or "",
        "stop": stop_signal(config.get("StopSignal")),
    }


def own_directories(top: Path) -> None:
    """Add the directories that every container has. Raises Unusable."""
    for name in _OWN:
        path = top / name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise Unusable(f"/{name} of the image is not a directory")
        path.mkdir(exist_ok=True)
    for name, mode in (("run", 0o755), ("tmp", 0o1777)):
        if not os.path.lexists(top / name):
            (top / name).mkdir()
            (top / name).chmod(mode)
    top.chmod(0o755)


class _Unpacked:
    def __init__(self, top: Path, owners: bool) -> None:
        self._top, self._owners = top, owners
        self._bytes, self._entries = MAX_BYTES, MAX_ENTRIES
        self._directories: dict[Path, tarfile.TarInfo] = {}
        self._fresh: set[Path] = set()
        """What the layer in hand has put there: its whiteouts are about earlier ones."""

    def add(self, blob: Checked, compressed: bool) -> None:
        self._fresh = set()
        try:
            # Streams are read only, whatever the type says.
            with tarfile.open(fileobj=cast(IO[bytes], blob), mode="r|gz" if compressed else "r|") as archive:
                for member in archive:
                    self._entries -= 1
                    if self._entries < 0:
                        raise Unusable(f"the image has more than {MAX_ENTRIES} files")
                    self._put(archive, member)
        except (tarfile.TarError, EOFError, ValueError) as e:
            raise Unusable(f"a layer is not a readable archive: {e}") from None
        blob.verify()

    def finish(self) -> None:
        """Set the modes of directories, which may forbid to write in them, and add those that every container has."""
        own_directories(self._top)
        for path, member in sorted(self._directories.items(), reverse=True):
            # A later layer may have put a link in the place of a directory above it.
            if path.is_dir() and self._inside(list(path.relative_to(self._top).parts)) == path:
                self._describe(path, member)

    def _put(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        names = [n for n in member.name.split("/") if n not in ("", ".")]
        if ".." in names or "\0" in member.name:
            raise Unusable(f"a layer has the file {member.name!r}, which is outside of the image")
        if not names:
            return
        *above, name = names
        parent = self._inside(above)
        if name == OPAQUE:
            self._clear(parent)
            return
        if name.startswith(WHITEOUT):
            gone = name.removeprefix(WHITEOUT)
            if gone in ("", ".", ".."):
                raise Unusable(f"a layer has the whiteout {member.name!r}, which names nothing")
            self._take_away(parent / gone)
            return
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise Unusable(f"a layer has {member.name!r}, but a part of this path is a file") from None
        path = parent / name
        self._make(archive, member, path)
        self._fresh.update(p for p in (path, *path.parents) if self._top in p.parents)

    def _inside(self, names: list[str]) -> Path:
        try:
            return self._top.joinpath(*beneath.resolved(self._top, names))
        except beneath.Unsafe as e:
            raise Unusable(str(e.strerror)) from None

    def _clear(self, parent: Path) -> None:
        for path in parent.iterdir() if parent.is_dir() and not parent.is_symlink() else ():
            self._take_away(path)

    def _take_away(self, path: Path) -> None:
        if path not in self._fresh:
            remove(path)
        elif path.is_dir() and not path.is_symlink():
            self._clear(path)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        if member.isdir():
            if path.is_symlink() or not path.is_dir():
                remove(path)
                path.mkdir()
            self._directories[path] = member
            return
        if not (member.isfile() or member.issym() or member.islnk()):
            remove(path)  # a device or a pipe, which hides what earlier layers have there
            return
        if member.islnk():
            *above, name = [n for n in member.linkname.split("/") if n not in ("", ".")] or [""]
            source = self._inside(above) / name
            if name in ("", "..") or not (source.is_symlink() or source.is_file()):
                raise Unusable(
                    f"{member.name!r} is a hard link to {member.linkname!r}, which is not a file of the image"
                )
            if source != path:
                remove(path)
                os.link(source, path, follow_symlinks=False)  # the link itself, where there is one
            return
        remove(path)
        if member.issym():
            os.symlink(member.linkname, path)
        else:
            self._copy(archive, member, path)
        self._describe(path, member)

    def _copy(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        source = archive.extractfile(member)
        assert source is not None
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with source, os.fdopen(fd, "wb") as target:
            while data := source.read(_CHUNK):
                self._bytes -= len(data)
                if self._bytes < 0:
                    raise Unusable(f"the image's files have more than {MAX_BYTES >> 30} GiB together")
                target.write(data)

    def _describe(self, path: Path, member: tarfile.TarInfo) -> None:
        """Set owner, mode and time. The owner first: changing it clears setuid."""
        if self._owners:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if not member.issym():
            os.chmod(path, stat.S_IMODE(member.mode))
        with contextlib.suppress(OSError, OverflowError):
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def remove(path: Path) -> None:
    """A file, or a directory with everything in it, whatever its modes forbid. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        path.chmod(0o700)
        for inner in list(path.iterdir()):
            remove(inner)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
