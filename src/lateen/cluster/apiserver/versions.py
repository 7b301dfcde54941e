"""Custom resources in the versions that they are served in: by a webhook of their definition, or by their name alone.

After apiextensions-apiserver's pkg/apiserver/conversion (webhook_converter.go) and customresource_handler.go. Objects
are stored in their definition's storage version; whatever is read in another one gets the defaults of the version that
it is stored in, is converted, and pruned by the other version's schema. What entries look like in other versions is
kept, the latest of it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lateen.cluster.apiserver import hooks, schema
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.custom import converted
from lateen.cluster.apiserver.errors import ApiError
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.store.history import Entry
from lateen.kit import jsons, tasks
from lateen.kit.jsons import Json

T = TypeVar("T")
TIMEOUT_S = 30.0
"""Kubernetes' default for requests to webhooks that name none."""
MAX_BATCH = 100
MAX_BATCH_BYTES = 1024 * 1024
"""Objects of one request to a webhook, and their size as JSON; a single one may be larger."""
GROWTH = 4
"""How many times larger converted objects may be than the given ones, beyond what any answer may have."""
MAX_KEPT = 32 * 1024 * 1024
"""Bytes, as JSON, of entries whose form in another version is kept, and of these forms."""
MAX_ROUNDS = 64
"""Conversions that one merge may ask for: two for each version in which somebody holds fields."""

Look = Callable[[Entry], Entry]


@dataclass(frozen=True)
class Wanted(Exception):
    """A computation without I/O needs an object in another version."""

    obj: Json
    version: str


