"""Which dependents belong to a controller: it adopts what its selector matches and releases what it no longer does.

Follows Kubernetes' ControllerRefManager: an owner that is being deleted adopts nothing.
"""

from __future__ import annotations

from lateen.api.kinds import Kind
from lateen.cluster.controllers.ownership import controlled, owned_by, owner
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError


async def claim(client: Client, obj: Json, kind: Kind, found: list[Json], selector: Json | None) -> list[Json]:
    """Those of ``found`` that are the controller's own, adopted ones included. Raises KubeError."""
    going = bool(obj["metadata"].get("deletionTimestamp"))
    out: list[Json] = []
    for item in found:
        matches = selectors.matches(selector, dig(item, "metadata", "labels", default={}))
        if owned_by(item, obj["metadata"]["uid"]):
            if matches or going:
                out.append(item)
            else:
                refs = [r for r in item["metadata"]["ownerReferences"] if r["uid"] != obj["metadata"]["uid"]]
                await _own(client, kind, item, refs)
        elif matches and not going and not item["metadata"].get("deletionTimestamp") and not controlled(item):
            refs = [*dig(item, "metadata", "ownerReferences", default=[]), owner(obj)]
            if (adopted := await _own(client, kind, item, refs)) is not None:
                out.append(adopted)
    return out


async def _own(client: Client, kind: Kind, item: Json, refs: list[Json]) -> Json | None:
    """None if the object has gone in the meantime."""
    meta = item["metadata"]
    change = {"metadata": {"resourceVersion": meta["resourceVersion"], "ownerReferences": refs}}
    try:
        return await client.patch(kind, meta["namespace"], meta["name"], change)
    except KubeError as e:
        if e.code == 404:
            return None
        raise
