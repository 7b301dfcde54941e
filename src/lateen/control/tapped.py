"""The pods whose bodies somebody looks at (``api.annotations.TAP_BODIES``): until commands no longer renew their
annotations. What counts is when istiod saw a change, not the clocks of the machines that the commands run on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from lateen.api import objects as o
from lateen.api.annotations import TAP_BODIES, TAP_LASTS_S
from lateen.kube.informer import Key

MARK = (TAP_BODIES, "true")


class Tapped:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Key, dict[str, tuple[str, float]]] = {}
        """Pod -> annotation -> its value, and until when it holds."""
        self._marked: set[Key] = set()

    def marked(self, key: Key, pod: o.Pod) -> o.Pod:
        """The pod with the single annotation ``MARK`` if somebody looks at its bodies, else with none: so a renewal
        does not change it."""
        found = {k: v for k, v in pod.notes if k.startswith(TAP_BODIES)}
        if not found:
            self.forget(key)
            return pod
        before, now = self._seen.get(key, {}), self._clock()
        fresh = now + TAP_LASTS_S
        self._seen[key] = {k: before[k] if k in before and before[k][0] == v else (v, fresh) for k, v in found.items()}
        others = tuple((k, v) for k, v in pod.notes if k not in found)
        if not self._holds(key):
            return replace(pod, notes=others)
        self._marked.add(key)
        return replace(pod, notes=tuple(sorted((*others, MARK))))

    def forget(self, key: Key) -> None:
        self._seen.pop(key, None)
        self._marked.discard(key)

    def ended(self) -> list[Key]:
        """Marked pods that nobody looks at any longer although they still have annotations; each once."""
        found = [key for key in self._marked if not self._holds(key)]
        self._marked.difference_update(found)
        return found

    def _holds(self, key: Key) -> bool:
        return any(until > self._clock() for _, until in self._seen[key].values())


def unmarked(pod: o.Pod) -> o.Pod:
    return replace(pod, notes=tuple(n for n in pod.notes if n != MARK))
