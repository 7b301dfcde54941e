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
    for ef in snapshot.all(kinds.ENVOY_FILTER):
        seen: set[str] = set()
        for i, patch in enumerate(ef.spec.get("configPatches") or []):
            if not isinstance(patch, dict):
                continue
            for m in _patch(ef, patch, i):
                if m.kind.code not in ("IST0151", "IST0155") or m.kind.code not in seen:
                    seen.add(m.kind.code)
                    yield m


def _patch(ef: Source, patch: Json, i: int) -> Iterator[Message]:
    operation, applies = str(dig(patch, "patch", "operation", default="")), str(patch.get("applyTo") or "")
    path = ("spec", "configPatches", i, "patch", "operation")
    if operation == "REPLACE" and applies not in REPLACEABLE:
        yield message("IST0152", ef, path=path)
        return
    if operation == "ADD" and applies in FIXED:
        yield message("IST0153", ef, path=path)
        return
    if operation == "REMOVE" and applies in FIXED:
        yield message("IST0154", ef, path=path)
        return
    if ef.spec.get("priority"):
        return
    if operation in RELATIVE:
        versioned = bool(dig(patch, "match", "proxy", "proxyVersion"))
        if versioned:
            yield message("IST0155", ef, path=path)
        yield message("IST0151", ef, path=path)
