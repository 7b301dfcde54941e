"""Rules about fields that are written, whatever their content.

Istio's definitions ask with ``has(…)`` whether a field is there, so that an empty list excludes other fields, too. A
typed object does not tell an empty list from none, so these rules look at the document.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lateen.api import kinds
from lateen.api import networking as n
from lateen.api.networking.envoy_filter import EnvoyConfigObjectMatch
from lateen.api.security import Source
from lateen.api.validate.findings import Finding, Findings, no
from lateen.kit.jsons import Json


class Exclusive(NamedTuple):
    """A field of each group may be written, and none of the others."""

    groups: tuple[tuple[str, ...], ...]
    says: str

    def broken(self, value: Json) -> list[str]:
        """The fields that exclude each other; none if the rule is kept."""
        given = [[f for f in group if value.get(f) is not None] for group in self.groups]
        found = [fields for fields in given if fields]
        return [f for fields in found for f in fields] if len(found) > 1 else []


def _one_of(says: str, *fields: str) -> Exclusive:
    return Exclusive(tuple((f,) for f in fields), says)


_ONE_TARGET = _one_of("only one of targetRefs or selector can be set", "selector", "targetRef", "targetRefs")
