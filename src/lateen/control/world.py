"""From watched JSON to typed objects: what istiod knows, and what it could not decode."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lateen.api import decoding, kinds, validate
from lateen.api import objects as o
from lateen.api.config import DecodeError, decode
from lateen.api.decoding import resource
from lateen.api.kinds import Kind
from lateen.control.meshconfig import MeshConfigSource
from lateen.kit import certs
from lateen.kit.jsons import Json, dig
from lateen.kube.informer import Key
from lateen.mesh.authentication import KeySource
from lateen.mesh.objects import Objects
from lateen.mesh.settings import Cluster
from lateen.wire.revision import DEFAULT, LABEL, Revision

log = logging.getLogger("lateen.control.world")


EVERYBODYS = (kinds.GATEWAY_CLASS, kinds.REFERENCE_GRANT)
"""Kinds of the mesh's own that all revisions read, whatever their labels: objects of every revision refer to them."""


class World:
    """``objects`` is replaced, never changed; ``bad`` names the objects that are left out."""

    def __init__(
        self,
        root_namespace: str,
        on_change: Callable[[], None],
        revision: Revision | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self.revision, self.cluster = revision or Revision(), cluster or Cluster()
        self.mesh_config = MeshConfigSource(root_namespace, self.revision, self.cluster)
        self.objects = Objects(self.mesh_config.settings)
        self.bad: dict[o.Ref, str] = {}
        self._root, self._on_change = root_namespace, on_change
        self._first: tuple[Any, str] = (None, "")
        """The pods that ``first_revision`` was read off, and what it is."""
        self._places: dict[str, str] = {}
        """Node -> its locality."""

    def writes(self, obj: Json) -> bool:
        """Whether this revision writes the status of an object: of its own ones; the first running revision, of those
        that name none."""
        return bool(dig(obj, "metadata", "labels", LABEL, default=self.first_revision()) == self.revision.name)

    def first_revision(self) -> str:
        """Of those that run; the default one comes first."""
        pods = self.objects.pods
        if pods is not self._first[0]:
            running = {
                p.label_map.get(LABEL, DEFAULT)
                for (namespace, _), p in pods.items()
                if namespace == self._root and p.label_map.get("app") == "istiod"
            }
            first = min(running | {self.revision.name}, key=lambda r: (r != DEFAULT, r))
            self._first = (pods, first)
        return self._first[1]

    def changed(self, kind: Kind, key: Key, old: Json | None, new: Json | None) -> None:
        """Take an informer's event."""
        before = self.objects
        match kind:
            case kinds.SERVICE:
                self._put(kind, key, decoding.service(new, self.cluster.domain) if new else None)
            case kinds.POD:
                self._put(kind, key, self._placed(decoding.pod(new)) if new and dig(new, "status", "podIP") else None)
            case kinds.NAMESPACE:
                labels = dig(new, "metadata", "labels", default={})
                self._put(kind, key, tuple(sorted(labels.items())) if new else None)
            case kinds.NODE:
                self._node(key[1], decoding.node_locality(new) if new else "")
            case kinds.ENDPOINT_SLICE:
                service = dig(new, "metadata", "labels", "kubernetes.io/service-name", default="")
                self._put(kind, key, (service, decoding.endpoints(new)) if new and service else None)
            case kinds.SECRET:
                self._credential(key, new)
            case kinds.CONFIG_MAP:
                self._config(key, new)
            case _:
                self._resource(kind, key, old, new)
        if self.objects is not before:
            self._on_change()

    def know(self, source: KeySource, keys: str | None) -> None:
        """Take the keys of an issuer: empty where they cannot be fetched, None where nobody asks for them any more."""
        known = self.objects.token_keys
        if known.get(source) == keys:
            return
        left = {s: k for s, k in known.items() if s != source}
        self.objects = replace(self.objects, token_keys=left if keys is None else {**left, source: keys})
        self._on_change()

    def _placed(self, pod: o.Pod) -> o.Pod:
        """A pod's locality is that of its node, unless its labels override it."""
        place = self._places.get(pod.node, "")
        return pod if pod.locality or not place else replace(pod, locality=place)

    def _node(self, name: str, place: str) -> None:
        before = self._places.get(name, "")
        if place == before:
            return
        self._places[name] = place
        pods = {
            key: replace(p, locality=place) if p.node == name and p.locality in ("", before) else p
            for key, p in self.objects.pods.items()
        }
        self.objects = self.objects.replaced(kinds.POD, pods)

    def _put(self, kind: Kind, key: Key, value: Any) -> None:
        if self.objects.of(kind).get(key) != value:
            self.objects = self.objects.put(kind, key, value)

    def _resource(self, kind: Kind, key: Key, old: Json | None, new: Json | None) -> None:
        """Take an object of a kind in the table that has a type; others are ignored."""
        if kind.spec is None:
            return
        ref = kind.ref(*key)
        if old and new and _alike(old, new):
            return  # only the status differs, which we have written
        self.bad.pop(ref, None)
        mine = not kind.owned or kind in EVERYBODYS or self.revision.owns(dig(new, "metadata", "labels", default={}))
        if new is None or not mine:
            self._put(kind, key, None)
            return
        try:
            spec = decode(kind.spec, new.get("spec") or {})
            # The webhook has rejected it already, unless it was not running, or was another version.
            if problems := validate.problems({"apiVersion": kind.api_version, "kind": kind.kind, **new}):
                raise DecodeError(*problems[0])
        except DecodeError as e:
            self.bad[ref] = str(e)
            log.warning("%s is left out: %s", ref, e)
            return  # the last good one stays
        self._put(kind, key, resource(ref, new, spec))

    def _credential(self, key: Key, new: Json | None) -> None:
        """Leave out an object that Envoy would reject: it would block all listeners of its port."""
        ref = kinds.SECRET.ref(*key)
        self.bad.pop(ref, None)
        try:
            found = decoding.credential(new) if new else None
            if found and found.chain:
                certs.check_pair(found.chain, found.key)
            if found and found.ca:
                certs.check_authorities(found.ca)
        except ValueError as e:
            self.bad[ref] = str(e)
            log.warning("%s is left out: %s", ref, e)
            return  # the last good one stays
        self._put(kinds.SECRET, key, found)

    def _config(self, key: Key, new: Json | None) -> None:
        if not self.mesh_config.changed(key, new):
            return
        ref = kinds.CONFIG_MAP.ref(self._root, self.revision.config_map)
        self.bad.pop(ref, None)
        if self.mesh_config.problem:
            self.bad[ref] = self.mesh_config.problem
        if self.mesh_config.settings != self.objects.config:
            self.objects = replace(self.objects, config=self.mesh_config.settings)


def _alike(old: Json, new: Json) -> bool:
    """Whether both make the same object of the mesh, which is so after each status that we have written."""
    before, after = old["metadata"], new["metadata"]
    if any(before.get(k) != after.get(k) for k in ("uid", "generation", "creationTimestamp", "labels", "annotations")):
        return False
    if decoding.is_healthy(old) != decoding.is_healthy(new):
        return False
    return bool(old.get("spec") == new.get("spec"))
