"""How long a proxy goes on once its pod ends: a fixed time, or until nobody is connected any more.

Source: ``EXIT_ON_ZERO_ACTIVE_CONNECTIONS`` and ``MINIMUM_DRAIN_DURATION`` of Istio's agent (``pkg/envoy/agent.go``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lateen.kit import duration, http
from lateen.kit.booleans import boolean
from lateen.wire import ports

EMPTY, MINIMUM = "EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "MINIMUM_DRAIN_DURATION"
MINIMUM_S = 5.0
PAUSE_S = 1.0
"""The time between two looks at the number of connections."""
_COUNTED = "/stats?usedonly&filter=%5Elistener%5C..*%5C.downstream_cx_active%24"
_OTHERS = (f"0.0.0.0_{ports.HEALTH}", f"0.0.0.0_{ports.ENVOY_METRICS}", "admin", "admin.main_thread")
"""Listeners whose connections are not for the workload."""


class Ending(NamedTuple):
    when_empty: bool = False
    """Whether it ends when there is no connection left, and not after a fixed time."""
    least_s: float = MINIMUM_S
    """How long it goes on at least, in seconds, in the former case."""


def ending(env: Mapping[str, str]) -> Ending:
    """Raises ValueError, with the variable's name."""
    name = EMPTY
    try:
        when_empty = boolean(env.get(EMPTY) or "false")
        name = MINIMUM
        least_s = duration.seconds(env.get(MINIMUM) or f"{MINIMUM_S:.0f}s")
    except ValueError as e:
        raise ValueError(f"the environment variable {name}: {e}") from None
    return Ending(when_empty, least_s)


def connected(statistics: bytes) -> int:
    """The number of connections to a proxy's listeners, of Envoy's statistics; each worker's own numbers are in it."""
    total = 0
    for line in statistics.decode(errors="replace").splitlines():
        name, _, value = line.partition(": ")
        listener = name.removeprefix("listener.").removesuffix(".downstream_cx_active")
        if name.startswith("listener.") and listener not in _OTHERS and ".worker_" not in listener:
            total += int(value)
    return total


async def connections() -> int:
    """The same of the pod's Envoy; 0 if it does not answer."""
    try:
        return connected((await http.fetch("127.0.0.1", ports.ADMIN, _COUNTED, timeout=5)).body)
    except (OSError, TimeoutError, ValueError):
        return 0
