"""Objects and lists in the form that the client requests: complete, as a Table, or only their metadata."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from lateen.cluster.apiserver import reading, tables
from lateen.cluster.apiserver.call import Call, Listing, WatchEvent
from lateen.cluster.apiserver.errors import ApiError
from lateen.cluster.store.history import Entry
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.kit.later import web

META = "meta.k8s.io"
MAX_WARNINGS, WARNINGS_LENGTH, WARNING_LENGTH = 20, 4096, 256
"""How many warnings an answer has, and the characters of all of them, and of one where these are exceeded (as in
kube-apiserver)."""
CONTENT = "application/json"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def form(accept: str) -> str:
    """ "Table", "Partial" or "": the first of the client's choices that is supported."""
    for choice in accept.split(","):
        parameters = dict(p.strip().partition("=")[::2] for p in choice.split(";")[1:])
        wanted = parameters.get("as", "")
        if not wanted:
            return ""
        if parameters.get("g", META) == META and parameters.get("v", "v1") == "v1":
            if wanted == "Table":
                return "Table"
            if wanted.startswith("PartialObjectMetadata"):
                return "Partial"
    return ""


def partial(obj: Json) -> Json:
    return {"kind": "PartialObjectMetadata", "apiVersion": f"{META}/v1", "metadata": obj["metadata"]}


def body(c: Call, accept: str, obj: Json | Listing | Entry) -> bytes:
    """The answer to get and list, and to writes (which are never Tables of a Status). What clients get as it is stored
    is not encoded again."""
    wanted = form(accept)
    if isinstance(obj, Listing):
        return _list(c, wanted, obj)
    if isinstance(obj, Entry):
        shown = reading.view(c, obj.obj)
        if not wanted and shown is obj.obj:
            return obj.raw
        obj = shown
    return jsons.dumps(_shown(c, wanted, obj))


def _shown(c: Call, wanted: str, obj: Json) -> Json:
    if wanted == "Table" and c.subresource == "scale" and obj.get("kind") == "Scale":
        return tables.table(tables.SCALE, "v1", [obj], {"resourceVersion": _rv(obj)}, _include(c))
    if not wanted or obj.get("kind") != c.resource.kind:
        return obj
    if wanted == "Partial":
        return partial(obj)
    return tables.table(c.resource, c.version, [obj], {"resourceVersion": _rv(obj)}, _include(c))


def _list(c: Call, wanted: str, page: Listing) -> bytes:
    meta: Json = {"resourceVersion": page.rv}
    if page.following:
        meta["continue"] = page.following
        if page.remaining is not None:
            meta["remainingItemCount"] = page.remaining
    if wanted == "Table":
        return jsons.dumps(tables.table(c.resource, c.version, page.items, meta, _include(c)))
    if wanted == "Partial":
        kind, version, raws = "PartialObjectMetadataList", f"{META}/v1", [jsons.dumps(partial(o)) for o in page.items]
    else:
        kind, version, raws = f"{c.resource.kind}List", c.resource.api_version(c.version), page.encoded()
    head = jsons.dumps({"kind": kind, "apiVersion": version, "metadata": meta})[:-1]
    return b"".join((head, b',"items":[', b",".join(raws), b"]}"))


class Lines:
    """The lines of watches, encoded once for all watches that show the same thing."""

    def __init__(self, keep: int = 16) -> None:
        self._keep, self._made = keep, dict[tuple[str, ...], bytes]()

    def line(self, c: Call, wanted: str, e: WatchEvent) -> bytes:
        rv = _rv(e.obj)
        key = (c.resource.qualified, c.version, rv, e.type, wanted, c.query.get("includeObject", ""))
        if e.type == "BOOKMARK" or not rv:
            return _event(c, wanted, e)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = _event(c, wanted, e)
            while len(self._made) > self._keep:
                del self._made[next(iter(self._made))]
        return found


def _event(c: Call, wanted: str, e: WatchEvent) -> bytes:
    obj, raw = e.obj, b"" if wanted else e.raw
    if wanted == "Partial":
        obj = partial(obj)
    elif wanted == "Table" and e.type != "BOOKMARK":
        obj = tables.table(c.resource, c.version, [obj], {"resourceVersion": _rv(obj)}, _include(c))
    return b'{"type":"%s","object":%s}\n' % (e.type.encode(), raw or jsons.dumps(obj))


def _rv(obj: Json) -> str:
    return str(obj["metadata"].get("resourceVersion", ""))


def _include(c: Call) -> str:
    include = c.query.get("includeObject") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        raise ApiError(400, "BadRequest", f'includeObject must be None, Metadata or Object, not "{include[:40]}"')
    return include


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, whoever writes it. ``ends``: the connection cannot be used any more."""

    body: bytes
    code: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    ends: bool = False
    kind: str = CONTENT

    def web(self) -> web.Response:
        out = web.Response(body=self.body, status=self.code, content_type=self.kind)
        for name, value in self.headers:
            out.headers.add(name, value)
        if self.ends:
            out.force_close()
        return out

    def wire(self, closes: bool = False) -> bytes:
        """HTTP/1.1. ``closes``: it is the connection's last answer."""
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        if self.ends or closes:
            more += "Connection: close\r\n"
        first, date = _first(self.code, self.kind), _date(int(time.time()))
        head = f"{first}Date: {date}\r\nContent-Length: {len(self.body)}\r\n{more}\r\n"
        return head.encode("latin-1") + self.body


@lru_cache(maxsize=64)
def _first(code: int, kind: str) -> str:
    return f"HTTP/1.1 {code} {_PHRASES.get(code, '')}\r\nContent-Type: {kind}\r\n"


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def made(raw: bytes, code: int = 200, warnings: list[str] | None = None, kind: str = CONTENT) -> Answer:
    headers = [("Warning", f'299 - "{_header(text)}"') for text in _bounded(warnings or [])]
    return Answer(raw, code, tuple(headers), kind=kind)


def _bounded(warnings: list[str]) -> list[str]:
    """Each once; where they are long together, only the beginning of each."""
    given = list(dict.fromkeys(warnings))
    if sum(map(len, given)) > WARNINGS_LENGTH:
        given = [text[:WARNING_LENGTH] for text in given]
    return given[:MAX_WARNINGS]


def refused(e: ApiError) -> Answer:
    after = (e.details or {}).get("retryAfterSeconds")
    headers = (("Retry-After", str(after)),) if after is not None else ()
    return Answer(jsons.dumps(e.status()), e.code, headers, e.code in (408, 413, 429))  # what follows is not needed


def response(obj: Any) -> web.Response:
    return made(jsons.dumps(obj)).web()


def failure(e: ApiError) -> web.Response:
    return refused(e).web()


def _header(text: str) -> str:
    plain = "".join(ch if ch.isprintable() and ord(ch) < 128 else " " for ch in text)
    return plain.replace("\\", "").replace('"', '\\"')
