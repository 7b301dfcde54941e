"""Users and groups that a container knows: those of the machine, or of the image's own files."""

from __future__ import annotations

import pwd
from pathlib import Path

from lateen.cluster.kubelet.security import Account
from lateen.kit import beneath
from lateen.kit.digits import digits

MAX_FILE = 1 << 20


class Accounts:
    """``rootfs``: the image's directory; empty for the machine's accounts."""

    def __init__(self, rootfs: str = "") -> None:
        self._rootfs = rootfs
        self.passwd, self.group = self._read("passwd"), self._read("group")

    def _read(self, name: str) -> str:
        try:
            inside = beneath.resolved(self._rootfs or "/", ["etc", name])
            with Path(self._rootfs or "/").joinpath(*inside).open("rb") as f:
                return f.read(MAX_FILE).decode(errors="replace")
        except OSError:
            return ""

    def of(self, uid: int) -> Account | None:
        if self._rootfs:
            return next((_account(line) for line in _lines(self.passwd, 6) if line[2] == str(uid)), None)
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return None
        return Account(entry.pw_name, entry.pw_gid, entry.pw_dir)

    def user(self, text: str) -> tuple[int, int | None] | None:
        """uid and gid of an image's ``User``: ``name``, ``uid``, with ``:group`` or ``:gid``; None where there is none.
        Raises LookupError."""
        if not text:
            return None
        name, _, group = text.partition(":")
        found = next((line for line in _lines(self.passwd, 6) if line[0] == name), None)
        if digits(name):
            uid, gid = int(name), None
        elif found is not None and digits(found[2]):
            uid, gid = int(found[2]), int(found[3]) if digits(found[3]) else None
        else:
            raise LookupError(f"the image has no user {name!r}")
        return uid, self._gid(group) if group else gid

    def _gid(self, text: str) -> int:
        if digits(text):
            return int(text)
        for line in _lines(self.group, 3):
            if line[0] == text and digits(line[2]):
                return int(line[2])
        raise LookupError(f"the image has no group {text!r}")


def _lines(text: str, colons: int) -> list[list[str]]:
    return [line.split(":") for line in text.splitlines() if line.count(":") >= colons]


def _account(line: list[str]) -> Account:
    return Account(line[0], int(line[3]) if digits(line[3]) else 0, line[5] or "/")
