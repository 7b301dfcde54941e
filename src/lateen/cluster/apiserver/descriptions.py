"""The descriptions of Kubernetes' own kinds for ``kubectl explain``, in our own words; the schemas have none."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from lateen.cluster.apiserver.schema import definitions
from lateen.kit.jsons import Json


@lru_cache(maxsize=1)
def texts() -> dict[str, dict[str, str]]:
    """By type and field; the field "" is the type itself, and the type "*" is any type."""
    raw = (files("lateen.cluster") / "data" / "descriptions.yaml").read_text()
    from lateen.kit import yamldoc  # imported late: only explain needs it

    found = yamldoc.load(raw)
    assert isinstance(found, dict)
    return found


@lru_cache(maxsize=1024)
def described(name: str) -> Json:
    """The definition of this name, with the descriptions that exist."""
    schema = definitions()[name]
    known, common = texts().get(name.rpartition(".")[2], {}), texts()["*"]
    out = {**schema, "description": known[""]} if known.get("") else schema
    if "properties" not in schema:
        return out
    return {**out, "properties": {key: _field(key, p, known, common) for key, p in schema["properties"].items()}}


def _field(key: str, schema: Json, known: dict[str, str], common: dict[str, str]) -> Json:
    text = known.get(key) or common.get(key)
    if not text:
        return schema
    if "$ref" in schema:  # what stands beside a reference has no effect in OpenAPI 3.0
        return {"description": text, "allOf": [schema]}
    return {**schema, "description": text}
