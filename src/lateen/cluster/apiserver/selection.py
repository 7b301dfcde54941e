"""Which objects a list or watch selects: name, labels, fields."""

from __future__ import annotations

from collections.abc import Callable

from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig

Test = Callable[[Json], bool]

_FIELDS = {"metadata.name", "metadata.namespace"}
_KIND_FIELDS = {
    "Pod": {
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    },
    "Event": {
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "type",
        "source",
    },
    "Secret": {"type"},
    "Service": {"spec.clusterIP", "spec.type"},
    "Namespace": {"status.phase"},
    "Node": {"spec.unschedulable"},
    "ReplicationController": {"status.replicas"},
    "Job": {"status.successful"},
    "CertificateSigningRequest": {"spec.signerName"},
}

_RENAMED = {("batch", "Job", "status.successful"): "status.succeeded"} | {
    ("events.k8s.io", "Event", new): old
    for new, old in (
        *((f.replace("involvedObject", "regarding"), f) for f in _KIND_FIELDS["Event"] if f.startswith("involved")),
        ("reportingController", "reportingComponent"),
    )
}
"""A field label whose field has another name where it is stored."""


def test(c: Call) -> Test:
    """The name, label and field selectors of a call as one test. Raises ApiError."""
    tests: list[Test] = []
    if c.name:
        tests.append(lambda o: bool(o["metadata"]["name"] == c.name))
    if text := c.query.get("labelSelector"):
        try:
            labels = selectors.parse(text)
        except ValueError as e:
            raise bad_request(f"unable to parse requirement: {e}") from e
        tests.append(lambda o: labels(dig(o, "metadata", "labels", default={})))
    tests += [_field(c, part) for part in _parts(c)]
    return lambda o: all(t(o) for t in tests)


def identity(c: Call) -> Test:
    """The part of the test about names and namespaces, which are the same in all versions of an object. Raises
    ApiError."""
    tests = [_field(c, part) for part in _parts(c) if part.partition("=")[0].removesuffix("!") in _FIELDS]
    return lambda o: c.name in ("", o["metadata"]["name"]) and all(t(o) for t in tests)


def _parts(c: Call) -> list[str]:
    return [part for part in (c.query.get("fieldSelector") or "").split(",") if part]


def _field(c: Call, part: str) -> Test:
    negated = "!=" in part
    key, found, value = part.partition("!=" if negated else "=")
    if not found:
        raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
    value = value.removeprefix("=")
    custom = {f.lstrip(".") for f in c.resource.selectable.get(c.version, ())}
    renamed = (c.resource.group, c.resource.kind, key)
    if key not in _FIELDS | _KIND_FIELDS.get(c.resource.kind, set()) | custom and renamed not in _RENAMED:
        raise _unsupported(c, key)
    path = _RENAMED.get(renamed, key).split(".")
    return lambda o: (_text(dig(o, *path, default="")) == value) != negated


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unsupported(c: Call, key: str) -> ApiError:
    if c.resource.kind in _KIND_FIELDS and not c.resource.custom:
        return bad_request(f"field label not supported: {key}")
    return bad_request(f'"{key}" is not a known field selector: only "metadata.name", "metadata.namespace"')
