"""The annotations that let proxies show bodies (``api.annotations.TAP_BODIES``) while a command looks at them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

from lateen.api import kinds
from lateen.api.annotations import TAP_BODIES, TAP_RENEW_S
from lateen.cli.output import CliError
from lateen.kit import tasks, times
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient, KubeError, Unreachable

LEFT = timedelta(hours=1)
"""Annotations of other commands that have not been renewed for so long are removed: those commands were killed."""


@contextlib.asynccontextmanager
async def shown(client: HttpClient, pods: list[Json], renew_s: float = TAP_RENEW_S) -> AsyncIterator[None]:
    """While the pods' proxies have the filter that shows bodies. Other commands may look at the same pods: each has an
    annotation of its own. Raises CliError, KubeError."""
    mine = f"{TAP_BODIES}.{secrets.token_hex(4)}"
    marked: list[Json] = []
    renewing: asyncio.Task[None] | None = None
    try:
        for pod in pods:
            try:
                await _annotate(client, pod, {mine: times.stamp_micro(), **dict.fromkeys(_left(pod))})
            except KubeError as e:
                if e.code != 403:
                    raise
                raise CliError(f"bodies need the permission to patch pods, to annotate them: {e}") from None
            marked.append(pod)
        renewing = tasks.spawn(_renew(client, marked, mine, renew_s), "annotations for bodies")
        yield
    finally:
        await tasks.cancel(renewing)
        await _everywhere(client, marked, {mine: None})


async def _renew(client: HttpClient, pods: list[Json], mine: str, pause_s: float) -> None:
    while True:
        await asyncio.sleep(pause_s)
        await _everywhere(client, pods, {mine: times.stamp_micro()})


async def _everywhere(client: HttpClient, pods: list[Json], annotations: dict[str, str | None]) -> None:
    for pod in pods:
        with contextlib.suppress(KubeError, Unreachable):  # the pod has ended, or the next attempt succeeds
            await _annotate(client, pod, annotations)


async def _annotate(client: HttpClient, pod: Json, annotations: dict[str, str | None]) -> None:
    meta = pod["metadata"]
    await client.patch(kinds.POD, meta["namespace"], meta["name"], {"metadata": {"annotations": annotations}})


def _left(pod: Json) -> list[str]:
    """The annotations that commands have left behind."""
    found: Json = dig(pod, "metadata", "annotations", default={})
    old = times.now() - LEFT
    return [k for k, v in found.items() if k.startswith(TAP_BODIES) and ((at := times.moment(v)) is None or at < old)]
