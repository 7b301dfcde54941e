"""Rows of nodes, leases and events."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.tables.cells import NONE, Printer, age, name, since
from lateen.kit.jsons import Json, dig

_ROLE, _ROLE_NAME = "node-role.kubernetes.io/", "kubernetes.io/role"


def _node(o: Json) -> list[Any]:
    info = dig(o, "status", "nodeInfo", default={})
    ready = next((c["status"] for c in dig(o, "status", "conditions", default=[]) if c["type"] == "Ready"), None)
    status = {None: "Unknown", "True": "Ready"}.get(ready, "NotReady")
    cordoned = ",SchedulingDisabled" if dig(o, "spec", "unschedulable") else ""
    addresses = {a["type"]: a["address"] for a in reversed(dig(o, "status", "addresses", default=[]))}
    return [
        name(o),
        status + cordoned,
        ",".join(sorted(_roles(o))) or NONE,
        age(o),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _roles(o: Json) -> set[str]:
    found = dig(o, "metadata", "labels", default={}).items()
    return {k.removeprefix(_ROLE) for k, _ in found if k.startswith(_ROLE) and k != _ROLE} | {
        v for k, v in found if k == _ROLE_NAME and v
    }


def _event(o: Json) -> list[Any]:
    about, series = o.get("involvedObject") or {}, o.get("series") or {}
    earliest = o.get("firstTimestamp") or o.get("eventTime")
    last = series.get("lastObservedTime") or o.get("lastTimestamp") or earliest
    kind, of = str(about.get("kind", "")).lower(), about.get("name")
    source = o.get("source") or {}
    reporter = (source.get("component"), source.get("host"))
    if not any(reporter):
        reporter = (o.get("reportingComponent"), o.get("reportingInstance"))
    return [
        since(last) if last else "<unknown>",
        o.get("type"),
        o.get("reason"),
        f"{kind}/{of}" if of else kind,
        about.get("fieldPath", ""),
        ", ".join(filter(None, reporter)),
        str(o.get("message", "")).strip(),
        since(earliest) if earliest else "<unknown>",
        str(series.get("count") or o.get("count") or 1),
        name(o),
    ]


PRINTERS = {
    "Node": Printer(
        (
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            "+Internal-IP",
            "+External-IP",
            "+OS-Image",
            "+Kernel-Version",
            "+Container-Runtime",
        ),
        _node,
    ),
    "Event": Printer(
        (
            "Last Seen",
            "Type",
            "Reason",
            "Object",
            "+Subobject",
            "+Source",
            "Message",
            "+First Seen",
            "+Count",
            "+Name",
        ),
        _event,
    ),
    "Lease": Printer(
        ("Name", "Holder", "Age"), lambda o: [name(o), dig(o, "spec", "holderIdentity", default=""), age(o)]
    ),
}
