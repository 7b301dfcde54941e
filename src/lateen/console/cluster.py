"""The console's view of the cluster: watched objects, and the results of the analysis and the mesh model."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from lateen.analysis import Message, Snapshot, Source, analyze
from lateen.analysis.attached import places
from lateen.analysis.model import model
from lateen.analysis.standing import Standing
from lateen.api import kinds
from lateen.console.changes import Changes
from lateen.console.inventory import Inventory
from lateen.console.shapes import Change
from lateen.kit import tasks
from lateen.kit.jsons import Json
from lateen.kube.client import Client
from lateen.kube.informer import Informer, Key

log = logging.getLogger("lateen.console.cluster")

WATCHED = (
    kinds.NAMESPACE,
    kinds.POD,
    kinds.SERVICE,
    kinds.DEPLOYMENT,
    kinds.CONFIG_MAP,
    kinds.INGRESS,
    kinds.INGRESS_CLASS,
)
UNREAD = frozenset(
    str(k.id)
    for k in (
        kinds.SECRET,
        kinds.CRD,
        kinds.MUTATING_WEBHOOK,
        kinds.VALIDATING_WEBHOOK,
    )
)
"""Kinds that analyzers need and the console may not, or does not, read."""


class Cluster:
    def __init__(self, client: Client, root: str) -> None:
        """``root``: the namespace of the control plane."""
        self.root = root
        self._changes = Changes(time.time())
        self.informers = {k: self._informer(client, k) for k in (*WATCHED, *kinds.owned())}
        self._standing = Standing(root, UNREAD)
        self._inventory: Inventory | None = None

    def _informer(self, client: Client, kind: kinds.Kind) -> Informer:
        def changed(_kind: kinds.Kind, _key: Key, old: Json | None, new: Json | None) -> None:
            self._inventory = None
            self._changes.seen(kind, old, new, time.time())
            if new is not None:
                self._standing.put(kind.typed(new))
            elif old is not None:
                self._standing.drop(kind.typed(old))

        return Informer(client, kind, changed, optional=kind.owned)

    def start(self) -> None:
        for informer in self.informers.values():
            tasks.spawn(informer.run(), f"informer {informer.kind.plural}")

    def ready(self) -> bool:
        """Whether Kubernetes' own kinds are known; a kind of the mesh may be missing from a cluster."""
        return all(self.informers[k].synced.is_set() for k in WATCHED)

    def objects(self, kind: kinds.Kind) -> list[Json]:
        return list(self.informers[kind].objects.values())

    def findings(self) -> dict[str, list[Message]]:
        """Object -> its current findings, the most severe first."""
        return self._standing.findings()

    def inventory(self) -> Inventory:
        """The current inventory."""
        if self._inventory is None:
            try:
                found = self.findings()
            except Exception:  # a bug in one analyzer must not hide what is running; the overview shows it
                log.exception("the analysis failed")
                found = {}
            snapshot = self._standing.snapshot
            objects = {k: i.objects.values() for k, i in self.informers.items()}
            self._inventory = Inventory(
                objects,
                model(snapshot, policies=True),
                found,
                snapshot.domain,
                lambda obj: places(snapshot, Source(obj)),
            )
        return self._inventory

    def changes(self) -> list[Change]:
        """When the mesh's configuration changed, the oldest first."""
        owned = frozenset(kinds.owned())
        return self._changes.all((k, o) for k, i in self.informers.items() if k in owned for o in i.objects.values())

    def sources(self) -> list[Source]:
        return [Source(k.typed(o)) for k, i in self.informers.items() for o in i.objects.values()]


def what_if(live: Iterable[Source], written: Iterable[Source], root: str) -> list[Message]:
    """The findings about ``written`` if these objects were applied. Slow with many objects."""
    written = list(written)
    found = analyze(Snapshot([*live, *written], root=root, unread=UNREAD))
    return [m for m in found if m.source in written]
