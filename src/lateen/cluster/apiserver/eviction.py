"""Evictions: deletions that respect disruption budgets (after kube-apiserver's EvictionREST)."""

from __future__ import annotations

from lateen.cluster.apiserver import decoding, matching, reading
from lateen.cluster.apiserver.admission import Webhooks
from lateen.cluster.apiserver.call import Call
from lateen.cluster.apiserver.commit import Committer
from lateen.cluster.apiserver.deletion import Deleter
from lateen.cluster.apiserver.errors import ApiError, bad_request
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import Resource
from lateen.cluster.store.history import Entry
from lateen.cluster.store.objects import Store
from lateen.kit import jsons, selectors, times
from lateen.kit.jsons import Json, dig

_EVICTION = Resource("policy", "v1", "pods", "Eviction")
_KIND = (_EVICTION.group, _EVICTION.version, _EVICTION.kind)
BUDGETS = "poddisruptionbudgets.policy"
RETRY_S = 10


async def evict(
    store: Store, registry: Registry, webhooks: Webhooks, committer: Committer, deleter: Deleter, c: Call
) -> Json:
    """Webhooks and policies see the Eviction, and not the deletion that it leads to, as in Kubernetes.

    Raises ApiError: 429 where a budget does not allow it now.
    """
    to = c.on(resource=_EVICTION, version="v1")
    eviction = decoding.decode(to, c.body)
    eviction["metadata"] = {"name": c.name, "namespace": c.namespace, **eviction["metadata"]}
    if eviction["metadata"]["name"] != c.name:
        raise bad_request(f"name in URL does not match name in Eviction object: {c.name}")
    reading.entry(store, c)
    admitted = await webhooks.admit(matching.review("CREATE", c, eviction, None, _KIND))
    if admitted is not None and admitted is not eviction:
        eviction = decoding.decode(to, admitted)
    deletion = c.on(subresource="", body=eviction.get("deleteOptions") or {})
    options = decoding.delete_options(deletion)
    entry = reading.entry(store, c)
    reading.expect(deletion, entry, options.get("preconditions") or {})
    if _counts(entry.obj):
        budget = _budget(store, entry.obj)
        if budget is not None and not _free(budget.obj, entry.obj):
            granted = _granted(budget.obj, c.name)
            if not c.dry_run:
                resource = registry.by_collection(BUDGETS)
                assert resource is not None
                _write(store, committer, resource, budget, granted)
    if not c.dry_run:
        _write(store, committer, c.resource, entry, _marked(entry.obj))
        deleter.carry_out(deletion, {**options, "preconditions": {}})  # they are met; the mark is a revision of its own
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def _write(store: Store, committer: Committer, resource: Resource, entry: Entry, obj: Json) -> None:
    """Write even if the store is full: an eviction frees space."""
    write = store.update
    name, collection = entry.name, entry.collection
    committer.stored(resource, name, lambda: write(collection, entry.namespace, name, obj, entry, ending=True))


def _counts(pod: Json) -> bool:
    """Whether budgets apply to a pod: not if it has ended, does not run yet, or is being deleted."""
    running = dig(pod, "status", "phase") not in ("Succeeded", "Failed", "Pending")
    return running and not pod["metadata"].get("deletionTimestamp")


def _budget(store: Store, pod: Json) -> Entry | None:
    meta = pod["metadata"]
    found = [
        e
        for e in store.list(BUDGETS, meta["namespace"])
        if selectors.matches(dig(e.obj, "spec", "selector"), meta.get("labels") or {})
    ]
    if len(found) > 1:
        says = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise ApiError(500, "InternalError", says)
    return found[0] if found else None


def _free(budget: Json, pod: Json) -> bool:
    """A pod that is not ready may go if the budget says so, or if enough others are (unhealthyPodEvictionPolicy)."""
    conditions = dig(pod, "status", "conditions", default=[])
    if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
        return False
    if dig(budget, "spec", "unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = int(status.get("desiredHealthy") or 0)
    return desired > 0 and int(status.get("currentHealthy") or 0) >= desired


def _granted(budget: Json, pod: str) -> Json:
    """The budget with one disruption less. Raises ApiError if it has none left."""
    meta, status = budget["metadata"], budget.get("status") or {}
    if int(status.get("observedGeneration") or 0) < int(meta.get("generation") or 1):
        raise _refused(f"The disruption budget {meta['name']} is still being processed by the server.", RETRY_S)
    allowed = int(status.get("disruptionsAllowed") or 0)
    if allowed <= 0:
        desired, healthy = (status.get(k, 0) for k in ("desiredHealthy", "currentHealthy"))
        raise _refused(f"The disruption budget {meta['name']} needs {desired} healthy pods and has {healthy} currently")
    obj = jsons.copy(budget)
    obj["status"]["disruptionsAllowed"] = allowed - 1
    obj["status"].setdefault("disruptedPods", {})[pod] = times.stamp()
    return obj


def _refused(why: str, retry_s: int = 0) -> ApiError:
    """Without a time to retry after, clients return the answer instead of repeating the request by themselves."""
    details: Json = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    details |= {"retryAfterSeconds": retry_s} if retry_s else {}
    says = "Cannot evict pod as it would violate the pod's disruption budget."
    return ApiError(429, "TooManyRequests", says, details)


def _marked(pod: Json) -> Json:
    obj = jsons.copy(pod)
    status = obj.setdefault("status", {})
    others = [c for c in status.get("conditions") or [] if c["type"] != "DisruptionTarget"]
    mark = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": times.stamp(),
    }
    status["conditions"] = [*others, mark]
    return obj
