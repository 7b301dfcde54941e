"""``metadata.managedFields``: which manager owns which fields, and when it last acquired any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lateen.cluster.apiserver.managed import paths
from lateen.cluster.apiserver.managed.paths import Fields
from lateen.kit.jsons import Json

APPLY, UPDATE = "Apply", "Update"
MAX_UPDATERS = 10
"""Managers that have only updated; what older ones have is then held by one entry (as kube-apiserver)."""
ANCIENT, BEFORE = "ancient-changes", "before-first-apply"


@dataclass(frozen=True)
class Manager:
    """Who holds fields. The version tells updaters apart, but not those who apply."""

    name: str
    operation: str
    subresource: str = ""
    version: str = ""

    def shown(self) -> str:
        """As conflicts name it."""
        out = f'"{self.name}"' + (f' with subresource "{self.subresource}"' if self.subresource else "")
        return f"{out} using {self.version}" if self.operation == UPDATE else out


@dataclass(frozen=True)
class Entry:
    """``version``: the API version that the fields belong to; ``time``: RFC 3339, empty where unknown."""

    fields: Fields
    version: str
    time: str = ""


Managers = dict[Manager, Entry]


def manager(name: str, operation: str, subresource: str, version: str) -> Manager:
    return Manager(name, operation, subresource, version if operation == UPDATE else "")


def decode(given: Any) -> Managers:
    """Raises ValueError with the reason if it is not a list of ManagedFieldsEntry."""
    out: Managers = {}
    for i, entry in enumerate(given or []):
        operation, version = entry.get("operation"), str(entry.get("apiVersion") or "")
        if operation not in (APPLY, UPDATE):
            raise ValueError(f"[{i}].operation: must be `Apply` or `Update`")
        if entry.get("fieldsType") != "FieldsV1":
            raise ValueError(f"[{i}].fieldsType: must be `FieldsV1`")
        try:
            fields = paths.decode(entry.get("fieldsV1") or {})
        except ValueError as e:
            raise ValueError(f"[{i}].fieldsV1: {e}") from None
        who = manager(str(entry.get("manager") or ""), operation, str(entry.get("subresource") or ""), version)
        before = out.get(who)
        fields = paths.union(before.fields, fields) if before else fields
        out[who] = Entry(fields, version, str(entry.get("time") or ""))
    return out


def is_reset(given: Any) -> bool:
    """Whether it is one empty entry, with which a client resets the ownership of all fields."""
    return isinstance(given, list) and len(given) == 1 and not given[0]


def encode(managers: Managers) -> list[Json]:
    """In kube-apiserver's order; who holds nothing is left out."""
    held = [(who, e) for who, e in managers.items() if e.fields]
    held.sort(key=lambda p: (p[0].operation, p[1].time, p[0].name, p[1].version, p[0].subresource))
    return [_encoded(who, e) for who, e in held]


def _encoded(who: Manager, e: Entry) -> Json:
    out: Json = {"manager": who.name, "operation": who.operation, "apiVersion": e.version}
    if e.time:
        out["time"] = e.time
    out |= {"fieldsType": "FieldsV1", "fieldsV1": paths.encode(e.fields)}
    return out | ({"subresource": who.subresource} if who.subresource else {})


def capped(managers: Managers) -> Managers:
    """The oldest updaters become one where there are too many."""
    updaters = [who for who in managers if who.operation == UPDATE]
    if len(updaters) <= MAX_UPDATERS:
        return managers
    updaters.sort(key=lambda who: (who.name != ANCIENT, managers[who].time, who.name))
    out = dict(managers)
    for who in updaters[: len(updaters) - MAX_UPDATERS + 1]:
        entry = out.pop(who)
        bucket = Manager(ANCIENT, UPDATE, "", who.version)
        held = out.get(bucket)
        fields = paths.union(held.fields, entry.fields) if held else entry.fields
        out[bucket] = replace(entry, fields=fields)
    return out


def without_times(given: Any) -> Any:
    """A copy without times, to compare whether anything else has changed."""
    return [{k: v for k, v in entry.items() if k != "time"} for entry in given or []]
