"""The mesh as the proxies of another cluster see it, which have their control plane here (primary-remote). Pure.

Rules and policies are those of the mesh's own cluster. What Kubernetes has (services with their addresses, pods,
namespaces) is that of the proxies' cluster, and the mesh's own cluster is one of the others to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.decoding import NETWORK
from lateen.api.networking import WorkloadEntry
from lateen.kit.derived import derived
from lateen.mesh.objects import Key, Objects

KINDS = (kinds.SERVICE, kinds.ENDPOINT_SLICE, kinds.POD, kinds.NAMESPACE, kinds.NODE)
"""What each cluster has of its own."""


def seen_from(objects: Objects, name: str) -> Objects | None:
    """None for a cluster that is not known (yet)."""
    theirs = objects.others.get(name)
    if theirs is None:
        return None
    home = objects.config.cluster
    others = {n: found for n, found in objects.others.items() if n != name}
    others[home.name] = Objects(by_kind={kind.id: objects.of(kind) for kind in KINDS})
    mine = {kind: theirs.of(kind) for kind in KINDS} | {kinds.WORKLOAD_ENTRY: _placed(objects)}
    config = replace(objects.config, cluster=replace(home, name=name, home=home.name))
    return replace(objects, config=config, others=others).with_kinds(mine)


def _placed(objects: Objects) -> Mapping[Key, o.Resource[WorkloadEntry]]:
    """WorkloadEntries that name no network are on that of the mesh's own cluster."""
    entries = objects.workload_entries
    config = objects.config
    labels = dict(objects.namespaces.get(("", config.root_namespace)) or ())
    network = labels.get(NETWORK) or dict(config.networks.of_clusters).get(config.cluster.name, "")
    if not network:
        return entries
    return {key: w if w.spec.network else _on(w, network) for key, w in entries.items()}


@derived
def _on(entry: o.Resource[WorkloadEntry], network: str) -> o.Resource[WorkloadEntry]:
    """The same object at each instant, so that nothing changes for the workloads."""
    spec = msgspec.structs.replace(entry.spec, network=network)
    return replace(entry, version=f"{entry.version}/{network}", spec=spec)
