"""All resources that are served: Kubernetes' own, and those of CustomResourceDefinitions."""

from __future__ import annotations

import re

from lateen.api.kinds import GATEWAY_API
from lateen.cluster.apiserver.built_in import BUILT_IN
from lateen.cluster.apiserver.resources import Resource


class Registry:
    """Built-in resources and those of CRDs, by group, version and plural."""

    def __init__(self) -> None:
        self._by_collection: dict[str, Resource] = {r.qualified: r for r in BUILT_IN}
        self.generation = 0

    def add(self, resource: Resource) -> None:
        self._by_collection[resource.qualified] = resource
        self.generation += 1

    def remove(self, collection: str) -> None:
        if self._by_collection.pop(collection, None):
            self.generation += 1

    def all(self) -> list[Resource]:
        return list(self._by_collection.values())

    def by_collection(self, collection: str) -> Resource | None:
        return self._by_collection.get(collection)

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource of a kind, as objects name it."""
        return next(
            (
                r
                for r in self._by_collection.values()
                for v in r.served
                if (r.api_version(v), r.kind) == (api_version, kind)
            ),
            None,
        )

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        resource = self._by_collection.get(f"{plural}.{group}" if group else plural)
        return resource if resource and version in resource.served else None

    def groups(self) -> dict[str, list[str]]:
        """Group -> versions, the most stable and latest version first, as Kubernetes orders them. kubectl takes a name
        that several groups have (``gateway``) as that of the first: Istio's, as it is written in Istio's documents."""
        out: dict[str, set[str]] = {}
        for r in self._by_collection.values():
            out.setdefault(r.group, set()).update(r.served)
        return {
            g: sorted(v, key=_rank) for g, v in sorted(out.items(), key=lambda item: (item[0] == GATEWAY_API, item[0]))
        }


def _rank(version: str) -> tuple[int, int, int, str]:
    found = re.fullmatch(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?", version)
    if found is None:
        return 3, 0, 0, version
    stability = {None: 0, "beta": 1, "alpha": 2}[found[2]]
    return stability, -int(found[1]), -int(found[3] or 0), version
