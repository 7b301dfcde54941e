"""apiregistration.k8s.io: which server serves each group and version (always this one). None of it is stored.

kube-aggregator lets other servers add groups by APIServices of their own; here they can be read, not written. The
priorities are kube-apiserver's (pkg/controlplane/apiserver/aggregator.go).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from lateen.cluster.apiserver import errors, selection
from lateen.cluster.apiserver.call import Call, Listing
from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import API_SERVICES
from lateen.cluster.store.objects import Store
from lateen.kit.jsons import Json

_PRIORITIES = {
    "": 18000,
    "apps": 17800,
    "events.k8s.io": 17750,
    "authentication.k8s.io": 17700,
    "authorization.k8s.io": 17600,
    "autoscaling": 17500,
    "batch": 17400,
    "certificates.k8s.io": 17300,
    "networking.k8s.io": 17200,
    "policy": 17100,
    "rbac.authorization.k8s.io": 17000,
    "storage.k8s.io": 16800,
    "apiextensions.k8s.io": 16700,
    "admissionregistration.k8s.io": 16700,
    "scheduling.k8s.io": 16600,
    "coordination.k8s.io": 16500,
    "discovery.k8s.io": 16200,
    "metrics.k8s.io": 100,
}
_OF_DEFINITIONS = 1000
_SAID = "kube-aggregator.kubernetes.io/automanaged"


def answer(store: Store, registry: Registry, c: Call, verb: str) -> Json | Listing:
    """get and list. Raises ApiError."""
    wanted = selection.test(c)
    found = [obj for obj in _all(store, registry) if wanted(obj)]
    if verb == "list":
        return Listing(found, str(store.rv))
    if not found:
        raise errors.not_found(c.resource.plural, c.name, API_SERVICES)
    return found[0]


def _all(store: Store, registry: Registry) -> Iterator[Json]:
    system = store.get("namespaces", "", "kube-system")
    began = str(system.obj["metadata"]["creationTimestamp"]) if system else "1970-01-01T00:00:00Z"
    for group, versions in registry.groups().items():
        custom = group not in _PRIORITIES
        for place, version in enumerate(versions):
            name = f"{version}.{group}"
            meta = {
                "name": name,
                "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{API_SERVICES}")),
                "creationTimestamp": began,
                "labels": {_SAID: "true" if custom else "onstart"},
            }
            spec: Json = {
                "groupPriorityMinimum": _PRIORITIES.get(group, _OF_DEFINITIONS),
                "versionPriority": 100 - place,
            }
            spec |= {"version": version} | ({"group": group} if group else {})
            said = {"type": "Available", "status": "True", "reason": "Local", "lastTransitionTime": began}
            said["message"] = "Local APIServices are always available"
            yield {
                "kind": "APIService",
                "apiVersion": f"{API_SERVICES}/v1",
                "metadata": meta,
                "spec": spec,
                "status": {"conditions": [said]},
            }
