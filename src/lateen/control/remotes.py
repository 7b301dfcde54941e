"""Remote clusters without their own control plane that this istiod serves (primary-remote): publishes the roots to
their namespaces, and the CA bundle to their webhooks.

Such a cluster opts in: the control plane's namespace there has the annotation
``topology.istio.io/controlPlaneClusters`` with the name of istiod's cluster. Source:
https://istio.io/latest/docs/setup/install/multicluster/primary-remote/.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable

from lateen.api import kinds
from lateen.ca.authority import ROOT_CONFIG_MAP
from lateen.control.clusters import Clusters, Other
from lateen.control.telling import Teller
from lateen.kit import tasks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.control.remotes")

CONTROLLED_BY = "topology.istio.io/controlPlaneClusters"


class Remotes:
    def __init__(
        self,
        clusters: Clusters,
        own: str,
        namespace: str,
        teller: Callable[[Client, str], Teller],
        wake: Callable[[], None],
    ) -> None:
        """``own``: the name of istiod's cluster; ``namespace``: that of the control plane; ``wake``: called when
        the roots there may be outdated."""
        self._clusters, self._own, self._namespace = clusters, own, namespace
        self._teller, self._wake = teller, wake
        self._watched = weakref.WeakSet[Other]()
        self._tellers: dict[str, tuple[Client, Teller]] = {}

    def tellers(self) -> list[tuple[Teller, list[Json]]]:
        """The tellers of served clusters, with their namespaces."""
        found = [r for _, o in sorted(self._clusters.others.items()) if (r := o.read) and self._controls(r)]
        return [(self._of(other), list(_namespaces(other).values())) for other in found]

    def unread(self) -> list[str]:
        """Clusters that have not been read, so that it is unknown whether they are served: they may only trust a former
        root."""
        if not self._clusters.serves:
            return []
        found = [other for _, other in sorted(self._clusters.others.items()) if other.read is None]
        return [f"cluster {other.name}: it has not been read yet" for other in found]

    def joined(self, other: Other) -> None:
        """A cluster has been read."""
        if self._controls(other):
            self._watch(other)
            self._wake()
        elif self._clusters.serves:
            log.info(
                "the cluster %s has a control plane of its own: its namespace %s has no annotation %s: %s",
                other.name, self._namespace, CONTROLLED_BY, self._own,
            )  # fmt: skip

    def happened(self, cluster: str, kind: kinds.Kind, key: Key, new: Json | None) -> None:
        """Handle an event of another cluster's objects."""
        other = self._clusters.others.get(cluster)
        if kind is not kinds.NAMESPACE or new is None or other is None or not self._controls(other):
            return
        if key[1] == self._namespace:
            self.joined(other)
        else:
            tasks.spawn(self._of(other).namespace(new), "root certificates")

    def _controls(self, other: Other) -> bool:
        if not self._clusters.serves or not other.synced:
            return False
        space = _namespaces(other).get(("", self._namespace), {})
        named = str(dig(space, "metadata", "annotations", default={}).get(CONTROLLED_BY, ""))
        return not {self._own, "*"}.isdisjoint(n.strip() for n in named.split(","))

    def _of(self, other: Other) -> Teller:
        client = self._clusters.client(other.name)
        known = self._tellers.get(other.name)
        if known is None or known[0] is not client:
            known = self._tellers[other.name] = (client, self._teller(client, other.name))
        return known[1]

    def _watch(self, other: Other) -> None:
        """Watch for changes of the published roots, as long as the cluster is known."""
        if other in self._watched:
            return
        self._watched.add(other)
        teller, client = self._of(other), self._clusters.client(other.name)

        def changed(kind: kinds.Kind, key: Key, _: Json | None, new: Json | None) -> None:
            if teller.altered(key, new) if kind is kinds.CONFIG_MAP else teller.unannounced(new):
                self._wake()

        watching = [
            Informer(client, kinds.CONFIG_MAP, changed, fields=f"metadata.name={ROOT_CONFIG_MAP}"),
            Informer(client, kinds.MUTATING_WEBHOOK, changed, labels="app=sidecar-injector"),
        ]
        other.running += [tasks.spawn(i.run(), f"informer {i.kind.plural} of {other.name}") for i in watching]


def _namespaces(other: Other) -> dict[Key, Json]:
    return next(i.objects for i in other.informers if i.kind is kinds.NAMESPACE)
