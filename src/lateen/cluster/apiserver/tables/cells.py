"""What the cells of several kinds have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lateen.kit import duration, times
from lateen.kit.jsons import Json, dig

Row = Callable[[Json], list[Any]]
NONE = "<none>"
SHOWN = 3
"""Elements of a list that a cell shows."""


class Printer(NamedTuple):
    """``columns``: names; ``+`` before one that only ``-o wide`` shows, ``#`` before one that holds whole numbers."""

    columns: tuple[str, ...]
    row: Row


def column(text: str) -> Json:
    """A TableColumnDefinition."""
    title = text.lstrip("+#")
    return {
        "name": title,
        "type": "integer" if "#" in text[: len(text) - len(title)] else "string",
        "format": "name" if title == "Name" else "",
        "description": "",
        "priority": 1 if text.startswith("+") else 0,
    }


def name(obj: Json) -> str:
    return str(obj["metadata"]["name"])


def since(text: str) -> str:
    """The time that has passed, as kubectl shortens it."""
    return duration.age((times.now() - times.parse(text)).total_seconds())


def age(obj: Json) -> str:
    created = dig(obj, "metadata", "creationTimestamp")
    return since(created) if created else "<unknown>"


def created(obj: Json) -> str:
    return str(dig(obj, "metadata", "creationTimestamp", default=""))


def labels(found: Json | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((found or {}).items())) or NONE


def selector(found: Json | None) -> str:
    """A LabelSelector in the spelling of ``-l``."""
    parts = [f"{k}={v}" for k, v in ((found or {}).get("matchLabels") or {}).items()]
    for e in (found or {}).get("matchExpressions") or []:
        values = ",".join(sorted(e.get("values") or []))
        spelled = {"Exists": f"{e['key']}", "DoesNotExist": f"!{e['key']}"}
        word = {"In": "in", "NotIn": "notin"}.get(e["operator"], "")
        parts.append(spelled.get(e["operator"]) or f"{e['key']} {word} ({values})")
    return ",".join(sorted(parts)) or NONE


def first(values: Iterable[str], empty: str = NONE) -> str:
    """The first few, and how many more there are."""
    found = list(values)
    more = f" + {len(found) - SHOWN} more..." if len(found) > SHOWN else ""
    return ",".join(found[:SHOWN]) + more or empty


def images(spec: Json) -> tuple[str, str]:
    """Names and images of a pod template's containers."""
    containers = dig(spec, "template", "spec", "containers", default=[])
    return ",".join(c["name"] for c in containers), ",".join(c.get("image", "") for c in containers)
