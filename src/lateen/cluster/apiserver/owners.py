"""Managed fields at the API's edge: who writes, by the request, and refusals as Kubernetes words them."""

from __future__ import annotations

from lateen.cluster.apiserver import decoding, errors, managed
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import ApiError, Cause, bad_request
from lateen.cluster.apiserver.managed import typed
from lateen.cluster.apiserver.validation.fields import bad, required
from lateen.kit import times
from lateen.kit.jsons import Json

MAX_NAME = 128


def record(c: Call, obj: Json, old: Json | None, fields: list[Json] | None) -> None:
    """Write into a new or changed object who holds its fields; ``fields`` where an apply has found that out already.

    Raises ApiError for managedFields that the client sends and that cannot be read.
    """
    meta = obj["metadata"]
    try:
        found = managed.update(_writer(c), old, obj) if fields is None else fields
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


def applied(c: Call, live: Json | None) -> Json:
    """The object after the call's configuration has been applied to it. Raises ApiError."""
    config = decoding.configuration(c, c.body)
    if config["metadata"].get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    try:
        return managed.apply(_writer(c), live, config, c.flag("force"))
    except managed.Conflicts as e:
        raise ApiError(409, "Conflict", str(e), {"causes": e.causes()}) from None
    except managed.Untypable as e:
        at = f"{c.namespace}/{c.name}; {c.resource.api_version(c.version)}, Kind={c.resource.kind}"
        raise bad_request(f"failed to create typed patch object ({at.removeprefix('/')}): {e}") from None


def _writer(c: Call) -> managed.Writer:
    r = c.resource
    return managed.Writer(
        manager=c.query.get("fieldManager") or c.agent or "unknown",
        version=r.api_version(c.version),
        subresource=c.through or c.subresource,
        schema=typed.root(decoding.schema_of(r, c.version)),
        native=not r.custom,
        has_status=r.status,
        now=times.stamp(),
    )


def agent(header: str) -> str:
    """The manager that a User-Agent stands for where the request names none: its program's name."""
    return "".join(ch for ch in header.partition("/")[0] if ch.isprintable())[:MAX_NAME]


def is_apply(patch_type: str) -> bool:
    return patch_type == "application/apply-patch+yaml"
