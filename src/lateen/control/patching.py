"""EnvoyFilters on connected proxies: the effect of each patch, and withdrawing patches that an Envoy rejects.

If Envoy rejects a resource that several patches have changed, each of them is left out in turn until Envoy accepts the
resource; if no single patch is to blame, all are left out. Only the affected proxy loses them.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lateen.ads.conversation import Rejection
from lateen.ads.peers import Connection
from lateen.mesh.view import Patch, View
from lateen.wire.resource import Sets
from lateen.xds.patches.apply import Patched, apply
from lateen.xds.patches.operations import parsed

log = logging.getLogger("lateen.control.patching")


@dataclass
class _Trial:
    """The search for the patch that breaks one resource."""

    candidates: tuple[Patch, ...]
    says: str
    tried: int = 0

    def left_out(self) -> tuple[Patch, ...]:
        if self.tried < len(self.candidates):
            return (self.candidates[-1 - self.tried],)  # the last patch is the most likely culprit
        return self.candidates


@dataclass
class _State:
    patches: tuple[Patch, ...] = ()
    patched: Patched = field(default_factory=lambda: Patched({}))
    trials: dict[tuple[str, str], _Trial] = field(default_factory=dict)

    def withdrawn(self) -> dict[Patch, str]:
        return {p: t.says for t in self.trials.values() for p in t.left_out()}


class Patching:
    def __init__(self) -> None:
        self._states: weakref.WeakKeyDictionary[Connection, _State] = weakref.WeakKeyDictionary()

    def sets(self, connection: Connection, view: View, sets: Mapping[str, Sets]) -> Mapping[str, Sets]:
        """The resources with the proxy's patches, except those that it has rejected or that are invalid."""
        if not view.patches:
            if self._states:
                self._states.pop(connection, None)
            return sets
        state = self._states.setdefault(connection, _State())
        if state.patches != view.patches:
            state.patches = view.patches
            known = set(view.patches)
            state.trials = {k: t for k, t in state.trials.items() if known.issuperset(t.candidates)}
        out = state.withdrawn()
        chosen = tuple(p for p in view.patches if p not in out and not isinstance(parsed(p), str))
        state.patched = apply(sets, chosen, view.gateway is not None)
        return state.patched.sets

    def refused(self, connection: Connection, rejection: Rejection) -> bool:
        """Handle a rejection; returns whether another patch is left out, so that there is something new to offer."""
        state = self._states.get(connection)
        if state is None:
            return False
        before = set(state.withdrawn())
        named = [n for n in rejection.resources if n in rejection.message]
        # if Envoy names none of several, the culprit is unknown: they are offered again in halves
        for name in named or (rejection.resources if len(rejection.resources) == 1 else ()):
            key = (rejection.type_url, name)
            if key in state.trials:
                state.trials[key].tried += 1
            elif touching := state.patched.touched.get(key):
                state.trials[key] = _Trial(touching, rejection.message.strip())
        after = set(state.withdrawn())
        for p in after - before:
            log.warning("%s is withdrawn from %s: %s", _label(p), connection.node.pod, rejection.message.strip())
        return after != before

    def report(self, connections: Iterable[Connection]) -> dict[str, list[str]]:
        """EnvoyFilter -> a sentence for each of its patches that affects some connected proxy. It does not contain
        their number, which would change with every proxy."""
        proxies: set[Patch] = set()
        resources: dict[Patch, set[str]] = {}
        waiting: dict[Patch, int] = {}
        bad: dict[Patch, str] = {}
        for c in connections:
            state = self._states.get(c)
            if state is None:
                continue
            proxies.update(state.patches)
            for (type_url, name), found in state.patched.touched.items():
                late = name in c.session.missing(type_url)[0]
                for p in found:
                    resources.setdefault(p, set()).add(name)
                    waiting[p] = waiting.get(p, 0) + late
            for p, says in state.withdrawn().items():
                bad[p] = f"rejected by {c.node.pod}.{c.node.namespace}, which keeps running without it: {says}"
        out: dict[str, list[str]] = {}
        for p in sorted(proxies, key=lambda p: (str(p.ref), p.index)):
            wrong = parsed(p)
            if isinstance(wrong, str):
                says = f"rejected: {wrong}"
            elif p in bad:
                says = bad[p]
            elif p.spec.apply_to == "BOOTSTRAP":
                says = "merged into the bootstrap of each proxy when it starts"
            elif p not in resources:
                says = "matches nothing on the connected proxies"
            elif waiting.get(p):
                says = f"matched {len(resources[p])} resources, not yet applied everywhere"
            else:
                says = f"applied to {len(resources[p])} resources on the connected proxies"
            out.setdefault(str(p.ref), []).append(f"{_label(p)}: {says}")
        return out


def _label(p: Patch) -> str:
    return f"configPatches[{p.index}] ({p.spec.apply_to})"
