"""StatefulSets: pods with ordinals, names in DNS, and claims of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import ordinals, revisions
from lateen.cluster.controllers.claims import claim
from lateen.cluster.controllers.loop import Events, Key, controller_of, ending, set_status
from lateen.cluster.controllers.ownership import owner, pod_of, waits_s
from lateen.kit import jsons, times
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

POD_NAME, POD_INDEX = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"
_ORDINAL = re.compile(r"(.+)-([0-9]{1,10})")
CLAIM = kinds.PERSISTENT_VOLUME_CLAIM


class StatefulSets:
    name = "statefulset"
    adopts = kinds.STATEFUL_SET
    watches = (kinds.STATEFUL_SET, kinds.POD, CLAIM)

    def __init__(self, client: Client, events: Events) -> None:
        self._client, self._events = client, events

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        if kind != CLAIM:
            return controller_of(kinds.STATEFUL_SET, kind, old, new)
        refs = dig(new or old or {}, "metadata", "ownerReferences", default=[])
        namespace = (new or old or {})["metadata"]["namespace"]
        return [(namespace, str(r.get("name"))) for r in refs if r.get("kind") == "StatefulSet"]

    async def reconcile(self, key: Key) -> float | None:
        namespace, name = key
        sts = await self._client.get(kinds.STATEFUL_SET, namespace, name)
        if sts is None or sts["metadata"].get("deletionTimestamp"):
            return None
        history = await revisions.history(self._client, sts)
        listed, _ = await self._client.list(kinds.POD, namespace)
        named = [p for p in listed if _ordinal(p, name) is not None]
        mine = await claim(self._client, sts, kinds.POD, named, dig(sts, "spec", "selector"))
        found = {o: p for p in mine if (o := _ordinal(p, name)) is not None}
        update = history.newest["metadata"]["name"]
        known = dig(sts, "status", "currentRevision", default="")
        current = known if history.of(known) else update
        now = times.now()
        pods = ordinals.Pods(sts, found, current, update, now)
        failure = await self._carry_out(pods, history, ordinals.step(pods))
        await self._own_claims(pods)
        await revisions.prune(self._client, sts, history, {current, *map(ordinals.revision_of, mine)})
        await set_status(self._client, kinds.STATEFUL_SET, sts, ordinals.status(pods))
        if failure:
            raise failure
        waiting = (waits_s(p, int(dig(sts, "spec", "minReadySeconds", default=0)), now) for p in mine)
        return min((w for w in waiting if w), default=None)

    async def _carry_out(
        self, pods: ordinals.Pods, history: revisions.History, step: ordinals.Step
    ) -> KubeError | None:
        sts = pods.sts
        namespace, name = sts["metadata"]["namespace"], sts["metadata"]["name"]
        for ordinal in step.delete:
            if await self._client.delete(kinds.POD, namespace, f"{name}-{ordinal}"):
                said = f"delete Pod {name}-{ordinal} in StatefulSet {name} successful"
                self._events.event(sts, "Normal", "SuccessfulDelete", said)
        for ordinal, revision in step.create:
            try:
                await self._create(sts, ordinal, history.of(revision) or history.newest)
            except KubeError as e:
                if ending(e):
                    return None
                if e.code != 409:  # another pod of this name is waited for
                    said = f"create Pod {name}-{ordinal} in StatefulSet {name} failed error: {e.message}"
                    self._events.event(sts, "Warning", "FailedCreate", said)
                return e
            said = f"create Pod {name}-{ordinal} in StatefulSet {name} successful"
            self._events.event(sts, "Normal", "SuccessfulCreate", said)
        return None

    async def _create(self, sts: Json, ordinal: int, revision: Json) -> None:
        namespace = sts["metadata"]["namespace"]
        policy = dig(sts, "spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted")
        for made in claims_of(sts, ordinal):
            if policy == "Delete":
                made["metadata"]["ownerReferences"] = [owner(sts)]
            if await self._client.get(CLAIM, namespace, made["metadata"]["name"]) is None:
                await self._client.create(CLAIM, made)
                name = sts["metadata"]["name"]
                said = f"create Claim {made['metadata']['name']} Pod {name}-{ordinal} in StatefulSet {name} success"
                self._events.event(sts, "Normal", "SuccessfulCreate", said)
        await self._client.create(kinds.POD, new_pod(sts, ordinal, revision))

    # --- claims that go with the set or its pods ------------------------------------------------------------

    async def _own_claims(self, pods: ordinals.Pods) -> None:
        """persistentVolumeClaimRetentionPolicy, as owners of the claims."""
        sts = pods.sts
        templates = {str(t["metadata"]["name"]) for t in dig(sts, "spec", "volumeClaimTemplates", default=[])}
        policy = dig(sts, "spec", "persistentVolumeClaimRetentionPolicy", default={})
        deleting, scaling = (policy.get(k) == "Delete" for k in ("whenDeleted", "whenScaled"))
        if not templates:
            return
        found, _ = await self._client.list(CLAIM, sts["metadata"]["namespace"])
        for item in found:
            prefix, _, number = str(item["metadata"]["name"]).rpartition("-")
            template = prefix.removesuffix(f"-{sts['metadata']['name']}")
            if template == prefix or template not in templates or not digits(number):
                continue
            ordinal = int(number)
            refs = dig(item, "metadata", "ownerReferences", default=[])
            pod = pods.found.get(ordinal)
            condemned = ordinal not in pods.wanted and pod is not None
            kept = [r for r in refs if r.get("uid") != sts["metadata"]["uid"] and r.get("kind") != "Pod"]
            if condemned and scaling and pod is not None:
                kept.append(owner(pod))
            elif deleting:
                kept.append(owner(sts))
            if {r.get("uid") for r in kept} != {r.get("uid") for r in refs} and (refs or kept):
                if ordinal not in pods.wanted and pod is None:
                    continue  # its pod has gone: its fate has been decided
                change = {"metadata": {"ownerReferences": kept}}
                await self._client.patch(CLAIM, sts["metadata"]["namespace"], item["metadata"]["name"], change)
                if pod is not None and not condemned:
                    names = pod["metadata"]["name"], sts["metadata"]["name"]
                    said = "update Pod {} in StatefulSet {} successful".format(*names)
                    self._events.event(sts, "Normal", "SuccessfulUpdate", said)


def _ordinal(pod: Json, name: str) -> int | None:
    m = _ORDINAL.fullmatch(str(pod["metadata"]["name"]))
    return int(m[2]) if m and m[1] == name and str(int(m[2])) == m[2] else None


def claims_of(sts: Json, ordinal: int) -> list[Json]:
    """The claims of one pod, called after the template, the set and the ordinal."""
    out = []
    meta = sts["metadata"]
    for template in dig(sts, "spec", "volumeClaimTemplates", default=[]):
        made = jsons.copy({k: v for k, v in template.items() if k != "status"})
        given = made.get("metadata") or {}
        made["metadata"] = {
            "name": f"{given['name']}-{meta['name']}-{ordinal}",
            "namespace": meta["namespace"],
            "labels": {**(given.get("labels") or {}), **dig(sts, "spec", "selector", "matchLabels", default={})},
            "annotations": given.get("annotations") or {},
        }
        out.append(made)
    return out


def new_pod(sts: Json, ordinal: int, revision: Json) -> Json:
    name = f"{sts['metadata']['name']}-{ordinal}"
    labels = {POD_NAME: name, POD_INDEX: str(ordinal), revisions.POD_HASH: revision["metadata"]["name"]}
    pod = pod_of(
        sts, revisions.template_of(revision), {"name": name, "generateName": f"{sts['metadata']['name']}-"}, labels
    )
    spec = pod["spec"]
    spec["hostname"] = name
    if service := sts["spec"].get("serviceName"):
        spec["subdomain"] = service
    own = {
        str(t["metadata"]["name"]): f"{t['metadata']['name']}-{name}"
        for t in dig(sts, "spec", "volumeClaimTemplates", default=[])
    }
    volumes = [v for v in spec.get("volumes") or [] if v.get("name") not in own]
    volumes += [{"name": v, "persistentVolumeClaim": {"claimName": c}} for v, c in own.items()]
    if volumes:
        spec["volumes"] = volumes
    return pod
