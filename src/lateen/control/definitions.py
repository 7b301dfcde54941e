"""The release and channel of the cluster's Gateway API CRDs, and whether cert-manager's CRDs are ours.

They are polled by name: a watch of CRDs would also deliver those of all other projects.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from lateen.api import kinds
from lateen.api.crds import OURS, Bundle, bundle
from lateen.kit.jsons import dig
from lateen.kube.client import Client, KubeError, Unreachable

PAUSE_S = 60.0
CERT_MANAGER = "cert-manager"
KINDS = tuple(k for k in kinds.owned() if k.group in kinds.GATEWAY_APIS)
LENT = tuple(k for k in kinds.owned() if k.group == kinds.CERT_MANAGER)
"""Kinds that another controller may serve: cert-manager, if the cluster has it."""


class Definitions:
    def __init__(
        self,
        client: Client,
        know: Callable[[kinds.Kind, Bundle | None], None],
        lend: Callable[[frozenset[kinds.Kind]], None],
    ) -> None:
        """``know``: called with each kind, and its CRD if the cluster has one; ``lend``: with the kinds that another
        controller serves."""
        self._client, self._know, self._lend = client, know, lend
        self._lent: frozenset[kinds.Kind] = frozenset()

    async def look(self) -> None:
        """Read all definitions; those that cannot be read keep their last known state."""
        for kind in KINDS:
            with contextlib.suppress(KubeError, Unreachable):
                found = await self._client.get(kinds.CRD, "", f"{kind.plural}.{kind.group}")
                self._know(kind, bundle(found) if found else None)
        for kind in LENT:
            with contextlib.suppress(KubeError, Unreachable):
                found = await self._client.get(kinds.CRD, "", f"{kind.plural}.{kind.group}")
                labels = dig(found, "metadata", "labels", default={}) if found else {OURS: ""}
                theirs = OURS not in labels or CERT_MANAGER in (labels.get("app"), labels.get("app.kubernetes.io/name"))
                self._lent = self._lent | {kind} if theirs else self._lent - {kind}
        self._lend(self._lent)

    async def run(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(PAUSE_S)
            await self.look()
