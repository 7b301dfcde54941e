"""Objects that apply to workloads: by selector, by target, or to a whole namespace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from lateen.api.networking import PolicyTargetReference
from lateen.kit.tables import Table

C = TypeVar("C")
Key = tuple[str, str]
Chosen = Callable[[Any], Mapping[str, str]]
"""The labels in an object's selector; empty for all workloads of its namespace"""


def has_labels(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(k) == v for k, v in wanted.items())


def targets_of(p: Any) -> tuple[PolicyTargetReference, ...]:
    """The targets of a policy; ``targetRef`` is the older field. Some kinds have neither."""
    one = getattr(p.spec, "target_ref", None)
    return tuple(getattr(p.spec, "target_refs", ())) or ((one,) if one else ())


def selector_labels(p: Any) -> Mapping[str, str]:
    found: Mapping[str, str] = p.spec.selector.match_labels if p.spec.selector else {}
    return found


def workload_labels(s: Any) -> Mapping[str, str]:
    found: Mapping[str, str] = s.spec.workload_selector.labels if s.spec.workload_selector else {}
    return found


class Selecting(Generic[C]):
    """The objects of one kind, by namespace and one of the labels in their selectors. A workload reads only those
    indexed by its own labels, so that its cost does not grow with the policies of its neighbours."""

    def __init__(self, table: Table[Key, C], chosen: Chosen = selector_labels) -> None:
        self._table, self.chosen = table, chosen
        self._found = table.index(lambda key, p: ((key[0], self._bucket(p)),))

    def _bucket(self, p: C) -> tuple[str, str] | None:
        return None if targets_of(p) else min(self.chosen(p).items(), default=None)

    def general(self, namespace: str) -> tuple[C, ...]:
        """The objects of a namespace without a selector, including those with targets."""
        return self._found.get((namespace, None)) if self._table else ()

    def near(self, namespace: str, labels: Mapping[str, str]) -> list[C]:
        """The objects of a namespace that may apply to a workload with these labels: the general ones, and those whose
        selector matches."""
        if not self._table:
            return []
        own = (p for label in labels.items() for p in self._found.get((namespace, label)))
        return [*self.general(namespace), *(p for p in own if has_labels(self.chosen(p), labels))]
