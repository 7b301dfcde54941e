"""The namespaces of a cluster that belong to the mesh: ``discoverySelectors`` of the mesh configuration.

Services, endpoints and configuration of other namespaces are ignored; their pods are known, so that a proxy there can
still call the mesh. Source:
https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig (``discoverySelectors``). Unlike in
Istio, the control plane's namespace always belongs to the mesh; its policies and gateways would otherwise be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.api.mesh.config import LabelSelector
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig
from lateen.kube.informer import Key

Labels = Mapping[str, str]
_ALWAYS = (kinds.POD, kinds.SECRET, kinds.CONFIG_MAP)


class Discovery:
    def __init__(self, root_namespace: str) -> None:
        self._root = root_namespace
        self._selectors: tuple[LabelSelector, ...] = ()
        self._labels: dict[str, Labels] = {}
        self._early: dict[str, bool] = {}
        """Decisions about objects in namespaces that are not known yet: lists arrive in any order."""

    def takes(self, kind: Kind, namespace: str) -> bool:
        """Whether objects of a kind in a namespace belong to the mesh."""
        if not kind.namespaced or kind in _ALWAYS:
            return True
        taken = self.selects(namespace)
        if namespace not in self._labels:
            self._early[namespace] = taken
        return taken

    def selects(self, namespace: str) -> bool:
        """Whether a namespace is selected; one that is not known yet is not."""
        if not self._selectors or namespace == self._root:
            return True
        labels = self._labels.get(namespace)
        return labels is not None and any(_matches(s, labels) for s in self._selectors)

    def named(self, name: str, new: Json | None) -> bool:
        """Handle an event of a Namespace; returns whether it has joined or left the mesh."""
        before = self._early.pop(name, self.selects(name))
        if new is None:
            self._labels.pop(name, None)
        else:
            self._labels[name] = dig(new, "metadata", "labels", default={})
        return self.selects(name) != before

    def choose(self, given: tuple[LabelSelector, ...]) -> frozenset[str]:
        """Set the selectors; returns the namespaces that join or leave the mesh."""
        before = self._early | {n: self.selects(n) for n in self._labels}
        self._selectors = given
        return frozenset(n for n, selected in before.items() if self.selects(n) != selected)


Held = Iterable[tuple[Kind, Mapping[Key, Json]]]
"""The objects of each kind as they are now"""


def read_again(held: Held, namespaces: frozenset[str], take: Callable[[Kind, Key, Json], bool]) -> bool:
    """Replay the objects of namespaces that have joined or left the mesh. Returns whether some ``take`` had an
    effect."""
    found = [
        (kind, key, obj)
        for kind, objects in held
        if namespaces and kind.namespaced and kind not in _ALWAYS
        for key, obj in objects.items()
        if key[0] in namespaces
    ]
    taken = [take(*one) for one in found]  # no short circuit: all must be taken
    return any(taken)


def _matches(selector: LabelSelector, labels: Labels) -> bool:
    expressions = [{"key": e.key, "operator": e.operator, "values": e.values} for e in selector.match_expressions]
    return selectors.matches({"matchLabels": selector.match_labels, "matchExpressions": expressions}, labels)
