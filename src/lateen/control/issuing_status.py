"""The reported state of Issuers and Certificates: conditions, and an event for each failure."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from lateen.api import cert_manager as cm
from lateen.api import kinds
from lateen.api import objects as o
from lateen.api.kinds import Ref
from lateen.kit import times
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError, Unreachable

log = logging.getLogger("lateen.control.issuing")

Condition = tuple[str, str, str, str]
"""(type, status, reason, message)"""


class State(NamedTuple):
    """The reported state of an object."""

    conditions: tuple[Condition, ...]
    fields: Json = {}
    """Further fields of its status"""


class Told:
    def __init__(self, client: Client, changed: Callable[[], None]) -> None:
        """``changed``: called when a state has changed."""
        self._client, self._changed = client, changed
        self.states: dict[Ref, State] = {}

    def ready(self, obj: o.Resource[Any]) -> tuple[Condition, ...]:
        state = self.states.get(obj.ref)
        return tuple(c for c in state.conditions if c[0] == "Ready") if state else ()

    def is_ready(self, obj: o.Resource[Any]) -> bool:
        return any(c[1] == "True" for c in self.ready(obj))

    async def tell(self, obj: o.Resource[Any], ready: bool, reason: str, says: str, fields: Json) -> None:
        made = State((("Ready", str(ready), reason, says),), fields)
        if self.say(obj, made) and not ready:
            log.warning("%s: %s", obj.ref, says)
            await self.event(obj, "Warning", reason, says)

    def say(self, obj: o.Resource[Any], state: State) -> bool:
        if self.states.get(obj.ref) == state:
            return False
        self.states[obj.ref] = state
        self._changed()
        return True

    async def event(self, obj: o.Resource[Any], kind: str, reason: str, says: str) -> None:
        ref, at = obj.ref, times.now()
        space = ref.namespace or "default"
        involved = {"apiVersion": f"{cm.GROUP}/v1", "kind": ref.kind, "name": ref.name, "uid": obj.uid}
        body: Json = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{ref.name}.{int(at.timestamp() * 1e6):x}", "namespace": space},
            "involvedObject": {**involved, **({"namespace": ref.namespace} if ref.namespace else {})},
            "type": kind,
            "reason": reason,
            "message": says[:1000],
            "source": {"component": "istiod"},
            "firstTimestamp": times.stamp(at),
            "lastTimestamp": times.stamp(at),
            "count": 1,
        }
        with contextlib.suppress(KubeError, Unreachable):  # events are optional: the condition has the same text
            await self._client.create(kinds.EVENT, body)
