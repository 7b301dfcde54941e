"""Converts watched JSON to typed objects: istiod's knowledge of the cluster, and the objects that it rejects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from lateen.api import decoding, kinds, validate
from lateen.api import objects as o
from lateen.api.crds import Bundle
from lateen.api.decoding import resource
from lateen.api.kinds import Kind
from lateen.api.validate import Finding
from lateen.ca.signer import KEPT_BACK
from lateen.control.accepted import Accepted
from lateen.control.clusters import Clusters
from lateen.control.discovery import Discovery, Held, read_again
from lateen.control.inventory import KINDS, Inventory
from lateen.control.meshconfig import MeshConfigSource
from lateen.kit import credentials, tasks
from lateen.kit.jsons import Json, dig
from lateen.kit.pair import Pair
from lateen.kube.informer import Key
from lateen.mesh.authentication import KeySource
from lateen.mesh.objects import Objects
from lateen.mesh.plugins import Module, ModuleSource
from lateen.mesh.settings import Cluster
from lateen.wire.revision import DEFAULT, LABEL, Revision

log = logging.getLogger("lateen.control.world")
S = TypeVar("S")
V = TypeVar("V")


class World:
    """What istiod knows of its cluster and, in ``clusters``, of others."""

    def __init__(
        self,
        root_namespace: str,
        on_change: Callable[[], None],
        revision: Revision | None = None,
        cluster: Cluster | None = None,
        insecure: frozenset[str] = frozenset(),
        serves: bool = False,
    ) -> None:
        """``insecure``: see ``kubeconfig.from_text``; of other clusters. ``serves``: see ``Clusters``."""
        self.revision, self.cluster = revision or Revision(), cluster or Cluster()
        self.accepted = Accepted(root_namespace, self.revision)
        self.mesh_config = MeshConfigSource(root_namespace, self.revision, self.cluster, self.accepted)
        self._own = Inventory(self.cluster.domain, self.mesh_config.settings)
        self.discovery = Discovery(root_namespace)
        self.held: Callable[[], Held] = tuple
        """Called when namespaces join or leave the mesh; returns all watched objects."""
        self.moved: list[Callable[[frozenset[str]], None]] = []
        """Called with namespaces that have joined or left the mesh."""
        self.bad: dict[o.Ref, str] = {}
        """Objects that are left out of the mesh, or kept in their last valid version, and why."""
        self.validated: dict[o.Ref, list[Finding]] = {}
        """The validation findings of each object of the mesh's own kinds that this revision reads."""
        self._root, self._on_change = root_namespace, on_change
        self.seen: Callable[[Kind, str, bool], None] = lambda *_: None
        """Called with each event (add, update, delete), and whether it changed the mesh."""
        self.left_out: Callable[[o.Ref], None] = lambda _: None
        """Called with each invalid object."""
        self._revisions: tuple[str, ...] = ()
        """The cached result of ``revisions``; empty if pods have changed since."""
        self._kept_back = {(root_namespace, name) for name in KEPT_BACK}
        self.foreign: frozenset[Kind] = frozenset()
        """Kinds of the table that another controller in the cluster serves; their objects are not ours."""
        self.clusters = Clusters(root_namespace, self.cluster, insecure, on_change, serves)

    @property
    def objects(self) -> Objects:
        """An immutable value, replaced after each change. It includes the other clusters that have been read."""
        found, others = self._own.objects, self.clusters.objects()
        if others.keys() != found.others.keys() or any(found.others[n] is not theirs for n, theirs in others.items()):
            found = self._own.objects = replace(found, others=others)
        return found

    @objects.setter
    def objects(self, objects: Objects) -> None:
        self._own.objects, self._revisions = objects, ()

    def writes(self, obj: Json) -> bool:
        """Whether this revision writes the status of an object: objects of its own revision, and those without a
        revision if it is the first running one; never in namespaces outside of the mesh."""
        if not self.discovery.selects(dig(obj, "metadata", "namespace", default=self._root)):
            return False
        return bool(dig(obj, "metadata", "labels", LABEL, default=self.first_revision()) == self.revision.name)

    def first_revision(self) -> str:
        """The first running revision: the default one if it is running, otherwise the first by name."""
        return self.revisions()[0]

    def revisions(self) -> tuple[str, ...]:
        """The running revisions, the first one first."""
        if not self._revisions:
            running = {
                p.label_map.get(LABEL, DEFAULT)
                for (namespace, _), p in self._own.of(kinds.POD).items()
                if namespace == self._root and p.label_map.get("app") == "istiod"
            }
            self._revisions = tuple(sorted(running | {self.revision.name}, key=lambda r: (r != DEFAULT, r)))
        return self._revisions

    async def end_taps(self, pause_s: float = 5.0) -> None:
        """See ``Inventory``; after a pause, to be repeated."""
        await asyncio.sleep(pause_s)
        for inventory in (self._own, *(c.inventory for c in self.clusters.others.values())):
            if inventory.end_taps():
                self._on_change()

    def changed(self, kind: Kind, key: Key, old: Json | None, new: Json | None) -> None:
        """Handle an informer's event."""
        changed = self._handle(kind, key, old, new)
        self.seen(kind, "add" if old is None else "delete" if new is None else "update", changed)
        if changed:
            self._on_change()

    def _handle(self, kind: Kind, key: Key, old: Json | None, new: Json | None) -> bool:
        """Returns whether the mesh has changed."""
        if not self.discovery.takes(kind, key[0]):
            new = None
        match kind:
            case kinds.NAMESPACE:
                moved = {key[1]} if self.discovery.named(key[1], new) else set()
                return self._own.take(kind, key, new) | self._read_again(frozenset(moved))
            case _ if kind in KINDS:
                if kind is kinds.POD:
                    self._revisions = ()
                return self._own.take(kind, key, new)
            case kinds.SECRET:
                return self._credential(key, new)
            case kinds.CONFIG_MAP:
                taken = self._own.put(kind, key, _authorities(new) if new else None)
                return self._config(key, new) or taken
            case _:
                return self._resource(kind, key, old, new)

    def _read_again(self, namespaces: frozenset[str]) -> bool:
        changed = read_again(self.held(), namespaces, lambda kind, key, obj: self._handle(kind, key, None, obj))
        if namespaces:
            tasks.tell(self.moved, namespaces)
        return changed

    def know(self, source: KeySource, keys: str | None) -> None:
        """Set the keys of an issuer: empty if they cannot be fetched, None if they are no longer used."""
        known = self.objects.token_keys
        if known.get(source) != keys:
            self.objects = replace(self.objects, token_keys=_learned(known, source, keys))
            self._on_change()

    def know_module(self, source: ModuleSource, module: Module | None) -> None:
        """Set a Wasm module: ``NO_MODULE`` if it cannot be fetched, None if it is no longer used."""
        known = self.objects.modules
        if known.get(source) != module:
            self.objects = replace(self.objects, modules=_learned(known, source, module))
            self._on_change()

    def define(self, kind: Kind, found: Bundle | None) -> None:
        """Set the release of a kind's CRD in the cluster."""
        if self._own.put(kinds.CRD, ("", f"{kind.plural}.{kind.group}"), found):
            self._on_change()

    def _resource(self, kind: Kind, key: Key, old: Json | None, new: Json | None) -> bool:
        """Handle an object of a kind that has a type; others are ignored."""
        if kind.spec is None:
            return False
        ref = kind.ref(*key)
        if old and new and _alike(old, new):
            return False  # only the status differs, which we wrote
        self.bad.pop(ref, None)
        self.validated.pop(ref, None)
        mine = (
            not kind.owned or kind in kinds.EVERYBODYS or self.revision.owns(dig(new, "metadata", "labels", default={}))
        )
        if new is None or not mine:
            return self._own.put(kind, key, None)
        # the webhook normally rejects such objects, unless it was not running or had another version
        found = validate.examine(kind, new.get("spec") or {}, new["metadata"])
        if kind.owned:
            self.validated[ref] = found.findings
        says = found.undecodable or next((f"{f.path}: {f.says}" for f in found.findings if not f.warning), "")
        if says:
            self.bad[ref] = says
            self.left_out(ref)
            log.warning("%s is left out: %s", ref, says)
            return False  # the last valid one stays
        return self._own.put(kind, key, resource(ref, new, found.spec))

    def _credential(self, key: Key, new: Json | None) -> bool:
        """Leave out a Secret that Envoy would reject, which would block all listeners of its port, and those of the
        mesh's own CA, which no Gateway may serve."""
        if key in self._kept_back:
            return False
        ref = kinds.SECRET.ref(*key)
        self.bad.pop(ref, None)
        try:
            found = decoding.credential(new) if new else None
            found = _usable(found) if found else None
        except ValueError as e:
            self.bad[ref] = str(e)
            self.left_out(ref)
            log.warning("%s is left out: %s", ref, e)
            return False  # the last valid one stays
        return self._own.put(kinds.SECRET, key, found)

    def _config(self, key: Key, new: Json | None) -> bool:
        if not self.mesh_config.changed(key, new):
            return False
        ref = kinds.CONFIG_MAP.ref(self._root, self.revision.config_map)
        self.bad.pop(ref, None)
        if self.mesh_config.problem:
            self.bad[ref] = self.mesh_config.problem
        if self.mesh_config.settings == self._own.objects.config:
            return False
        self.objects = replace(self.objects, config=self.mesh_config.settings)
        chosen = self.mesh_config.settings.discovery
        self._read_again(self.discovery.choose(chosen))
        self.clusters.choose(chosen)
        return True


def _usable(found: o.Credential) -> o.Credential:
    """Raises ValueError."""
    pair = credentials.served(found.chain, found.key) if found.chain else Pair("", "")
    ca = credentials.authorities(found.ca) if found.ca else ""
    return replace(found, chain=pair.certificate, key=pair.key, ca=ca, crl=credentials.lists(found.crl))


def _authorities(config_map: Json) -> str | None:
    """The CA certificates in a ConfigMap, if any: objects of the Gateway API may refer to them."""
    text = str(dig(config_map, "data", "ca.crt", default=""))
    try:
        return credentials.authorities(text)
    except ValueError:
        return None


def _alike(old: Json, new: Json) -> bool:
    """Whether both are equal for the mesh, as after a status write."""
    before, after = old["metadata"], new["metadata"]
    if any(before.get(k) != after.get(k) for k in ("uid", "generation", "creationTimestamp", "labels", "annotations")):
        return False
    if decoding.is_healthy(old) != decoding.is_healthy(new):
        return False
    return bool(old.get("spec") == new.get("spec"))


def _learned(known: Mapping[S, V], source: S, value: V | None) -> dict[S, V]:
    left = {s: v for s, v in known.items() if s != source}
    return left if value is None else {**left, source: value}
