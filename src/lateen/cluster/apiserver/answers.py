"""Objects and lists in the form that the client asks for: complete, as a Table, or only their metadata."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from lateen.cluster.apiserver import tables
from lateen.cluster.apiserver.call import Call, Listing, WatchEvent
from lateen.cluster.apiserver.errors import ApiError
from lateen.kit import jsons
from lateen.kit.jsons import Json

META = "meta.k8s.io"
MAX_WARNINGS = 20


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


def body(c: Call, accept: str, obj: Json | Listing) -> Json:
    """The answer to get and list, and to writes (which are never Tables of a Status)."""
    wanted = form(accept)
    if isinstance(obj, Listing):
        return _list(c, wanted, obj)
    if wanted == "Table" and c.subresource == "scale" and obj.get("kind") == "Scale":
        return tables.table(tables.SCALE, "v1", [obj], {"resourceVersion": _rv(obj)}, _include(c))
    if not wanted or obj.get("kind") != c.resource.kind:
        return obj
    if wanted == "Partial":
        return partial(obj)
    return tables.table(c.resource, c.version, [obj], {"resourceVersion": _rv(obj)}, _include(c))


def _list(c: Call, wanted: str, page: Listing) -> Json:
    meta: Json = {"resourceVersion": page.rv}
    if page.following:
        meta["continue"] = page.following
        if page.remaining is not None:
            meta["remainingItemCount"] = page.remaining
    if wanted == "Table":
        return tables.table(c.resource, c.version, page.items, meta, _include(c))
    kind, version, items = f"{c.resource.kind}List", c.resource.api_version(c.version), page.items
    if wanted == "Partial":
        kind, version, items = "PartialObjectMetadataList", f"{META}/v1", [partial(o) for o in page.items]
    return {"kind": kind, "apiVersion": version, "metadata": meta, "items": items}


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
    obj = e.obj
    if wanted == "Partial":
        obj = partial(obj)
    elif wanted == "Table" and e.type != "BOOKMARK":
        obj = tables.table(c.resource, c.version, [obj], {"resourceVersion": _rv(obj)}, _include(c))
    return jsons.dumps({"type": e.type, "object": obj}) + b"\n"


def _rv(obj: Json) -> str:
    return str(obj["metadata"].get("resourceVersion", ""))


def _include(c: Call) -> str:
    include = c.query.get("includeObject") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        raise ApiError(400, "BadRequest", f'includeObject must be None, Metadata or Object, not "{include[:40]}"')
    return include


def response(obj: Any, code: int = 200, warnings: list[str] | None = None) -> web.Response:
    out = web.Response(body=jsons.dumps(obj), status=code, content_type="application/json")
    for text in (warnings or [])[:MAX_WARNINGS]:
        out.headers.add("Warning", f'299 - "{_header(text)}"')
    return out


def failure(e: ApiError) -> web.Response:
    out = response(e.status(), e.code)
    if e.code in (408, 413, 429):
        out.force_close()  # the rest of the body is not needed
    if e.details and "retryAfterSeconds" in e.details:
        out.headers["Retry-After"] = str(e.details["retryAfterSeconds"])
    return out


def _header(text: str) -> str:
    plain = "".join(ch if ch.isprintable() and ord(ch) < 128 else " " for ch in text)
    return plain.replace("\\", "").replace('"', '\\"')[:500]
