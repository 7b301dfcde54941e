"""The history of a StatefulSet's or DaemonSet's pod template, as ControllerRevisions.

``kubectl rollout history`` and ``undo`` read them: each holds a patch that puts its template back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lateen.api import kinds
from lateen.cluster.controllers.claims import claim
from lateen.cluster.controllers.ownership import owner, template_hash
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

HASH = "controller.kubernetes.io/hash"
POD_HASH = "controller-revision-hash"
"""The label of a pod: which revision it is of."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True)
class History:
    """``newest`` is the revision of the present template; ``all`` is sorted, the oldest first."""

    newest: Json
    all: tuple[Json, ...]

    def of(self, name: str) -> Json | None:
        return next((r for r in self.all if r["metadata"]["name"] == name), None)


def template_of(revision: Json) -> Json:
    """The pod template that a revision stands for."""
    found: Json = dig(revision, "data", "spec", "template", default={})
    return {k: v for k, v in found.items() if k != "$patch"}


def hash_of(revision: Json) -> str:
    """From its name: earlier versions have labelled it otherwise."""
    return str(revision["metadata"]["name"]).rpartition("-")[2]


async def history(client: Client, obj: Json) -> History:
    """Make the present template the newest revision. Raises KubeError."""
    meta = obj["metadata"]
    found, _ = await client.list(kinds.CONTROLLER_REVISION, meta["namespace"])
    mine = await claim(client, obj, kinds.CONTROLLER_REVISION, found, dig(obj, "spec", "selector"))
    mine.sort(key=lambda r: (int(r.get("revision") or 0), r["metadata"]["name"]))
    template = obj["spec"]["template"]
    top = int(mine[-1].get("revision") or 0) if mine else 0
    same = next((r for r in reversed(mine) if template_of(r) == template), None)
    if same is None:
        same = await client.create(kinds.CONTROLLER_REVISION, _revision(obj, template, top + 1))
        mine.append(same)
    elif same is not mine[-1]:  # a template of the past is the newest again
        mine.remove(same)
        same = await client.patch(
            kinds.CONTROLLER_REVISION, meta["namespace"], same["metadata"]["name"], {"revision": top + 1}
        )
        mine.append(same)
    return History(same, tuple(mine))


def _revision(obj: Json, template: Json, number: int) -> Json:
    meta, key = obj["metadata"], template_hash(template)
    labels = dig(template, "metadata", "labels", default={})
    annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k != LAST_APPLIED}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{meta['name']}-{key}",
            "namespace": meta["namespace"],
            "labels": {**labels, (POD_HASH if obj["kind"] == "DaemonSet" else HASH): key},
            "annotations": annotations,
            "ownerReferences": [owner(obj)],
        },
        "revision": number,
        "data": {"spec": {"template": {**template, "$patch": "replace"}}},
    }


async def prune(client: Client, obj: Json, found: History, used: Collection[str]) -> None:
    """Delete the oldest revisions beyond the history's limit; ``used``: names that pods or the status refer to."""
    limit = int(dig(obj, "spec", "revisionHistoryLimit", default=10))
    idle = [r["metadata"]["name"] for r in found.all if r is not found.newest and r["metadata"]["name"] not in used]
    for name in idle[: max(0, len(idle) - limit)]:
        await client.delete(kinds.CONTROLLER_REVISION, obj["metadata"]["namespace"], name)
