"""The loops of all controllers: informers feed one queue of keys; a key is worked on by one task at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import endpoints, workloads
from lateen.kit import selectors, tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.controllers")

Work = tuple[str, str, str]
"""(controller, namespace, name)"""

FINALIZE = 0.2


class Manager:
    def __init__(self, client: Client, root_ca: str) -> None:
        self._client, self._root_ca = client, root_ca
        self.informers = {
            k.plural: Informer(client, k, self._changed)
            for k in (
                kinds.NAMESPACE,
                kinds.POD,
                kinds.SERVICE,
                kinds.DEPLOYMENT,
                kinds.REPLICA_SET,
                kinds.SERVICE_ACCOUNT,
                kinds.ENDPOINTS,
                kinds.ENDPOINT_SLICE,
            )
        }
        self._queue: asyncio.Queue[Work] = asyncio.Queue()
        self._pending: set[Work] = set()
        self._failures: dict[Work, int] = {}
        self._controllers: dict[str, Callable[[str, str], Awaitable[None]]] = {
            "deployment": self._deployment,
            "replicaset": self._replica_set,
            "service": self._service,
            "namespace": self._namespace,
        }

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for informer in self.informers.values():
                group.create_task(informer.run(), name=f"informer {informer.kind.plural}")
            await asyncio.gather(*(i.synced.wait() for i in self.informers.values()))
            await self._collect_all()
            for i in range(4):
                group.create_task(self._worker(), name=f"controller worker {i}")

    def _add(self, controller: str, namespace: str, name: str) -> None:
        work = (controller, namespace, name)
        if work not in self._pending:
            self._pending.add(work)
            self._queue.put_nowait(work)

    def _objects(self, kind: Kind, namespace: str = "") -> list[Json]:
        return [o for (ns, _), o in self.informers[kind.plural].objects.items() if not namespace or ns == namespace]

    def _get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        return self.informers[kind.plural].objects.get((namespace, name))

    def _changed(self, kind: Kind, key: Key, old: Json | None, new: Json | None) -> None:
        namespace, name = key
        obj = new or old
        assert obj is not None
        if new is None and old is not None:
            tasks.spawn(self._collect(old), f"garbage of {kind.kind} {name}")
        match kind:
            case kinds.DEPLOYMENT:
                self._add("deployment", namespace, name)
            case kinds.REPLICA_SET:
                self._add("replicaset", namespace, name)
                self._add_owner("deployment", obj)
            case kinds.POD:
                self._add_owner("replicaset", obj)
                self._services_of(old, new)
            case kinds.SERVICE:
                self._add("service", namespace, name)
            case kinds.NAMESPACE:
                self._add("namespace", "", name)
            case kinds.SERVICE_ACCOUNT if new is None:
                self._add("namespace", "", namespace)
            case kinds.ENDPOINTS if new is None:
                self._add("service", namespace, name)
        if namespace and new is None:
            ns = self._get(kinds.NAMESPACE, "", namespace)
            if ns and ns["metadata"].get("deletionTimestamp"):
                self._add("namespace", "", namespace)

    def _add_owner(self, controller: str, obj: Json) -> None:
        for ref in dig(obj, "metadata", "ownerReferences", default=[]):
            if ref.get("controller"):
                self._add(controller, obj["metadata"]["namespace"], ref["name"])

    def _services_of(self, old: Json | None, new: Json | None) -> None:
        for pod in (old, new):
            if pod is not None:
                labels = dig(pod, "metadata", "labels", default={})
                for s in self._objects(kinds.SERVICE, pod["metadata"]["namespace"]):
                    selector = dig(s, "spec", "selector", default={})
                    if selector and selectors.subset(selector, labels):
                        self._add("service", s["metadata"]["namespace"], s["metadata"]["name"])

    async def _worker(self) -> None:
        while True:
            work = await self._queue.get()
            self._pending.discard(work)
            controller, namespace, name = work
            try:
                await self._controllers[controller](namespace, name)
                self._failures.pop(work, None)
            except (KubeError, OSError, TimeoutError) as e:
                if isinstance(e, KubeError) and e.code in (404, 409) and controller != "namespace":
                    delay = 0.05
                else:
                    delay = min(0.5 * 2 ** self._failures.get(work, 0), 10.0)
                    log.warning("%s %s/%s: %s", controller, namespace, name, e)
                self._failures[work] = self._failures.get(work, 0) + 1
                asyncio.get_running_loop().call_later(delay, self._add, *work)

    # --- controllers -----------------------------------------------------------------------------------------

    async def _deployment(self, namespace: str, name: str) -> None:
        d = await self._client.get(kinds.DEPLOYMENT, namespace, name)
        if d is None:
            return
        sets, _ = await self._client.list(kinds.REPLICA_SET, namespace)
        plan = workloads.deployment(d, sets)
        await self._carry_out(plan, kinds.REPLICA_SET, namespace)
        for rs, revision in plan.revisions:
            await self._client.patch(
                kinds.REPLICA_SET, namespace, rs, {"metadata": {"annotations": {workloads.REVISION: revision}}}
            )
        newest = max((int(dig(s, "metadata", "annotations", workloads.REVISION, default="0")) for s in sets), default=1)
        if dig(d, "metadata", "annotations", workloads.REVISION) != str(newest) and sets:
            await self._client.patch(
                kinds.DEPLOYMENT, namespace, name, {"metadata": {"annotations": {workloads.REVISION: str(newest)}}}
            )
        await self._status(kinds.DEPLOYMENT, d, plan.status)

    async def _replica_set(self, namespace: str, name: str) -> None:
        rs = await self._client.get(kinds.REPLICA_SET, namespace, name)
        if rs is None:
            return
        pods, _ = await self._client.list(kinds.POD, namespace)
        plan = workloads.replica_set(rs, pods)
        try:
            await self._carry_out(plan, kinds.POD, namespace)
        except KubeError as e:
            failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": e.message}
            await self._status(kinds.REPLICA_SET, rs, {**plan.status, "conditions": [failure]})
            raise
        await self._status(kinds.REPLICA_SET, rs, {**plan.status, "conditions": []})

    async def _carry_out(self, plan: workloads.Plan, scaled: Kind, namespace: str) -> None:
        for kind, obj in plan.create:
            await self._client.create(kind, obj)
        for name, replicas in plan.scale:
            await self._client.patch(scaled, namespace, name, {"spec": {"replicas": replicas}})
        for kind, name in plan.delete:
            await self._client.delete(kind, namespace, name)

    async def _status(self, kind: Kind, obj: Json, status: Json) -> None:
        before = obj.get("status") or {}
        if {k: before.get(k) for k in status} != status:
            meta = obj["metadata"]
            await self._client.patch(kind, meta["namespace"], meta["name"], {"status": status}, "status")

    async def _service(self, namespace: str, name: str) -> None:
        service = self._get(kinds.SERVICE, namespace, name)
        if service is None:
            await self._client.delete(kinds.ENDPOINTS, namespace, name)
            return
        if not dig(service, "spec", "selector"):
            return
        wanted = endpoints.objects(service, self._objects(kinds.POD, namespace))
        for kind, obj in zip((kinds.ENDPOINTS, kinds.ENDPOINT_SLICE), wanted, strict=True):
            found = await self._client.get(kind, namespace, obj["metadata"]["name"])
            if found is None:
                await self._client.create(kind, obj)
            elif any(found.get(k) != obj.get(k) for k in ("subsets", "endpoints", "ports")):
                obj["metadata"] = {**found["metadata"], **obj["metadata"]}
                await self._client.update(kind, obj)

    async def _namespace(self, _: str, name: str) -> None:
        ns = await self._client.get(kinds.NAMESPACE, "", name)
        if ns is None:
            return
        if ns["metadata"].get("deletionTimestamp"):
            await self._empty(name)
            return
        if await self._client.get(kinds.SERVICE_ACCOUNT, name, "default") is None:
            await self._client.create(
                kinds.SERVICE_ACCOUNT,
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}},
            )
        if await self._client.get(kinds.CONFIG_MAP, name, "kube-root-ca.crt") is None:
            await self._client.create(
                kinds.CONFIG_MAP,
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "data": {"ca.crt": self._root_ca},
                    "metadata": {"name": "kube-root-ca.crt", "namespace": name},
                },
            )

    async def _empty(self, name: str) -> None:
        """Delete everything in a namespace; when nothing is left, let it go."""
        left = 0
        for kind in await self._every_kind():
            items, _ = await self._client.list(kind, name)
            left += len(items)
            for item in items:
                if not item["metadata"].get("deletionTimestamp"):
                    await self._client.delete(kind, name, item["metadata"]["name"])
        if left:
            asyncio.get_running_loop().call_later(FINALIZE, self._add, "namespace", "", name)
            return
        ns = await self._client.get(kinds.NAMESPACE, "", name)
        if ns is not None:
            ns["spec"] = {**(ns.get("spec") or {}), "finalizers": []}
            await self._client.update(kinds.NAMESPACE, ns, "finalize")

    async def _every_kind(self) -> list[Kind]:
        crds, _ = await self._client.list(kinds.CRD)
        custom = [
            Kind(
                c["spec"]["group"],
                next(v["name"] for v in c["spec"]["versions"] if v.get("served", True)),
                c["spec"]["names"]["plural"],
                c["spec"]["names"]["kind"],
            )
            for c in crds
            if c["spec"].get("scope", "Namespaced") == "Namespaced"
        ]
        return [k for k in kinds.BUILT_IN if k.namespaced] + custom

    # --- garbage ---------------------------------------------------------------------------------------------

    async def _collect(self, gone: Json) -> None:
        """Delete what the object that is gone had owned."""
        uid = gone["metadata"]["uid"]
        for plural, informer in self.informers.items():
            for (namespace, name), obj in list(informer.objects.items()):
                refs = dig(obj, "metadata", "ownerReferences", default=[])
                if refs and all(ref["uid"] == uid for ref in refs) and plural != "namespaces":
                    try:
                        await self._client.delete(informer.kind, namespace, name)
                    except KubeError as e:
                        log.warning("deleting %s %s/%s: %s", informer.kind.kind, namespace, name, e)

    async def _collect_all(self) -> None:
        """After a crash: objects whose owners are all gone."""
        alive = {dig(o, "metadata", "uid") for i in self.informers.values() for o in i.objects.values()}
        for informer in self.informers.values():
            for (namespace, name), obj in list(informer.objects.items()):
                refs = dig(obj, "metadata", "ownerReferences", default=[])
                if refs and not any(ref["uid"] in alive for ref in refs):
                    await self._client.delete(informer.kind, namespace, name)
