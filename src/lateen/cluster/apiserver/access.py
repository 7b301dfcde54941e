"""What the API server needs from whatever runs the pods: logs, commands in containers, connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class LogOptions:
    follow: bool = False
    tail: int | None = None
    since: float | None = None
    timestamps: bool = False
    previous: bool = False
    limit: int | None = None


class Measured(Protocol):
    """CPUs and bytes of memory in use: of the machine, and by (namespace, pod) and container; ``window``: seconds that
    the CPUs are an average of; ``node_seconds`` and ``seconds``: CPU time so far, which never decreases."""

    @property
    def node(self) -> tuple[float, int]: ...
    @property
    def containers(self) -> dict[tuple[str, str], dict[str, tuple[float, int]]]: ...
    @property
    def window(self) -> float: ...
    @property
    def node_seconds(self) -> float: ...
    @property
    def seconds(self) -> dict[tuple[str, str], dict[str, float]]: ...


class Running(Protocol):
    """A command in a container, or a container that the client is attached to. ``out`` and ``err`` end when it exits;
    with a terminal everything is in ``out``."""

    out: asyncio.StreamReader
    err: asyncio.StreamReader | None

    async def write(self, data: bytes) -> None: ...

    def close_stdin(self) -> None: ...

    def resize(self, rows: int, columns: int) -> None: ...

    async def wait(self) -> int: ...

    def kill(self) -> None: ...


class PodAccess(Protocol):
    """Raises LookupError with a sentence if the pod or container is not running."""

    def logs(self, namespace: str, pod: str, container: str, options: LogOptions) -> AsyncGenerator[bytes]:
        """The first part is empty; so are those that come while nothing is written."""

    async def execute(
        self, namespace: str, pod: str, container: str, command: list[str], tty: bool, stdin: bool
    ) -> Running: ...

    async def attach(self, namespace: str, pod: str, container: str, stdin: bool) -> Running: ...

    async def usage(self) -> Measured: ...

    async def connect(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...
