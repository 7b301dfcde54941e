"""get, list and watch over the store."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from lateen.cluster.apiserver import conversion, errors, selection
from lateen.cluster.apiserver.call import Call, Listing, WatchEvent
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.cluster.store.history import Ended, Entry, Expired, Watcher
from lateen.cluster.store.objects import Store
from lateen.kit import jsons
from lateen.kit.jsons import Json

BOOKMARK_S = 60.0
INITIAL_END = {"k8s.io/initial-events-end": "true"}


def entry(store: Store, c: Call) -> Entry:
    """Raises ApiError if the object does not exist."""
    found = store.get(c.resource.collection, c.namespace, c.name)
    if found is None:
        raise errors.not_found(c.resource.plural, c.name, c.resource.group)
    return found


def expect(c: Call, entry: Entry, wanted: Json) -> None:
    """Raises ApiError where the object is not the one of the preconditions (``uid``, ``resourceVersion``)."""
    uid = entry.obj["metadata"].get("uid")
    why = ""
    if wanted.get("uid") not in (None, "", uid):
        why = f"Precondition failed: UID in precondition: {wanted['uid']}, UID in object meta: {uid}"
    elif wanted.get("resourceVersion") not in (None, "", str(entry.rv)):
        why = (
            f"Precondition failed: ResourceVersion in precondition: {wanted['resourceVersion']}, "
            f"ResourceVersion in object meta: {entry.rv}"
        )
    if why:
        raise errors.conflict(c.resource.plural, c.name, c.resource.group, why)


def view(c: Call, obj: Json) -> Json:
    """The stored object in the requested version."""
    obj = conversion.shown(c.resource, c.version, obj)
    wanted = c.resource.api_version(c.version)
    if obj.get("apiVersion") == wanted and obj.get("kind") == c.resource.kind:
        return obj
    return {**obj, "apiVersion": wanted, "kind": c.resource.kind}


Look = Callable[[Entry], Entry]
Seen = Callable[[Sequence[Entry]], Awaitable[Look]]
"""Makes what finds entries in the call's version."""


def listing(store: Store, c: Call) -> Listing:
    """One page. All pages have the first one's revision: a watch from it replays what has changed in between. Raises
    ApiError."""
    found, since, rv = _found(store, c)
    return _page(c, found, since, rv)


async def converted(store: Store, c: Call, seen: Seen) -> Listing:
    """A page of what has to be converted first, as of one moment: it may be old when it is there, and a watch from its
    revision replays what has been written in the meantime. Raises ApiError."""
    found, since, rv = _found(store, c)
    mine = selection.identity(c)
    found = [e for e in found if mine(e.obj)]
    limit, selected = c.number("limit") or 0, _selected(c)
    chosen = found[:limit] if limit and not selected else found
    look = await seen(chosen)
    return _page(c, [*map(look, chosen), *found[len(chosen) :]], since, rv)


def _found(store: Store, c: Call) -> tuple[list[Entry], tuple[str, str], int]:
    """What there is after the place where a list goes on, this place, and the revision."""
    since, rv = _position(store, c)
    if not any(since):
        _revision(store, c)
    entries = store.list(c.resource.collection, c.namespace)
    return [e for e in entries if (e.namespace, e.name) > since], since, rv


def _selected(c: Call) -> bool:
    return bool(c.query.get("labelSelector") or c.query.get("fieldSelector"))


def _page(c: Call, found: list[Entry], since: tuple[str, str], rv: int) -> Listing:
    """``found``: entries in the call's version; where nothing is selected, those of the page are enough."""
    wanted, limit = selection.test(c), c.number("limit") or 0
    page: list[Json] = []
    stored: list[Entry] = []
    last, seen = since, 0
    for seen, e in enumerate(found, 1):  # noqa: B007 - where the page ends is read after the loop
        if wanted(e.obj):
            page.append(view(c, e.obj))
            stored.append(e)
            last = (e.namespace, e.name)
            if limit and len(page) == limit:
                break
    rest = found[seen:]
    following = bool(limit) and any(wanted(e.obj) for e in rest)
    if not following:
        return Listing(page, str(rv), stored=stored)
    return Listing(page, str(rv), _token(rv, last), None if _selected(c) else len(rest), stored)


