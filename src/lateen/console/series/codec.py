"""The bytes of a block: times and values of many series, compressed and checksummed. Pure.

A sample that does not exist is GAP; STALE says that the series has ended (Prometheus' marker, with its bit pattern).
Both are NaNs of their own, so that a NaN that was measured stays one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lateen.kit import jsons

Floats: TypeAlias = "NDArray[np.float64]"
Ints: TypeAlias = "NDArray[np.int64]"
Bools: TypeAlias = "NDArray[np.bool_]"
Labels = dict[str, str]

GAP_BITS = 0x7FF0000000000003
STALE_BITS = 0x7FF0000000000002
"""https://github.com/prometheus/prometheus/blob/main/model/value/value.go"""
MAGIC = b"LTNSER1\n"
LEVEL = 1
LONGEST_HEADER = 64 * 1024 * 1024


class Corrupt(Exception):
    """The bytes are not a whole block."""


@dataclass(frozen=True)
class Contents:
    """``values[i, j]`` is the value of the series ``labels[i]`` at ``times[j]`` (ms since 1970, ascending)."""

    step_ms: int
    times: Ints
    labels: list[Labels]
    packed: bytes
    """``pack(values)``."""


def gaps(rows: int, columns: int) -> Floats:
    out = np.empty((rows, columns), np.float64)
    out.view(np.int64).fill(GAP_BITS)
    return out


def marker(bits: int) -> float:
    return float(np.array([bits], np.int64).view(np.float64)[0])


def absent(values: Floats) -> Bools:
    """Where there is no sample at all."""
    return np.equal(values.view(np.int64), GAP_BITS)


def stale(values: Floats) -> Bools:
    return np.equal(values.view(np.int64), STALE_BITS)


def pack(values: Floats) -> bytes:
    """Most series do not change most of the time: XOR with the sample before makes zeros of that; the planes of bytes
    that are left compress well."""
    bits = np.ascontiguousarray(values).view(np.uint64)
    changed = bits.copy()
    changed[:, 1:] ^= bits[:, :-1]
    planes = changed.view(np.uint8).reshape(*values.shape, 8).transpose(2, 0, 1)
    return zlib.compress(planes.tobytes(), LEVEL)


def unpack(packed: bytes, rows: int, columns: int) -> Floats:
    """Raises Corrupt."""
    size = rows * columns * 8
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(packed, size + 1)
    except zlib.error as e:
        raise Corrupt(str(e)) from None
    if len(raw) != size:
        raise Corrupt(f"{size} bytes of values expected")
    planes = np.frombuffer(raw, np.uint8).reshape(8, rows, columns).transpose(1, 2, 0)
    changed = np.ascontiguousarray(planes).view(np.uint64).reshape(rows, columns)
    return np.bitwise_xor.accumulate(changed, axis=1).view(np.float64)


def encode(contents: Contents) -> bytes:
    head = zlib.compress(
        jsons.dumps({"step": contents.step_ms, "times": contents.times.tolist(), "labels": contents.labels}), LEVEL
    )
    body = len(head).to_bytes(4, "big") + head + contents.packed
    return MAGIC + zlib.crc32(body).to_bytes(4, "big") + body


def _checked(data: bytes) -> tuple[bytes, bytes]:
    """(compressed header, packed values). Raises Corrupt."""
    start = len(MAGIC) + 4
    if data[: len(MAGIC)] != MAGIC or len(data) < start + 4:
        raise Corrupt("not a block of series")
    if zlib.crc32(data[start:]).to_bytes(4, "big") != data[len(MAGIC) : start]:
        raise Corrupt("wrong checksum")
    size = int.from_bytes(data[start : start + 4], "big")
    return data[start + 4 : start + 4 + size], data[start + 4 + size :]


def payload(data: bytes) -> bytes:
    """The packed values alone. Raises Corrupt."""
    return _checked(data)[1]


def decode(data: bytes) -> Contents:
    """Raises Corrupt."""
    compressed, packed = _checked(data)
    try:
        head = jsons.loads(zlib.decompressobj().decompress(compressed, LONGEST_HEADER))
        return Contents(int(head["step"]), np.array(head["times"], np.int64), head["labels"], packed)
    except (zlib.error, ValueError, KeyError, TypeError) as e:
        raise Corrupt(str(e)) from None
