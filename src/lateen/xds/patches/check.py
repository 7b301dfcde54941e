"""Whether the values of an EnvoyFilter are messages of Envoy's: what can be said of them before a proxy has them.

As in Istio, a value of the wrong shape is refused, and a field that this Envoy does not have is warned about.
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.api import kinds, validate
from lateen.api.validate import Finding
from lateen.kit import faults
from lateen.kit.jsons import Json, dig
from lateen.xds.patches import values


def verdict(obj: Json) -> list[Finding]:
    """Everything that can be said of a mesh object by itself, errors first: what ``api.validate`` finds, and in an
    EnvoyFilter what Envoy's messages say."""
    found = validate.findings(obj)
    if kinds.of(obj) is kinds.ENVOY_FILTER and all(f.warning for f in found):
        found = sorted([*_envoys(obj), *found], key=lambda f: f.warning)
    return found


def _envoys(obj: Json) -> Iterator[Finding]:
    try:
        yield from _findings(obj)
    except Exception as e:  # noqa: BLE001 - a fault of ours concerns this object alone
        yield Finding("spec.configPatches", faults.sentence(e))


def _findings(obj: Json) -> Iterator[Finding]:
    for i, patch in enumerate(dig(obj, "spec", "configPatches", default=[])):
        value, apply_to = dig(patch, "patch", "value"), patch.get("applyTo")
        if value and apply_to in values.KINDS:
            yield from _value(apply_to, value, f"spec.configPatches[{i}].patch.value")


def _value(apply_to: str, value: Json, at: str) -> Iterator[Finding]:
    try:
        values.message(apply_to, value)
    except ValueError as e:
        yield Finding(at, f"Envoy filter: {e}")
        return
    try:
        values.message(apply_to, value, strict=True)
    except ValueError as e:
        yield Finding(at, f"Envoy filter: {e}; it has no effect", warning=True)
