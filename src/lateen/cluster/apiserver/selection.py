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
        "status.podIPs",
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

_UNSET = {
    ("Pod", "spec.hostNetwork"): "false",
    ("Node", "spec.unschedulable"): "false",
    ("ReplicationController", "status.replicas"): "0",
    ("Job", "status.successful"): "0",
}
"""What fields count as that an object does not have, where that is not the empty string."""

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


def named(c: Call) -> str:
    """The only name that the field selector lets through; empty if it names none."""
    found = (part.partition("=") for part in _parts(c))
    return next((value.removeprefix("=") for key, _, value in found if key == "metadata.name"), "")


def _parts(c: Call) -> list[str]:
    return [part for part in (c.query.get("fieldSelector") or "").split(",") if part]


def _field(c: Call, part: str) -> Test:
    negated = "!=" in part
    key, found, value = part.partition("!=" if negated else "=")
    if not found:
        raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
    value = value.removeprefix("=")
    read = _custom(c, key) if c.resource.custom else _own(c, key)
    return lambda o: (read(o) == value) != negated


def _custom(c: Call, key: str) -> Callable[[Json], str]:
    if key not in _FIELDS | {f.lstrip(".") for f in c.resource.selectable.get(c.version, ())}:
        raise _unsupported(c, key)
    return _reader(key.split("."), "")


def _own(c: Call, key: str) -> Callable[[Json], str]:
    kind, renamed = c.resource.kind, (c.resource.group, c.resource.kind, key)
    if key not in _FIELDS | _KIND_FIELDS.get(kind, set()) and renamed not in _RENAMED:
        raise _unsupported(c, key)
    if (kind, key) == ("Event", "source"):
        return lambda o: str(dig(o, "source", "component") or dig(o, "reportingComponent") or "")
    if (kind, key) == ("Pod", "status.podIPs"):
        return lambda _: ""  # which Kubernetes takes, and has no value of
    return _reader(_RENAMED.get(renamed, key).split("."), _UNSET.get((kind, key), ""))


def _reader(path: list[str], unset: str) -> Callable[[Json], str]:
    return lambda o: _text(dig(o, *path, default=unset))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unsupported(c: Call, key: str) -> ApiError:
    if c.resource.kind in _KIND_FIELDS and not c.resource.custom:
        return bad_request(f"field label not supported: {key}")
    return bad_request(f'"{key}" is not a known field selector: only "metadata.name", "metadata.namespace"')
