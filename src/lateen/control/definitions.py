"""Which release and channel of the Gateway API the cluster's definitions are of.

They are asked for by name once in a while: a watch of CRDs would bring those of all other projects, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from lateen.api import kinds
from lateen.api.crds import Bundle, bundle
from lateen.kube.client import Client, KubeError, Unreachable

PAUSE_S = 60.0
KINDS = tuple(k for k in kinds.owned() if k.group in kinds.GATEWAY_APIS)


class Definitions:
    def __init__(self, client: Client, know: Callable[[kinds.Kind, Bundle | None], None]) -> None:
        """``know``: called with each kind, and its definition if the cluster has one."""
        self._client, self._know = client, know

    async def look(self) -> None:
        """What may not be read, or cannot be read now, stays as it was."""
        for kind in KINDS:
            with contextlib.suppress(KubeError, Unreachable):
                found = await self._client.get(kinds.CRD, "", f"{kind.plural}.{kind.group}")
                self._know(kind, bundle(found) if found else None)

    async def run(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(PAUSE_S)
            await self.look()
