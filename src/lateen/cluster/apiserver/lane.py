"""The fast path: requests that arrive in one piece and are answered in one (nearly all), with strictly parsed heads.

aiohttp, which implements all of HTTP, handles everything else, and every connection from its first such request on.
Both parse the same requests identically.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from lateen.kit.digits import digits

MAX_HEAD = 8 * 1024
MAX_HEADERS = 128
MAX_BODY = 16 * 1024
"""Bytes; aiohttp's side counts what all larger bodies hold together."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_UNUSUAL = ("transfer-encoding", "content-encoding", "expect", "upgrade", "te", "trailer", "sec-websocket-protocol")


@dataclass(frozen=True, slots=True)
class Plain:
    """One request; names of headers are in lower case. ``closes``: the client wants no other one on this connection;
    ``size``: its bytes on the wire."""

    method: str
    path: str
    query: dict[str, str]
    headers: list[tuple[str, str]]
    body: bytes
    closes: bool
    size: int

    def header(self, name: str, default: str = "") -> str:
        return next((v for k, v in self.headers if k == name), default)


@dataclass(frozen=True, slots=True)
class Head:
    """A request up to its body, read once however slowly the body comes. ``start``, ``end``: of the body, in bytes."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    closes: bool
    start: int
    end: int

    def request(self, data: bytes) -> Plain | None:
        """The request that ``data`` begins with; None while its body is not complete."""
        if len(data) < self.end:
            return None
        path, _, query = self.target.partition("?")
        body = data[self.start : self.end]
        return Plain(self.method, path, _parameters(query), self.headers, body, self.closes, self.end)


class Unusual(Exception):
    """The request is not one that the fast path handles."""


def head(data: bytes) -> Head | None:
    """The head of the first request in ``data``; None while it is not complete. Raises Unusual."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0:
        if len(data) >= MAX_HEAD:
            raise Unusual
        return None
    try:
        text = data[:end].decode("ascii")
    except UnicodeDecodeError:
        raise Unusual from None
    first, *lines = text.split("\r\n")
    method, target = _requested(first)
    if len(lines) > MAX_HEADERS or "\0" in text:
        raise Unusual
    if text.count("\n") != len(lines) or text.count("\r") != len(lines):
        raise Unusual
    headers = [_header(line) for line in lines]
    length, closes = _framing(headers)
    return Head(method, target, headers, closes, end + 4, end + 4 + length)


def _requested(line: str) -> tuple[str, str]:
    words = line.split(" ")
    if len(words) != 3 or words[0] not in METHODS or words[2] != "HTTP/1.1":
        raise Unusual
    target = words[1]
    path = target.partition("?")[0]
    if not target.startswith("/") or "%" in path or "//" in path or "/." in path or "#" in target:
        raise Unusual
    return words[0], target


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.replace("-", "").isalnum():
        raise Unusual
    return name.lower(), value.strip(" \t")


def _framing(headers: list[tuple[str, str]]) -> tuple[int, bool]:
    """The body's length, and whether the client wants the connection closed."""
    length, closes, hosts = "", False, 0
    for name, value in headers:
        if name in _UNUSUAL:
            raise Unusual
        if name == "content-length":
            if length or not digits(value) or len(value) > 6 or int(value) > MAX_BODY:
                raise Unusual
            length = value
        elif name == "connection":
            if value.lower() not in ("close", "keep-alive"):
                raise Unusual
            closes = value.lower() == "close"
        hosts += name == "host"
    if hosts != 1:
        raise Unusual
    return int(length or 0), closes


def _parameters(query: str) -> dict[str, str]:
    """The first value of each parameter."""
    if not query:
        return {}
    out: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        out.setdefault(key, value)
    return out
