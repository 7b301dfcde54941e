"""Files of a container image's layers: those of Debian packages and of wheels, without running or unpacking anything.

A layer is a mapping of paths (no leading slash) to entries. Its archive depends on nothing but them: sorted, with
numeric owners, no time later than ``SOURCE_DATE_EPOCH``.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import marshal
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

LAUNCHER = '#!/bin/sh\nexec python3 -m {module} "$@"\n'
_MERGED = ("bin", "sbin", "lib", "lib64")
"""Links to directories of the same name below /usr (https://wiki.debian.org/UsrMerge)."""
_LEFT_OUT = re.compile(r"usr/share/(man|info|locale|lintian|bug|doc/(?!.*/copyright$)[^/]+/)")


@dataclass(frozen=True)
class Entry:
    """``kind``: a type of ``tarfile``; ``target``: of a link."""

    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    uid: int = 0
    gid: int = 0
    time: int | None = None


Files = dict[str, Entry]


def link(target: str) -> Entry:
    return Entry(kind=tarfile.SYMTYPE, mode=0o777, target=target)


def directory(mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(kind=tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def archive(files: Files, epoch: int) -> tuple[bytes, bytes]:
    """The layer as tar and compressed."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        # A hard link stands behind what it links to.
        for name in sorted(files, key=lambda n: (files[n].kind == tarfile.LNKTYPE, n)):
            entry = files[name]
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.linkname = entry.kind, entry.mode, entry.target
            member.size, member.uid, member.gid = len(entry.data), entry.uid, entry.gid
            member.mtime = min(epoch if entry.time is None else entry.time, epoch)
            tar.addfile(member, io.BytesIO(entry.data))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as out:
        out.write(raw.getvalue())
    return raw.getvalue(), packed.getvalue()


# --- Debian packages -----------------------------------------------------------------------------------------------


class Apt:
    """apt with a state of its own below ``state``, for one architecture; the sources and keys are this machine's."""

    def __init__(self, state: Path, architecture: str) -> None:
        self._archives = state / "cache" / "archives"
        for path in (state / "lists" / "partial", self._archives / "partial", state / "cache" / "none" / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        (state / "status").write_text("")
        options = {
            "Dir::State": state,
            "Dir::State::lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",
            "Debug::NoLocking": "1",
            "Acquire::Languages": "none",
        }
        self._command = ["apt-get", "-qq", *(f"-o{k}={v}" for k, v in options.items())]

    def update(self) -> None:
        """Raises CalledProcessError."""
        self._run("update")

    def downloaded(self, packages: Iterable[str]) -> list[Path]:
        """The files of these packages and of what they depend on, sorted by name. Raises CalledProcessError."""
        install = ["install", "--no-install-recommends", "-y", *packages]
        # What is downloaded already would not be listed.
        listed = self._run(*install, "--print-uris", f"-oDir::Cache::archives={self._archives.parent / 'none'}")
        self._run(*install, "--download-only")
        return [self._archives / name for name in sorted(re.findall(r"^'\S+' (\S+\.deb) ", listed, re.MULTILINE))]

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._command, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout


def of_packages(paths: Iterable[Path]) -> Files:
    """What Debian packages contain, without most documentation, and what is known of them, for those who look for
    vulnerable versions (``/var/lib/dpkg/status.d``, as in images without dpkg's own state)."""
    out: Files = {}
    for path in paths:
        for name, data in _parts(path.read_bytes()):
            if name.startswith("control.tar"):
                with tarfile.open(fileobj=io.BytesIO(data)) as control:
                    file = control.extractfile("./control")
                    assert file is not None
                    out[f"var/lib/dpkg/status.d/{path.name.partition('_')[0]}"] = Entry(file.read())
            elif name.startswith("data.tar"):
                out |= dict(_members(data))
    return out | {name: link(f"usr/{name}") for name in _MERGED}


def _parts(package: bytes) -> Iterator[tuple[str, bytes]]:
    """A package is an ``ar`` archive (deb(5)): 60 bytes of header each, even offsets."""
    at = len(b"!<arch>\n")
    while at < len(package):
        header = package[at : at + 60]
        size = int(header[48:58])
        yield header[:16].decode().strip().rstrip("/"), package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def _members(data: bytes) -> Iterator[tuple[str, Entry]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for m in tar:
            name = _merged(m.name)
            if not name or name in _MERGED or _LEFT_OUT.match(name + "/" * m.isdir()):
                continue
            file = tar.extractfile(m) if m.isfile() else None
            target = _merged(m.linkname) if m.islnk() else m.linkname
            yield name, Entry(file.read() if file else b"", m.mode, m.type, target, m.uid, m.gid, int(m.mtime))


def _merged(name: str) -> str:
    name = name.removeprefix("./").strip("/").removeprefix(".")
    return f"usr/{name}" if name.partition("/")[0] in _MERGED and "/" in name else name


def certificates(files: Files) -> bytes:
    """The authorities of ``ca-certificates`` in one file, as its installation would write it."""
    return b"".join(
        files[n].data.rstrip() + b"\n"
        for n in sorted(files)
        if n.startswith("usr/share/ca-certificates/") and n.endswith(".crt")
    )


# --- wheels --------------------------------------------------------------------------------------------------------


def of_wheel(path: Path, site: str) -> Files:
    """What a wheel contains, at ``site``; programs at usr/local/bin
    (https://packaging.python.org/specifications/binary-distribution-format)."""
    out: Files = {}
    with zipfile.ZipFile(path) as wheel:
        for info in wheel.infolist():
            if info.is_dir():
                continue
            first, _, rest = info.filename.partition("/")
            at = f"{site}/{info.filename}"
            if first.endswith(".data"):
                kind, _, rest = rest.partition("/")
                at = {"purelib": f"{site}/{rest}", "platlib": f"{site}/{rest}", "scripts": f"usr/local/bin/{rest}"}.get(
                    kind, f"usr/local/{rest}"
                )
            data = wheel.read(info)
            if data.startswith(b"#!python"):
                data = b"#!/usr/bin/python3" + data[len(b"#!python") :]
            program = bool(info.external_attr >> 16 & 0o111) or at.startswith("usr/local/bin/")
            out[at] = Entry(data, 0o755 if program else 0o644)
    return out


def compiled(files: Files) -> Files:
    """The bytecode of the modules among ``files``: containers cannot write it, and would compile at every start.

    It is for the Python that runs this. Version 2 of ``marshal`` keeps no count of references, on which the bytes would
    depend, and "unchecked" bytecode no time; sets of constants take ``PYTHONHASHSEED``.
    """
    out: Files = {}
    tag = sys.implementation.cache_tag
    for name, entry in files.items():
        above, _, module = name.rpartition("/")
        if not module.endswith(".py") or entry.kind != tarfile.REGTYPE:
            continue
        try:
            code = compile(entry.data, f"/{name}", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue  # a template, or a test of the parser
        head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(entry.data)
        at = f"{above}/__pycache__/{module.removesuffix('.py')}.{tag}.pyc"
        out[at] = replace(entry, data=head + marshal.dumps(code, 2), mode=0o644)
    return out
