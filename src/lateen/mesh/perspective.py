"""The mesh from the perspective of proxies in a remote cluster whose control plane is here (primary-remote). Pure.

Rules and policies are those of the mesh's own cluster. Kubernetes' objects (services with their addresses, pods,
namespaces) are those of the proxies' cluster, and the mesh's own cluster is one of the others to them.
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
"""The kinds that each cluster has its own objects of."""


def seen_from(objects: Objects, name: str) -> Objects | None:
    """The objects as seen from a cluster; None if it is not known (yet)."""
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
    """WorkloadEntries; those without a network get that of the mesh's own cluster."""
    entries = objects.workload_entries
    config = objects.config
    root = objects.namespaces.get(("", config.root_namespace))
    network = dict(root.labels if root else ()).get(NETWORK) or dict(config.networks.of_clusters).get(
        config.cluster.name, ""
    )
    if not network:
        return entries
    return {key: w if w.spec.network else _on(w, network) for key, w in entries.items()}


@derived
def _on(entry: o.Resource[WorkloadEntry], network: str) -> o.Resource[WorkloadEntry]:
    """Cached, so that it is the same object at each instant."""
    spec = msgspec.structs.replace(entry.spec, network=network)
    return replace(entry, version=f"{entry.version}/{network}", spec=spec)
