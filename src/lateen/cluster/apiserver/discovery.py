"""Discovery: the resources of each group and version, in the older form and in the aggregated one."""

from __future__ import annotations

from lateen.cluster.apiserver.registry import Registry
from lateen.cluster.apiserver.resources import PARTS, Resource
from lateen.kit.jsons import Json


def listed(resources: list[Resource], version: str) -> list[Json]:
    """APIResourceList.resources of one group-version."""
    out: list[Json] = []
    for r in resources:
        if version not in r.served:
            continue
        base: Json = {
            "name": r.plural,
            "singularName": r.singular or r.kind.lower(),
            "namespaced": r.namespaced,
            "kind": r.kind,
            "verbs": list(r.verbs),
        }
        if r.short:
            base["shortNames"] = list(r.short)
        if r.categories:
            base["categories"] = list(r.categories)
        out.append(base)
        plain = {"singularName": "", "namespaced": r.namespaced}
        if r.status:
            out.append({"name": f"{r.plural}/status", **plain, "kind": r.kind, "verbs": ["get", "patch", "update"]})
        if r.scale:
            out.append(
                {
                    "name": f"{r.plural}/scale",
                    **plain,
                    "group": "autoscaling",
                    "version": "v1",
                    "kind": "Scale",
                    "verbs": ["get", "patch", "update"],
                }
            )
        for sub, kind in r.subresources:
            entry = {"name": f"{r.plural}/{sub}", **plain, "kind": kind, "verbs": _sub_verbs(sub)}
            if kind in _ELSEWHERE:
                entry |= {"group": _ELSEWHERE[kind], "version": "v1"}
            out.append(entry)
    return out


_ELSEWHERE = {"Eviction": "policy", "TokenRequest": "authentication.k8s.io"}
"""The groups of kinds that subresources of other groups accept. ``kubectl drain`` deletes pods, whatever their budgets
say, unless it finds the group of evictions here."""


_VERBS = {"log": ["get"], "eviction": ["create"], "token": ["create"], "binding": ["create"]}


def _sub_verbs(subresource: str) -> list[str]:
    if subresource == "proxy":
        return ["create", "delete", "get", "patch", "update"]
    if subresource in PARTS:
        return ["get", "patch", "update"]
    return _VERBS.get(subresource, ["create", "get"])


def aggregated(registry: Registry, core: bool) -> Json:
    """APIGroupDiscoveryList (apidiscovery.k8s.io/v2)."""
    items = []
    for group, versions in registry.groups().items():
        if (group == "") != core:
            continue
        resources = [r for r in registry.all() if r.group == group]
        items.append(
            {
                "metadata": {"name": group} if group else {},
                "versions": [
                    {
                        "version": v,
                        "freshness": "Current",
                        "resources": [_entry(r, v) for r in resources if v in r.served],
                    }
                    for v in versions
                ],
            }
        )
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _entry(r: Resource, version: str) -> Json:
    subs: list[Json] = []
    kind = {"group": r.group, "version": version, "kind": r.kind}
    if r.status:
        subs.append({"subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"]})
    if r.scale:
        subs.append(
            {
                "subresource": "scale",
                "verbs": ["get", "patch", "update"],
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
            }
        )
    subs += [
        {
            "subresource": s,
            "verbs": _sub_verbs(s),
            "responseKind": {"group": _ELSEWHERE[k], "version": "v1", "kind": k}
            if k in _ELSEWHERE
            else {"group": r.group, "version": version, "kind": k},
        }
        for s, k in r.subresources
    ]
    out: Json = {
        "resource": r.plural,
        "responseKind": kind,
        "scope": "Namespaced" if r.namespaced else "Cluster",
        "singularResource": r.singular or r.kind.lower(),
        "verbs": list(r.verbs),
    }
    if r.short:
        out["shortNames"] = list(r.short)
    if r.categories:
        out["categories"] = list(r.categories)
    return out | {"subresources": subs} if subs else out
