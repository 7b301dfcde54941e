"""The secret from which the keys that sign login cookies are derived (``mesh.secured.cookie_key``).

It is a Secret in istiod's namespace, created when the first policy needs it and kept: a new one would end all sessions.
"""

from __future__ import annotations

import base64
import logging
import secrets

from lateen.api import kinds
from lateen.kit import tasks
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError
from lateen.mesh.secured import COOKIE_KEY, COOKIE_SECRET

log = logging.getLogger("lateen.control.cookies")

LENGTH = 32
"""Bytes of randomness"""


class Cookies:
    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._done = self._busy = False

    def wanted(self) -> None:
        """Create the secret unless it exists, because a policy needs it."""
        if not self._done and not self._busy:
            self._busy = True
            tasks.spawn(tasks.until_done(self._make, "cookie secret"), "secret of cookies")

    async def _make(self) -> None:
        try:
            await self._client.create(kinds.SECRET, self._secret())
            log.info("created the Secret %s/%s, whose key signs login cookies", self._namespace, COOKIE_SECRET)
        except KubeError as e:
            if e.code != 409:
                raise
        self._done, self._busy = True, False

    def _secret(self) -> Json:
        text = base64.b64encode(secrets.token_bytes(LENGTH)).decode()
        return {
            "apiVersion": kinds.SECRET.api_version,
            "kind": kinds.SECRET.kind,
            "metadata": {"name": COOKIE_SECRET, "namespace": self._namespace},
            "type": "Opaque",
            "data": {COOKIE_KEY: base64.b64encode(text.encode()).decode()},
        }