def _token(rv: int, last: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(jsons.dumps({"v": "lateen/v1", "rv": rv, "start": list(last)})).decode()


def _position(store: Store, c: Call) -> tuple[tuple[str, str], int]:
    """Where a continued list resumes, and its revision."""
    token = c.query.get("continue")
    if not token:
        return ("", ""), store.rv
    try:
        found = jsons.loads(base64.urlsafe_b64decode(token))
        namespace, name = found["start"]
        rv = found["rv"]
        if found["v"] != "lateen/v1" or not all(isinstance(v, str) for v in (namespace, name)):
            raise ValueError("another version")
        known = store.knows(c.resource.collection, rv)
    except (ValueError, TypeError, KeyError, binascii.Error):
        raise bad_request("continue key is not valid: start the list again without it") from None
    if not known:
        raise errors.expired(
            "The provided continue parameter is too old to display a consistent list result. You must start a new list "
            "without the continue parameter."
        )
    return (namespace, name), rv


def _revision(store: Store, c: Call) -> None:
    """``resourceVersion`` of a list: "at least this new", or exactly it. Raises ApiError if it is not available."""
    match, asked = c.query.get("resourceVersionMatch", ""), c.number("resourceVersion")
    if match and match not in ("Exact", "NotOlderThan"):
        raise bad_request(f'resourceVersionMatch must be Exact or NotOlderThan, not "{match[:40]}"')
    if match and asked is None and not c.flag("sendInitialEvents"):
        raise bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if asked is not None and asked > store.rv:
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        says = f"Too large resource version: {asked}, current: {store.rv}"
        raise ApiError(504, "Timeout", says, {"causes": [cause], "retryAfterSeconds": 1})
    if match == "Exact" and asked != store.rv:
        raise errors.expired(f"The resourceVersion for the provided list is too old: {asked}")


def watch(store: Store, c: Call, seen: Seen) -> AsyncGenerator[WatchEvent, None]:
    """Events after ``resourceVersion``; without one, or with 0, existing objects come first as ADDED. Raises ApiError,
    at once for an invalid request, and later if the client falls too far behind."""
    r, wanted, mine = c.resource, selection.test(c), selection.identity(c)
    asked, sends = c.number("resourceVersion") or 0, c.flag("sendInitialEvents")
    initial = sends or ("sendInitialEvents" not in c.query and asked == 0)
    try:
        watcher = store.watch(r.collection, c.namespace, store.rv if initial else asked or store.rv)
    except Expired:
        raise errors.expired(f"too old resource version: {asked} ({store.rv})") from None
    first = [e for e in store.list(r.collection, c.namespace) if mine(e.obj)] if initial else []
    return _events(store, c, watcher, (mine, wanted), first, sends, seen)


async def _events(
    store: Store,
    c: Call,
    watcher: Watcher,
    tests: tuple[selection.Test, selection.Test],
    first: list[Entry],
    sends: bool,
    seen: Seen,
) -> AsyncGenerator[WatchEvent, None]:
    """``tests``: of what is stored, and of what that is in the call's version."""
    start, bookmarks, (mine, wanted) = watcher.since, c.flag("allowWatchBookmarks"), tests
    try:
        for e in filter(lambda e: wanted(e.obj), map(await seen(first), first)):
            yield _event(c, "ADDED", e)
        first.clear()
        if sends:
            yield _bookmark(c, start, INITIAL_END)
        while True:
            try:
                async with asyncio.timeout(BOOKMARK_S if bookmarks else None):
                    events = await watcher.next()
            except TimeoutError:
                events = watcher.take()
                if not events:
                    yield _bookmark(c, store.announced)
            events = [event for event in events if mine(event.entry.obj)]
            look = await seen([e for event in events for e in (event.entry, event.old) if e is not None])
            for event in events:
                entry, old = look(event.entry), look(event.old) if event.old is not None else None
                before = old is not None and wanted(old.obj)
                after = event.type != "DELETED" and wanted(entry.obj)
                kind = "MODIFIED" if before and after else "ADDED" if after else "DELETED" if before else ""
                if kind == "DELETED" and old is not None:
                    entry = _left(old, entry.rv)
                if kind:
                    yield _event(c, kind, entry)
    except Ended:
        return  # clients watch again from the last revision that they have
    except Expired:
        raise errors.expired("the watch was too slow; list again") from None
    finally:
        store.unwatch(watcher)


def _left(last: Entry, rv: int) -> Entry:
    """What is no longer selected, or there: as it was last seen, with the revision of what has happened to it."""
    meta = {**last.obj["metadata"], "resourceVersion": str(rv)}
    return Entry(last.collection, last.namespace, last.name, {**last.obj, "metadata": meta}, rv)


def _event(c: Call, kind: str, e: Entry) -> WatchEvent:
    shown = view(c, e.obj)
    return WatchEvent(kind, shown, e.raw if shown is e.obj else b"")


def _bookmark(c: Call, rv: int, annotations: Json | None = None) -> WatchEvent:
    meta: Json = {"resourceVersion": str(rv)} | ({"annotations": annotations} if annotations else {})
    return WatchEvent(
        "BOOKMARK", {"kind": c.resource.kind, "apiVersion": c.resource.api_version(c.version), "metadata": meta}
    )
