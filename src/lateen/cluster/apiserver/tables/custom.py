"""Rows of custom resources: a name, then what ``additionalPrinterColumns`` ask for."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.tables.cells import Row, column, name, since
from lateen.kit import jsonpath, jsons
from lateen.kit.jsons import Json

_AGE: Json = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def printer(columns: list[Json]) -> tuple[list[Json], Row]:
    """Column definitions, and what makes an object's row; an age where a CRD names no columns."""
    chosen = columns or [_AGE]
    definitions = [column("Name"), *(_definition(c) for c in chosen)]

    def row(obj: Json) -> list[Any]:
        return [name(obj), *(_cell(c, obj) for c in chosen)]

    return definitions, row


def _definition(c: Json) -> Json:
    return {
        "name": c["name"],
        "type": c["type"],
        "format": c.get("format", ""),
        "description": c.get("description", ""),
        "priority": c.get("priority", 0),
    }


def _cell(c: Json, obj: Json) -> Any:
    """The first value at the path, if it is of the column's type (as apiextensions-apiserver's table convertor)."""
    try:
        found = jsonpath.find(c["jsonPath"], obj)
    except jsonpath.PathError:
        return None
    value = found[0] if found else None
    match c["type"]:
        case "date":
            return _date(value)
        case "string":
            return value if value is None or isinstance(value, str) else jsons.dumps(value).decode()
        case "boolean":
            return value if isinstance(value, bool) else None
        case "integer" if isinstance(value, (int, float)) and not isinstance(value, bool):
            return int(value)
        case "number" if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
    return None


def _date(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return since(str(value))
    except (ValueError, TypeError):
        return "<invalid>"
