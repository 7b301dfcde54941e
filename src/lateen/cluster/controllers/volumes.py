"""Claims and volumes: finds or makes a volume for each claim, and keeps both as long as they are used.

Follows Kubernetes' persistent volume binder and the two protection controllers. Folders are made and removed by the
kubelet, which reads the same objects.
"""

from __future__ import annotations

from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.api.reading import is_finished
from lateen.cluster.controllers.loop import Events, Key, Loop
from lateen.cluster.controllers.ownership import owner
from lateen.cluster.rules import amounts, storage
from lateen.cluster.rules.storage import BOUND, DRIVER, PROTECTED, PROVISIONED
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
NONE = "kubernetes.io/no-provisioner"
CLAIM, VOLUME = kinds.PERSISTENT_VOLUME_CLAIM, kinds.PERSISTENT_VOLUME


class Volumes:
    """Keys are (namespace, claim), or ("", volume)."""

    name = "volume"
    watches = (CLAIM, VOLUME, kinds.STORAGE_CLASS, kinds.POD)

    def __init__(self, client: Client, loop: Loop, events: Events) -> None:
        self._client, self._loop, self._events = client, loop, events

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        for obj in filter(None, (old, new)):
            meta = obj["metadata"]
            if kind == CLAIM:
                yield meta["namespace"], meta["name"]
                if volume := dig(obj, "spec", "volumeName"):
                    yield "", volume
            elif kind == VOLUME:
                yield "", meta["name"]
                if ref := dig(obj, "spec", "claimRef"):
                    yield str(ref.get("namespace")), str(ref.get("name"))
            elif kind == kinds.POD:
                yield from ((meta["namespace"], claim) for claim in storage.claims_of(obj).values() if claim)
        if kind == kinds.STORAGE_CLASS or (kind == VOLUME and new is not None and not dig(new, "spec", "claimRef")):
            yield from self._pending()

    def _pending(self) -> Iterable[Key]:
        for claim in self._loop.objects(CLAIM):
            if dig(claim, "status", "phase") != "Bound":
                yield claim["metadata"]["namespace"], claim["metadata"]["name"]

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        if not namespace:
            if (pv := await self._client.get(VOLUME, "", name)) is not None:
                await self._volume(pv)
            return
        claim = await self._client.get(CLAIM, namespace, name)
        users = [p for p in await self._pods(namespace) if name in storage.claims_of(p).values()]
        if claim is None:
            await self._for_pod(namespace, name, users)
        elif claim["metadata"].get("deletionTimestamp"):
            if not any(dig(p, "spec", "nodeName") for p in users):
                await self._release(CLAIM, claim)
        else:
            await self._claim(claim, users)

    async def _pods(self, namespace: str) -> list[Json]:
        found, _ = await self._client.list(kinds.POD, namespace)
        return [p for p in found if not is_finished(p)]

    async def _for_pod(self, namespace: str, name: str, users: list[Json]) -> None:
        """A claim of a pod's own (``volumes[].ephemeral``)."""
        for pod in users:
            for volume in pod["spec"].get("volumes") or []:
                if "ephemeral" not in volume or storage.claims_of(pod)[volume["name"]] != name:
                    continue
                template = dig(volume, "ephemeral", "volumeClaimTemplate", default={})
                meta = {"name": name, "namespace": namespace, "ownerReferences": [owner(pod)]}
                given = {k: v for k, v in (template.get("metadata") or {}).items() if k in ("labels", "annotations")}
                made = {"apiVersion": "v1", "kind": CLAIM.kind, "metadata": given | meta, "spec": template.get("spec")}
                await self._client.create(CLAIM, made)
                return

    async def _release(self, kind: Kind, obj: Json) -> None:
        """Remove the finalizer that keeps an object which is in use."""
        meta = obj["metadata"]
        left = [f for f in meta.get("finalizers") or [] if f != PROTECTED[kind.kind]]
        if len(left) != len(meta.get("finalizers") or []):
            change = {"metadata": {"finalizers": left}}
            await self._client.patch(kind, meta.get("namespace", ""), meta["name"], change)

    # --- claims ----------------------------------------------------------------------------------------------

    async def _claim(self, claim: Json, users: list[Json]) -> None:
        name = dig(claim, "spec", "volumeName")
        if not name:
            await self._find(claim, users)
            return
        pv = await self._client.get(VOLUME, "", name)
        if pv is None:
            lost = dig(claim, "metadata", "annotations", BOUND) == "yes"
            if lost and dig(claim, "status", "phase") != "Lost":
                says = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
                self._events.event(claim, "Warning", "ClaimLost", says)
            gone = {"phase": "Lost", "accessModes": None, "capacity": None}
            await self._status(CLAIM, claim, gone if lost else {"phase": "Pending"})
        elif not dig(pv, "spec", "claimRef") or storage.is_for(pv, claim):
            await self._bind(claim, pv)
        else:
            says = f'volume "{name}" already bound to a different claim.'
            self._events.event(claim, "Warning", "FailedBinding", says)

    async def _find(self, claim: Json, users: list[Json]) -> None:
        found, _ = await self._client.list(VOLUME)
        fitting = [pv for pv in found if storage.suits(pv, claim)]
        reserved = [pv for pv in fitting if dig(pv, "spec", "claimRef")]
        for pv in reserved or sorted(fitting, key=lambda pv: (storage.size(pv), pv["metadata"]["name"])):
            await self._bind(claim, pv)
            return
        name = dig(claim, "spec", "storageClassName")
        if not name:
            says = "no persistent volumes available for this claim and no storage class is set"
            self._events.event(claim, "Normal", "FailedBinding", says)
            return
        of_class = await self._client.get(kinds.STORAGE_CLASS, "", name)
        if of_class is None:
            says = f'storageclass.storage.k8s.io "{name}" not found'
            self._events.event(claim, "Warning", "ProvisioningFailed", says)
        elif of_class.get("volumeBindingMode") == "WaitForFirstConsumer" and not users:
            says = "waiting for first consumer to be created before binding"
            self._events.event(claim, "Normal", "WaitForFirstConsumer", says)
        elif of_class["provisioner"] == DRIVER:
            pv = await self._client.create(VOLUME, _provisioned(claim, of_class))
            says = f"Successfully provisioned volume {pv['metadata']['name']}"
            self._events.event(claim, "Normal", "ProvisioningSucceeded", says)
            await self._bind(claim, pv)
        elif of_class["provisioner"] != NONE:
            says = (
                f"Waiting for a volume to be created either by the external provisioner '{of_class['provisioner']}' or "
                "manually by the system administrator. If volume creation is delayed, please verify that the "
                "provisioner is running and correctly registered."
            )
            self._events.event(claim, "Normal", "ExternalProvisioning", says)

    async def _bind(self, claim: Json, pv: Json) -> None:
        """Bind both to each other: the volume first, so that no two claims get it."""
        meta, name = claim["metadata"], pv["metadata"]["name"]
        if dig(pv, "spec", "claimRef", "uid") != meta["uid"]:
            change = {
                "metadata": {"resourceVersion": pv["metadata"]["resourceVersion"]},
                "spec": {"claimRef": _ref(claim)},
            }
            if not dig(pv, "spec", "claimRef"):
                change["metadata"]["annotations"] = {BY_CONTROLLER: "yes"}
            pv = await self._client.patch(VOLUME, "", name, change)
        if dig(claim, "spec", "volumeName") != name or dig(meta, "annotations", BOUND) != "yes":
            chosen = {} if dig(claim, "spec", "volumeName") else {BY_CONTROLLER: "yes"}
            bound = {"metadata": {"annotations": {BOUND: "yes"} | chosen}, "spec": {"volumeName": name}}
            claim = await self._client.patch(CLAIM, meta["namespace"], meta["name"], bound)
        pv = await self._grow(claim, pv)
        has = {"phase": "Bound", "accessModes": pv["spec"]["accessModes"], "capacity": pv["spec"]["capacity"]}
        await self._status(CLAIM, claim, has)
        await self._volume(pv)

    async def _grow(self, claim: Json, pv: Json) -> Json:
        """A folder has no size of its own: a claim gets whatever size it is allowed to request."""
        asked = dig(claim, "spec", "resources", "requests", "storage", default="0")
        if dig(pv, "spec", "csi", "driver") != DRIVER or amounts.parse(asked) <= storage.size(pv):
            return pv
        change = {"spec": {"capacity": {"storage": asked}}}
        return await self._client.patch(VOLUME, "", pv["metadata"]["name"], change)

    # --- volumes ---------------------------------------------------------------------------------------------

    async def _volume(self, pv: Json) -> None:
        ref = dig(pv, "spec", "claimRef")
        claim = await self._client.get(CLAIM, str(ref["namespace"]), str(ref["name"])) if ref else None
        gone = bool(ref and ref.get("uid") and (claim is None or claim["metadata"]["uid"] != ref["uid"]))
        bound = claim is not None and not gone and dig(claim, "spec", "volumeName") == pv["metadata"]["name"]
        if pv["metadata"].get("deletionTimestamp") and not bound:
            await self._release(VOLUME, pv)
            return
        failed = dig(pv, "status", "phase") == "Failed"
        phase = "Released" if gone else "Bound" if bound else "Available"
        if gone and not _reclaimable(pv):
            phase = "Failed"
            if not failed:
                name = pv["metadata"]["name"]
                says = f'error getting deleter volume plugin for volume "{name}": no deletable volume plugin matched'
                self._events.event(pv, "Warning", "VolumeFailedDelete", says)
        await self._status(VOLUME, pv, {"phase": phase})

    async def _status(self, kind: Kind, obj: Json, status: Json) -> None:
        before, meta = obj.get("status") or {}, obj["metadata"]
        if any(before.get(k) != v for k, v in status.items()):
            if kind is VOLUME:
                status |= {"lastPhaseTransitionTime": times.stamp()}
            await self._client.patch(kind, meta.get("namespace", ""), meta["name"], {"status": status}, "status")


