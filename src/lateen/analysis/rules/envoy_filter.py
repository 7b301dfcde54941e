"""EnvoyFilters whose patches may not match, or never apply."""

from __future__ import annotations

from collections.abc import Iterator

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.api import kinds
from lateen.kit.jsons import Json, dig

RELATIVE = {"INSERT_BEFORE", "INSERT_AFTER", "REPLACE", "REMOVE"}
REPLACEABLE = {"HTTP_FILTER", "NETWORK_FILTER", "VIRTUAL_HOST", "LISTENER_FILTER"}
FIXED = {"ROUTE_CONFIGURATION", "HTTP_ROUTE"}


@analyzer("envoyfilter.EnvoyPatchAnalyzer", "Checks an envoyFilters ")
def patches(snapshot: Snapshot) -> Iterator[Message]:
    """A relative patch depends on what was applied before it. If an earlier patch of the same filter is for some
    versions of proxies only, it depends on the proxy's version, too."""
    versioned: set[tuple[str, str]] = set()
    for ef in snapshot.all(kinds.ENVOY_FILTER):
        for i, patch in enumerate(ef.spec.get("configPatches") or []):
            if not isinstance(patch, dict) or not isinstance(patch.get("patch"), dict):
                break  # as Istio does
            name = _name(patch)
            code = _wrong(patch) or _relative(ef, patch, name in versioned)
            if code:
                yield message(code, ef, path=("spec", "configPatches", i, "patch", "operation"))
            if dig(patch, "match", "proxy", "proxyVersion"):
                versioned.add(name)


def _name(patch: Json) -> tuple[str, str]:
    """What Istio compares patches by: the name in the patch's value, otherwise that of the filter that it matches,
    which is never equal to one in a value; empty without a value."""
    value = dig(patch, "patch", "value")
    if not isinstance(value, dict) or not value:
        return "", ""
    if value.get("name") is not None:
        return "value", str(value["name"])
    matched = str(dig(patch, "match", "listener", "filterChain", "filter", "name", default=""))
    return "match" if matched else "", matched


def _wrong(patch: Json) -> str:
    """The code for an operation that is not valid for this kind of object."""
    operation, applies = dig(patch, "patch", "operation"), str(patch.get("applyTo") or "")
    if operation == "REPLACE" and applies not in REPLACEABLE:
        return "IST0152"
    if applies in FIXED:
        return {"ADD": "IST0153", "REMOVE": "IST0154"}.get(str(operation), "")
    return ""


def _relative(ef: Source, patch: Json, versioned: bool) -> str:
    if ef.spec.get("priority") or dig(patch, "patch", "operation") not in RELATIVE:
        return ""
    return "IST0155" if versioned else "IST0151"
