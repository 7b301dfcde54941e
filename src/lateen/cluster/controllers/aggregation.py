"""ClusterRoles with an ``aggregationRule``: their rules are those of the ClusterRoles that it selects."""

from __future__ import annotations

from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.loop import Key, Loop
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client


class AggregatedRoles:
    name = "clusterrole-aggregation"
    watches = (kinds.CLUSTER_ROLE,)

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client, self._loop = client, loop

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:  # noqa: ARG002
        """Every role that aggregates: each change of a role may be one that concerns it."""
        for role in self._loop.objects(kinds.CLUSTER_ROLE):
            if role.get("aggregationRule"):
                yield (role["metadata"]["name"],)

    async def reconcile(self, key: Key) -> None:
        (name,) = key
        role = self._loop.get(kinds.CLUSTER_ROLE, "", name)
        if role is None or not role.get("aggregationRule"):
            return
        rules: list[Json] = []
        for selector in dig(role, "aggregationRule", "clusterRoleSelectors", default=[]):
            for other in self._selected(name, selector):
                rules += [r for r in other.get("rules") or [] if r not in rules]
        if rules != (role.get("rules") or []):
            await self._client.patch(kinds.CLUSTER_ROLE, "", name, {"rules": rules})

    def _selected(self, name: str, selector: Json) -> list[Json]:
        found = sorted(self._loop.objects(kinds.CLUSTER_ROLE), key=lambda o: str(o["metadata"]["name"]))
        return [
            o
            for o in found
            if o["metadata"]["name"] != name and selectors.matches(selector, o["metadata"].get("labels") or {})
        ]
