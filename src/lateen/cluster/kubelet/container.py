"""One container's state: waiting, running or terminated, with a count of its starts and its last termination.

Waiting ──started──▶ Running ──ended──▶ Terminated ──waits/started──▶ Waiting/Running
   └──────────────could not be started────────▲
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from lateen.kit.jsons import Json


class Role(Enum):
    """An init container with restartPolicy Always is a sidecar: it starts in order and runs as long as the pod. An
    ephemeral container is added to a pod that exists, runs once, and changes nothing about the pod's own state."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True)
class Waiting:
    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True)
class Running:
    """``started``: its postStart hook and startup probe have passed; times are seconds since the epoch."""

    id: str
    started_at: float
    started: bool = False
    ready: bool = False


@dataclass(frozen=True)
class Terminated:
    id: str
    code: int
    started_at: float
    finished_at: float
    reason: str
    message: str = ""


State = Waiting | Running | Terminated


class Container:
    """``changed`` is called after each transition."""

    def __init__(self, spec: Json, role: Role, changed: Callable[[], None]) -> None:
        self.spec, self.role, self._changed = spec, role, changed
        self.name = str(spec["name"])
        self.state: State = Waiting()
        self.last: Terminated | None = None
        self.resources: Json = {}
        """Those in effect since it was started, or since it was resized."""
        self.attempt = -1
        """The number of the latest start; -1 before the first."""
        self.again = False
        """It is being stopped to be started again, whatever its exit code will be."""
        self._moved = asyncio.Event()

    @property
    def running(self) -> Running | None:
        return self.state if isinstance(self.state, Running) else None

    @property
    def ended(self) -> Terminated | None:
        """The last termination, also while the container waits to be restarted."""
        if isinstance(self.state, Terminated):
            return self.state
        return self.last if isinstance(self.state, Waiting) else None

    @property
    def started(self) -> bool:
        return isinstance(self.state, Running) and self.state.started

    @property
    def ready(self) -> bool:
        return isinstance(self.state, Running) and self.state.ready

    @property
    def succeeded(self) -> bool:
        return isinstance(self.state, Terminated) and self.state.code == 0

    def restarts(self, policy: str) -> bool:
        """Whether the restart policy starts it again after the way it ended."""
        if self.role is Role.EPHEMERAL:
            return False
        if self.again or self.role is Role.SIDECAR or (self.role is Role.MAIN and policy == "Always"):
            return True
        return policy != "Never" and not self.succeeded

    @staticmethod
    def is_final(state: State | None, policy: str) -> bool:
        """Whether a main container that is in this state stays there."""
        return isinstance(state, Terminated) and (policy == "Never" or (policy == "OnFailure" and state.code == 0))

    # --- transitions -----------------------------------------------------------------------------------------

    def _to(self, state: State) -> None:
        if isinstance(self.state, Terminated) and not isinstance(state, Terminated):
            self.last = self.state
        self.state = state
        self._moved.set()
        self._changed()

    def waits(self, reason: str, message: str = "") -> None:
        if isinstance(self.state, Running):
            raise ValueError(f"{self.name} is running; it cannot wait")
        self._to(Waiting(reason, message))

    def is_confined(self) -> None:
        """The resources of its spec are in effect."""
        self.resources = self.spec.get("resources") or {}
        self._changed()

    def starts(self, attempt: int, key: str, at: float, resources: Json) -> None:
        self.attempt, self.resources, self.again = attempt, resources, False
        self._to(Running(key, at))

    def has_started(self) -> None:
        if isinstance(self.state, Running) and not self.state.started:
            self._to(replace(self.state, started=True))

    def is_ready(self, ready: bool) -> None:
        if isinstance(self.state, Running) and self.state.ready != ready:
            self._to(replace(self.state, ready=ready))

    def ends(self, code: int, at: float, message: str = "", out_of_memory: bool = False) -> None:
        if isinstance(self.state, Running):
            reason = "Completed" if code == 0 else "OOMKilled" if out_of_memory else "Error"
            self._to(Terminated(self.state.id, code, self.state.started_at, at, reason, message))

    def fails_to_start(self, attempt: int, at: float, message: str) -> None:
        """Its command could not be run, which Kubernetes reports as a run that exited with 128."""
        self.attempt, self.again = attempt, False
        self._to(Terminated("", 128, 0.0, at, "StartError", message))

    def restore(self, state: Terminated | None, last: Terminated | None, attempt: int) -> None:
        """Restore what the pod's status said before the node daemon was restarted."""
        self.last, self.attempt = last, attempt
        if state is not None:
            self.state = state

    async def until(self, test: Callable[[Container], bool]) -> None:
        """Wait for a state for which ``test`` is true."""
        while not test(self):
            self._moved.clear()
            await self._moved.wait()
