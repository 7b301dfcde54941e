"""Reads a bbolt database (https://github.com/etcd-io/bbolt) without its lock: what the last finished transaction wrote.

A page that is in use is never overwritten, only pages that no transaction needs any more. So whoever reads while others
write may meet a page of a later transaction; that is noticed by its number or its kind, or by what is missing, and
reading again helps.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

MAGIC, VERSION = 0xED0CDAED, 2
_PAGE, _META = struct.Struct("<QHHI"), struct.Struct("<IIIIQQQQQQ")
_LEAF, _BRANCH = struct.Struct("<IIII"), struct.Struct("<IIQ")
_BUCKET = 16
"""Bytes of the head of a bucket; a small bucket's only page follows it."""
IS_BRANCH, IS_LEAF, IS_BUCKET = 1, 2, 1
DEEPEST = 32


class Broken(Exception):
    """The file is none, or it changes while it is read."""


class Bucket:
    def __init__(self, data: bytes, size: int, root: int, inline: bytes = b"") -> None:
        self._data, self._size, self._root, self._inline = data, size, root, inline

    def bucket(self, *path: bytes) -> Bucket | None:
        found: Bucket | None = self
        for key in path:
            found = found and found.buckets().get(key)
        return found

    def buckets(self) -> dict[bytes, Bucket]:
        """Raises Broken."""
        out = {}
        for key, value, bucket in self._entries():
            if bucket and len(value) < _BUCKET:
                raise Broken("a bucket has no head")
            if bucket:
                root = struct.unpack_from("<Q", value)[0]
                out[key] = Bucket(self._data, self._size, root, b"" if root else value[_BUCKET:])
        return out

    def values(self) -> dict[bytes, bytes]:
        """Raises Broken."""
        return {key: value for key, value, bucket in self._entries() if not bucket}

    def _entries(self) -> Iterator[tuple[bytes, bytes, bool]]:
        try:
            yield from self._page(self._inline) if self._inline else self._numbered(self._root, 0)
        except (struct.error, OverflowError) as e:
            raise Broken(f"a page is not where it should be: {e}") from None

    def _numbered(self, number: int, depth: int) -> Iterator[tuple[bytes, bytes, bool]]:
        at = number * self._size
        found, _, _, overflow = _PAGE.unpack_from(self._data, at)
        if found != number or depth > DEEPEST:
            raise Broken(f"page {number} is not where it should be")
        yield from self._page(self._data[at : at + (overflow + 1) * self._size], depth)

    def _page(self, page: bytes, depth: int = 0) -> Iterator[tuple[bytes, bytes, bool]]:
        _, flags, count, _ = _PAGE.unpack_from(page)
        for i in range(count):
            at = _PAGE.size + i * _LEAF.size  # elements of both kinds have this size
            if flags & IS_BRANCH:
                yield from self._numbered(_BRANCH.unpack_from(page, at)[2], depth + 1)
            elif flags & IS_LEAF:
                kind, position, keys, values = _LEAF.unpack_from(page, at)
                start = at + position
                key, value = page[start : start + keys], page[start + keys : start + keys + values]
                if len(key) + len(value) != keys + values:
                    raise Broken("an entry ends behind its page")
                yield key, value, bool(kind & IS_BUCKET)
            else:
                raise Broken("a page is of another kind")


def root(path: Path) -> Bucket:
    """Raises Broken, OSError."""
    data = path.read_bytes()
    metas = [m for at in _heads(data) if (m := _meta(data, at))]
    if not metas:
        raise Broken(f"{path} is not a bbolt database")
    _, size, top = max(metas)
    return Bucket(data, size, top)


def _heads(data: bytes) -> list[int]:
    """Where the two heads may be: the second one is at the second page, whose size the first one has."""
    sizes = {1 << n for n in range(9, 17)}
    return [_PAGE.size, *(size + _PAGE.size for size in sorted(sizes) if size + _PAGE.size + _META.size <= len(data))]


def _meta(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Number of the transaction, size of a page, page of the root; None where there is no valid head."""
    try:
        magic, version, size, _, top, _, _, _, transaction, checksum = _META.unpack_from(data, at)
    except struct.error:
        return None
    whole = _checksum(data[at : at + _META.size - 8]) == checksum
    return (transaction, size, top) if (magic, version) == (MAGIC, VERSION) and whole else None


def _checksum(data: bytes) -> int:
    """FNV-1a with 64 bits."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = ((found ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return found
