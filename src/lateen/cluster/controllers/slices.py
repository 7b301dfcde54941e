"""Writes the EndpointSlices that a controller keeps for a Service."""

from __future__ import annotations

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

SERVICE, MANAGED = "kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by"


async def put(client: Client, namespace: str, name: str, manager: str, wanted: list[Json]) -> None:
    """Have these and no others of the manager's. Each keeps the slice that has its ports; further ones take what is
    left over, or are made. Raises KubeError."""
    labels = {SERVICE: name, MANAGED: manager}
    listed, _ = await client.list(kinds.ENDPOINT_SLICE, namespace)
    mine = [s for s in listed if selectors.subset(labels, dig(s, "metadata", "labels", default={}))]
    pairs: list[tuple[Json | None, Json]] = []
    for obj in wanted:
        same = next((s for s in mine if _alike(s, obj)), None)
        mine = [s for s in mine if s is not same]
        pairs.append((same, obj))
    for found, obj in pairs:
        left = next((s for s in mine if s.get("addressType") == obj["addressType"]), None) if found is None else None
        mine = [s for s in mine if s is not left]
        await replace(client, kinds.ENDPOINT_SLICE, found or left, obj, ("endpoints", "ports"))
    for rest in mine:
        await client.delete(kinds.ENDPOINT_SLICE, namespace, rest["metadata"]["name"])


def _alike(found: Json, wanted: Json) -> bool:
    return (found.get("ports") or [], found.get("addressType")) == (wanted["ports"], wanted["addressType"])


async def replace(client: Client, kind: Kind, found: Json | None, wanted: Json, parts: tuple[str, ...]) -> None:
    """Create what is missing; write what differs in one of the parts, or in labels or annotations that are wanted.
    Raises KubeError."""
    if found is None:
        await client.create(kind, wanted)
        return
    same = all((found.get(k) or []) == (wanted.get(k) or []) for k in parts)
    notes = wanted["metadata"].get("annotations")
    same = same and (notes is None or dig(found, "metadata", "annotations", default={}) == notes)
    if not same or dig(found, "metadata", "labels", default={}) != wanted["metadata"]["labels"]:
        meta = {k: v for k, v in wanted["metadata"].items() if k != "generateName"}
        await client.update(kind, wanted | {"metadata": {**found["metadata"], **meta}})
