"""The services, endpoints and pods of one cluster, as typed objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lateen.api import decoding, kinds
from lateen.api import objects as o
from lateen.api.kinds import Kind
from lateen.api.reading import is_finished
from lateen.control.tapped import Tapped, unmarked
from lateen.kit.jsons import Json, dig
from lateen.kube.informer import Key
from lateen.mesh.objects import Objects
from lateen.mesh.perspective import KINDS as KINDS
from lateen.mesh.settings import DEFAULTS, MeshConfig


class Inventory:
    def __init__(self, domain: str, config: MeshConfig = DEFAULTS) -> None:
        """``domain``: the DNS domain of its services."""
        self._domain = domain
        self._objects = Objects(config)
        self._changed: dict[Kind, dict[Key, Any]] = {}
        """All objects of the kinds that have changed since ``objects`` was last read."""
        self._places: dict[str, str] = {}
        """Node -> its locality."""
        self._tapped = Tapped()

    @property
    def objects(self) -> Objects:
        """An immutable value, replaced after each change. Many changes in a row, as after a list, cost a single
        copy."""
        if self._changed:
            self._objects = self._objects.with_kinds(self._changed)
            self._changed = {}
        return self._objects

    @objects.setter
    def objects(self, objects: Objects) -> None:
        self._objects, self._changed = objects, {}

    def of(self, kind: Kind) -> Mapping[Key, Any]:
        """The current objects of a kind; valid until the next change."""
        changed = self._changed.get(kind)
        return self._objects.of(kind) if changed is None else changed

    def put(self, kind: Kind, key: Key, value: Any) -> bool:
        """Replace an object, or remove it if ``value`` is None. Returns whether that changes anything."""
        if self.of(kind).get(key) == value:
            return False
        found = self._changed.get(kind)
        if found is None:
            found = self._changed[kind] = dict(self._objects.of(kind))
        if value is None:
            del found[key]
        else:
            found[key] = value
        return True

    def take(self, kind: Kind, key: Key, new: Json | None) -> bool:
        """Handle an event of one of ``KINDS``; returns whether it changes anything."""
        match kind:
            case kinds.SERVICE:
                return self.put(kind, key, decoding.service(new, self._domain) if new else None)
            case kinds.POD:
                # the address of a finished pod may have been reassigned, and an evicted istiod is not running
                runs = new is not None and dig(new, "status", "podIP") and not is_finished(new)
                return self.put(kind, key, self._pod(key, new if runs else None))
            case kinds.NAMESPACE:
                return self.put(kind, key, decoding.namespace(new) if new else None)
            case kinds.NODE:
                return self._node(key[1], decoding.node_locality(new) if new else "")
            case kinds.ENDPOINT_SLICE:
                service = dig(new, "metadata", "labels", "kubernetes.io/service-name", default="")
                return self.put(kind, key, (service, decoding.endpoints(new)) if new and service else None)
        raise ValueError(f"{kind.kind} is not in the inventory")

    def end_taps(self) -> bool:
        """Unmark pods whose bodies nobody looks at any longer; returns whether there were some."""
        pods = self.of(kinds.POD)
        ended = {key: unmarked(pods[key]) for key in self._tapped.ended()}
        for key, pod in ended.items():
            self.put(kinds.POD, key, pod)
        return bool(ended)

    def _pod(self, key: Key, new: Json | None) -> o.Pod | None:
        if new is None:
            self._tapped.forget(key)
            return None
        return self._tapped.marked(key, self._placed(decoding.pod(new)))

    def _placed(self, pod: o.Pod) -> o.Pod:
        """A pod's locality is that of its node, unless its labels override it."""
        place = self._places.get(pod.node, "")
        return pod if pod.locality or not place else replace(pod, locality=place)

    def _node(self, name: str, place: str) -> bool:
        before = self._places.get(name, "")
        if place == before:
            return False
        self._places[name] = place
        moved = {
            key: replace(p, locality=place)
            for key, p in self.of(kinds.POD).items()
            if p.node == name and p.locality in ("", before)
        }
        for key, pod in moved.items():
            self.put(kinds.POD, key, pod)
        return bool(moved)
