"""Managed fields at the API's edge: who writes, by the request, and refusals as Kubernetes words them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lateen.cluster.apiserver import decoding, errors, managed
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.custom.converted import Convert
from lateen.cluster.apiserver.errors import ApiError, Cause, bad_request
from lateen.cluster.apiserver.managed import typed
from lateen.cluster.apiserver.validation.fields import bad, required
from lateen.cluster.apiserver.versions import Versions
from lateen.kit import times
from lateen.kit.jsons import Json

T = TypeVar("T")
MAX_NAME = 128


async def record(c: Call, obj: Json, old: Json | None, fields: list[Json] | None, versions: Versions) -> None:
    """Write into a new or changed object who holds its fields; ``fields`` where an apply has found that out already.

    Raises ApiError for managedFields that the client sends and that cannot be read.
    """
    meta = obj["metadata"]
    try:
        found = fields
        if found is None:
            found = await _settled(c, versions, lambda w: managed.update(w, old, obj))
    except ValueError as e:
        at, _, says = str(e).partition(": ")
        cause = Cause(f"metadata.managedFields{at}", f"Invalid value: {says}")
        raise errors.invalid(c.resource.kind, c.resource.group, str(meta.get("name")), [cause]) from None
    meta.pop("managedFields", None)
    if found:
        meta["managedFields"] = found


def check_options(c: Call, applies: bool) -> None:
    """The parameters fieldManager and force. Raises ApiError."""
    name, causes = c.query.get("fieldManager", ""), []
    if applies and not name:
        causes.append(required("fieldManager", "is required for apply patch"))
    if len(name) > MAX_NAME:
        causes.append(Cause("fieldManager", f"Too long: may not be more than {MAX_NAME} bytes", "FieldValueTooLong"))
    if not name.isprintable():
        causes.append(bad("fieldManager", name, "should only contain printable characters"))
    if not applies and "force" in c.query:
        causes.append(Cause("force", "Forbidden: may not be specified for non-apply patch", "FieldValueForbidden"))
    if causes:
        raise errors.invalid("PatchOptions", "meta.k8s.io", "", causes)


async def applied(c: Call, live: Json | None, versions: Versions) -> Json:
    """The object after the call's configuration has been applied to it. Raises ApiError."""
    config = decoding.configuration(c, c.body)
    if config["metadata"].get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    try:
        return await _settled(c, versions, lambda w: managed.apply(w, live, config, c.flag("force")))
    except managed.Conflicts as e:
        raise ApiError(409, "Conflict", str(e), {"causes": e.causes()}) from None
    except managed.Untypable as e:
        at = f"{c.namespace}/{c.name}; {c.resource.api_version(c.version)}, Kind={c.resource.kind}"
        raise bad_request(f"failed to create typed patch object ({at.removeprefix('/')}): {e}") from None


async def _settled(c: Call, versions: Versions, compute: Callable[[managed.Writer], T]) -> T:
    """``compute`` may need the object in the versions in which others hold fields."""
    if c.resource.uniform:
        return compute(_writer(c, None))
    return await versions.settled(c.resource, lambda convert: compute(_writer(c, convert)))


def _writer(c: Call, convert: Convert | None) -> managed.Writer:
    r = c.resource
    return managed.Writer(
        manager=c.query.get("fieldManager") or c.agent or "unknown",
        version=r.api_version(c.version),
        subresource=c.through or c.subresource,
        schema=typed.root(decoding.schema_of(r, c.version)),
        native=not r.custom,
        has_status=r.status,
        now=times.stamp(),
        convert=convert,
        schemas=None if r.uniform else lambda v: typed.root(decoding.schema_of(r, v.rpartition("/")[2])),
    )


def agent(header: str) -> str:
    """The manager that a User-Agent stands for where the request names none: its program's name."""
    return "".join(ch for ch in header.partition("/")[0] if ch.isprintable())[:MAX_NAME]


def is_apply(patch_type: str) -> bool:
    return patch_type == "application/apply-patch+yaml"