class Versions:
    def __init__(self, caller: hooks.Caller) -> None:
        self._caller = caller
        self._kept: OrderedDict[tuple[Entry, str], tuple[Resource, Entry]] = OrderedDict()
        self._bytes = 0
        self._running: dict[tuple[int, int, str], asyncio.Task[Any]] = {}

    # --- reading -------------------------------------------------------------------------------------------------

    async def seen(self, c: Call, entry: Entry) -> Entry:
        """The entry in the call's version. Raises ApiError."""
        return (await self.all(c, [entry]))[0]

    async def all(self, c: Call, entries: Sequence[Entry]) -> list[Entry]:
        """Each entry in the call's version, in the same order. Raises ApiError."""
        return list(map(await self.look(c, entries), entries))

    async def look(self, c: Call, entries: Sequence[Entry]) -> Look:
        """Converts the entries; returns what finds each of them in the call's version. Raises ApiError."""
        r, version = c.resource, c.version
        if not r.custom or r.uniform:
            return _as_stored
        if r.converter is None:
            return lambda e: (
                self._known(r, version, e) or self._keep(r, version, e, relabeled(r, version, _defaulted(r, e.obj)))
            )
        made: dict[int, Entry] = {}
        waits: dict[asyncio.Task[dict[int, Entry]], None] = {}
        missing = []
        for e in {id(e): e for e in entries}.values():
            if found := self._known(r, version, e):
                made[id(e)] = found
            elif task := self._running.get((id(e), id(r), version)):
                waits[task] = None
            else:
                missing.append(e)
        for batch in _batches(missing):
            made |= await asyncio.shield(self._start(r, version, batch))
        for task in waits:
            made |= await asyncio.shield(task)
        return lambda e: made[id(e)]

    def _known(self, r: Resource, version: str, e: Entry) -> Entry | None:
        if e.obj.get("apiVersion") == r.api_version(version):
            return e
        of, found = self._kept.get((e, version), (None, None))
        if of is not r:
            return None
        self._kept.move_to_end((e, version))
        return found

    def _keep(self, r: Resource, version: str, e: Entry, obj: Json) -> Entry:
        raw = jsons.dumps(obj)
        made = Entry(e.collection, e.namespace, e.name, obj, e.rv, len(raw), raw)
        self._forget(e, version)
        self._kept[e, version] = r, made
        self._bytes += e.size + made.size
        while self._bytes > MAX_KEPT:
            self._forget(*next(iter(self._kept)))
        return made

    def _forget(self, e: Entry, version: str) -> None:
        _, made = self._kept.pop((e, version), (None, None))
        self._bytes -= e.size + made.size if made else 0

    def _start(self, r: Resource, version: str, batch: list[Entry]) -> asyncio.Task[dict[int, Entry]]:
        """Whoever needs one of these entries in the meantime waits for the same answer."""
        task = asyncio.get_running_loop().create_task(self._batch(r, version, batch), name="conversion")
        keys = [(id(e), id(r), version) for e in batch]

        def done(_: object) -> None:
            for key in keys:
                del self._running[key]
            if not task.cancelled():
                task.exception()  # those who wait have it; there may be none left

        self._running |= dict.fromkeys(keys, task)
        task.add_done_callback(done)
        return task

    async def _batch(self, r: Resource, version: str, batch: list[Entry]) -> dict[int, Entry]:
        objects = await self._pruned(r, version, [_defaulted(r, e.obj) for e in batch])
        return {id(e): self._keep(r, version, e, o) for e, o in zip(batch, objects, strict=True)}

    # --- single objects ------------------------------------------------------------------------------------------

    async def to_store(self, c: Call, obj: Json) -> Json:
        """The object in the version that it is stored in. Raises ApiError."""
        return await self.between(c.resource, c.resource.version, obj) if c.resource.custom else obj

    async def between(self, r: Resource, version: str, obj: Json) -> Json:
        """A custom resource in another version. Raises ApiError."""
        if obj.get("apiVersion") == r.api_version(version):
            return obj
        if r.converter is None:
            return relabeled(r, version, obj)
        return (await self._pruned(r, version, [obj]))[0]

    async def _plain(self, r: Resource, version: str, obj: Json) -> Json:
        """As the webhook has made it: what fields are held is told apart before schemas play a part."""
        if r.converter is None:
            return {**obj, "apiVersion": r.api_version(version)}
        return (await self._ask(r, version, [obj]))[0]

    async def settled(self, r: Resource, compute: Callable[[converted.Convert], T]) -> T:
        """The result of a pure computation, which is repeated with each conversion that it has asked for. Raises
        ApiError, and what the computation raises."""
        known: dict[tuple[str, bytes], Json] = {}

        def convert(obj: Json, api_version: str) -> Json:
            if obj.get("apiVersion") == api_version:
                return obj
            version = api_version.rpartition("/")[2]
            if version not in r.served or api_version != r.api_version(version):
                raise converted.NoVersion(api_version)
            key = version, jsons.canonical(obj)
            if key not in known:
                raise Wanted(obj, version)
            return known[key]

        for _ in range(MAX_ROUNDS):
            try:
                return compute(convert)
            except Wanted as e:
                known[e.version, jsons.canonical(e.obj)] = await self._plain(r, e.version, e.obj)
        raise ApiError(500, "InternalError", "the object's fields are held in too many versions")

    # --- the webhook ---------------------------------------------------------------------------------------------

    async def _pruned(self, r: Resource, version: str, objects: list[Json]) -> list[Json]:
        return [_pruned(r, version, o) for o in await self._ask(r, version, objects)]

    async def _ask(self, r: Resource, version: str, objects: list[Json]) -> list[Json]:
        """The webhook's answer. Raises ApiError."""
        assert r.converter is not None
        about = f"{objects[0]['apiVersion']}, Kind={r.kind}"
        config, uid = r.converter["clientConfig"], str(uuid.uuid4())
        try:
            form = converted.review_version(r.converter)
            body = jsons.dumps(converted.request(form, uid, r.api_version(version), objects))
            try:
                most = hooks.MAX_ANSWER + GROWTH * len(body)
                answer = await self._caller.post(config, body, TIMEOUT_S, most)
            except hooks.Failure as e:
                raise converted.Refused(f'failed: Post "{hooks.url(config)}?timeout=30s": {e}') from e
            return converted.objects(form, uid, r.api_version(version), objects, answer)
        except converted.Refused as e:
            raise ApiError(500, "", f"conversion webhook for {about} {e}") from None

    async def close(self) -> None:
        await tasks.cancel(*set(self._running.values()))


def relabeled(r: Resource, version: str, obj: Json) -> Json:
    """What the strategy None does: the same fields, as far as the version has them."""
    made = {**obj, "apiVersion": r.api_version(version), "kind": r.kind}
    return made if r.uniform else _pruned(r, version, made)


def _pruned(r: Resource, version: str, obj: Json) -> Json:
    wanted = r.schemas.get(version)
    return obj if wanted is None else schema.pruned(wanted, obj)


def _defaulted(r: Resource, obj: Json) -> Json:
    wanted = r.schemas.get(str(obj.get("apiVersion")).rpartition("/")[2])
    return obj if wanted is None else schema.defaulted(wanted, obj)


def _as_stored(e: Entry) -> Entry:
    return e


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    batch, size = list[Entry](), 0
    for e in entries:
        if batch and (len(batch) == MAX_BATCH or size + e.size > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(e)
        size += e.size
    if batch:
        yield batch