def _reclaimable(pv: Json) -> bool:
    """Whether we can carry out the reclaim policy of a released volume."""
    policy = dig(pv, "spec", "persistentVolumeReclaimPolicy")
    ours = dig(pv, "spec", "csi", "driver") == DRIVER
    return bool(policy == "Retain" or (policy == "Delete" and ours))


def _ref(claim: Json) -> Json:
    meta = claim["metadata"]
    names = {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
    return {"apiVersion": "v1", "kind": CLAIM.kind, **names, "resourceVersion": meta["resourceVersion"]}


def _provisioned(claim: Json, of_class: Json) -> Json:
    """A new volume, called after the claim's uid; the kubelet makes its folder when a pod needs it."""
    name, spec = f"pvc-{claim['metadata']['uid']}", claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": VOLUME.kind,
        "metadata": {"name": name, "annotations": {PROVISIONED: DRIVER}},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": dig(spec, "resources", "requests", "storage")},
            "claimRef": _ref(claim),
            "csi": {"driver": DRIVER, "volumeHandle": name},
            "persistentVolumeReclaimPolicy": of_class.get("reclaimPolicy", "Delete"),
            "storageClassName": of_class["metadata"]["name"],
            "volumeMode": "Filesystem",
            **({"mountOptions": of_class["mountOptions"]} if of_class.get("mountOptions") else {}),
        },
    }
