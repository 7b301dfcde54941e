"""MERGE: merges one message into another, field by field.

As in Istio: fields that are set replace, lists grow (or are replaced with MERGE_AND_REPLACE_LIST), configuration of the
same type inside an Any is merged as well, durations and wrapped values are replaced as a whole.
"""

from __future__ import annotations

from typing import Any

from lateen.xds import pb
from lateen.xds.patches.values import unpack

_WHOLE = ("google.protobuf.Duration", "google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue")


def merge(into: Any, value: Any, replace_lists: bool = False) -> None:
    """Changes ``into``."""
    for field, given in value.ListFields():
        name = field.name
        if _is_map(field):
            _map(getattr(into, name), given, field, replace_lists)
        elif field.is_repeated:
            target = getattr(into, name)
            if replace_lists:
                del target[:]
            target.extend(given)
        elif field.message_type is None:
            setattr(into, name, given)
        elif not into.HasField(name) or _whole(field.message_type.full_name):
            getattr(into, name).CopyFrom(given)
        else:
            one(getattr(into, name), given, replace_lists)


def one(target: Any, given: Any, replace_lists: bool) -> None:
    """Merge two messages of one type, which may be Any."""
    if target.DESCRIPTOR.full_name != "google.protobuf.Any":
        merge(target, given, replace_lists)
        return
    inner, new = unpack(target), unpack(given)
    if inner is None or new is None or target.type_url != given.type_url:
        target.CopyFrom(given)
        return
    merge(inner, new, replace_lists)
    target.CopyFrom(pb.any_of(inner))


def _whole(name: str) -> bool:
    return name in _WHOLE or (name.startswith("google.protobuf.") and name.endswith("Value"))


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _map(target: Any, given: Any, field: Any, replace_lists: bool) -> None:
    of_messages = field.message_type.fields_by_name["value"].message_type is not None
    for key, new in given.items():
        if not of_messages:
            target[key] = new
        elif key in target:
            one(target[key], new, replace_lists)
        else:
            target[key].CopyFrom(new)
