"""Carry an installation out, and take it back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from lateen.api import kinds
from lateen.install.manifests import Part
from lateen.kube.apply import apply, kind_of, wait_available
from lateen.kube.client import Client, KubeError

Step = Callable[[str], AbstractContextManager[None]]


async def install(client: Client, parts: list[Part], step: Step, limit_s: float = 120.0) -> None:
    """Apply part after part and wait for each. Raises KubeError, TimeoutError."""
    for part in parts:
        with step(f"{part.title} installed"):
            for obj in part.objects:
                await apply(client, obj)
            for namespace in dict.fromkeys(ns for ns, _ in part.deployments):
                names = [name for ns, name in part.deployments if ns == namespace]
                await wait_available(client, namespace, names, limit_s)


async def uninstall(client: Client, parts: list[Part], purge: bool) -> int:
    """Delete what an installation made, the last first; how many objects were there. ``purge`` also takes the
    definitions (and with them all mesh objects) and the namespace."""
    gone = 0
    for part in reversed(parts):
        for obj in reversed(part.objects):
            kind = kind_of(obj)
            if kind in (kinds.CRD, kinds.NAMESPACE) and not purge:
                continue
            try:
                gone += await client.delete(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
            except KubeError as e:
                if e.code != 404:
                    raise
    return gone
