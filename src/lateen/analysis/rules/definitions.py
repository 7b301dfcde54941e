"""The cluster's CRDs of the Gateway API: their release, and whether they contain the fields in use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Path, Snapshot, Source, message
from lateen.api import crds, kinds
from lateen.api.config import schema
from lateen.kit.jsons import Json

CRD_MINIMUM = {
    "grpcroutes": "v1.1.0",
    "backendtlspolicies": "v1.4.0",
    "tlsroutes": "v1.5.0",
    "tcproutes": "v1.6.0",
}
"""The first release of the Gateway API in which each kind is supported, from Istio's notes on supported kinds."""
AT = ("metadata", "annotations", crds.BUNDLE)


@analyzer(
    "k8sgateway.CRDVersionAnalyzer",
    "Checks Gateway API CRDs are at the minimum version required by this Istio version",
)
def crd_versions(snapshot: Snapshot) -> Iterator[Message]:
    for crd, installed in _bundles(snapshot):
        needed = _minimum(crd)
        if needed and installed.numbers < crds.Bundle(needed, "").numbers:
            shown = (release.removeprefix("v") for release in (installed.release, needed))
            yield message("IST0176", crd, crd.name, *shown, path=AT)


@analyzer("k8sgateway.NewerCRDAnalyzer", "Checks for Gateway API CRDs that are newer than this version knows")
def newer_crds(snapshot: Snapshot) -> Iterator[Message]:
    for crd, installed in _bundles(snapshot):
        if installed.numbers[:2] > crds.OWN.numbers[:2]:
            yield message("LAT0114", crd, crd.name, installed, crds.RELEASE, path=AT)


def _bundles(snapshot: Snapshot) -> Iterator[tuple[Source, crds.Bundle]]:
    """The Gateway API's CRDs that name their release."""
    for crd in snapshot.all(kinds.CRD):
        installed = crds.bundle(crd.obj)
        if crd.spec.get("group") in kinds.GATEWAY_APIS and installed.release:
            yield crd, installed


def _minimum(crd: Source) -> str | None:
    return CRD_MINIMUM.get(str((crd.spec.get("names") or {}).get("plural") or crd.name.partition(".")[0]))


@analyzer("k8sgateway.ChannelAnalyzer", "Checks that the Gateway API's CRDs are of the channel that objects need")
def channels(snapshot: Snapshot) -> Iterator[Message]:
    there = {crd.name: crds.bundle(crd.obj) for crd in snapshot.all(kinds.CRD)}
    if not there:
        return  # files alone
    for kind in (k for k in kinds.owned() if k.group in kinds.GATEWAY_APIS):
        name = f"{kind.plural}.{kind.group}"
        found = there.get(name)
        for source in snapshot.all(kind):
            if found is None and kind.experimental:
                yield message("LAT0115", source, kind.kind, f"the cluster has no CRD {name}")
            elif found is not None and found.channel == "standard":
                for path in beyond(_schema(kind, False), _schema(kind, True), source.spec, ("spec",)):
                    field = ".".join(str(p) for p in path[1:])
                    yield message("LAT0115", source, field, f"the cluster's CRD {name} is {found}", path=path)


@lru_cache(maxsize=64)
def _schema(kind: kinds.Kind, experimental: bool) -> Json:
    return schema(kind.spec, experimental)


def beyond(standard: Json, experimental: Json, value: Any, at: Path) -> Iterator[Path]:
    """The paths of fields that only exist in the experimental schema."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from beyond(standard.get("items", {}), experimental.get("items", {}), item, (*at, i))
    elif isinstance(value, dict):
        known, more = standard.get("properties", {}), experimental.get("properties", {})
        for name, inner in value.items():
            if name in more and name not in known:
                yield (*at, name)
            elif name in more:
                yield from beyond(known[name], more[name], inner, (*at, name))
