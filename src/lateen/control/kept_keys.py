"""Persists the fetched keys of issuers and endpoints of providers: if a server is unavailable when istiod restarts, its
tokens stay valid and its users can log in.

They are stored in a Secret, because keys may be symmetric. Whoever can write it can configure the mesh anyway.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lateen.api import kinds
from lateen.api.security_policy import is_endpoint
from lateen.control.fetching import REQUIRED
from lateen.kit import jsons, jwks
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError, Unreachable
from lateen.mesh.authentication import KeySource

log = logging.getLogger("lateen.control.kept_keys")

SECRET, ENTRY = "lateen-jwks", "keys.json"
LOOK_S = 2.0
"""Seconds between checks for something new to store."""
AGAIN_S = 3600.0
"""Seconds after which the time of the last fetch is stored again even if the keys are unchanged."""
OLDEST_S = 24 * 3600.0
"""Keys that their server has not confirmed for this many seconds are not used after a restart: they may have been
withdrawn for a reason."""
MAX_BYTES = 500_000


@dataclass(frozen=True)
class Fetched:
    keys: str
    """The key set, or the endpoints as JSON"""
    at: float
    """The time of the fetch, in seconds since the epoch."""


class KeptKeys:
    def __init__(
        self,
        client: Client,
        namespace: str,
        fetched: Callable[[], Mapping[KeySource, Fetched]],
        leads: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``fetched``: the documents to store, of the sources in use. ``leads``: whether this istiod stores them."""
        self._client, self._namespace, self._fetched, self._leads = client, namespace, fetched, leads
        self._clock = clock
        self._kept: Mapping[KeySource, Fetched] = {}

    async def read(self) -> dict[KeySource, Fetched]:
        """The documents stored by an earlier istiod; empty if they cannot be read."""
        try:
            secret = await self._client.get(kinds.SECRET, self._namespace, SECRET)
            self._kept = _read(secret) if secret else {}
        except (KubeError, Unreachable) as e:
            log.warning("the keys of issuers from before the restart cannot be read: %s", e)
        oldest = self._clock() - OLDEST_S
        return {source: found for source, found in self._kept.items() if found.at >= oldest}

    async def run(self) -> None:
        """Never returns. Raises KubeError, Unreachable."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._leads():
                await self.keep()

    async def keep(self) -> None:
        """Store what is new. Raises KubeError, Unreachable."""
        wanted = _bounded(self._fetched())
        if not self._differs(wanted):
            return
        before = await self._client.get(kinds.SECRET, self._namespace, SECRET)
        entries = [{**s._asdict(), "keys": f.keys, "at": f.at} for s, f in wanted.items()]
        data = {ENTRY: base64.b64encode(jsons.dumps(entries)).decode()}
        if before is None:
            meta = {"name": SECRET, "namespace": self._namespace}
            body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": meta, "data": data}
            await self._client.create(kinds.SECRET, body)
        else:
            await self._client.update(kinds.SECRET, {**before, "data": data})
        self._kept = wanted

    def _differs(self, wanted: Mapping[KeySource, Fetched]) -> bool:
        if wanted.keys() != self._kept.keys():
            return True
        pairs = ((found, self._kept[source]) for source, found in wanted.items())
        return any(new.keys != old.keys or new.at - old.at > AGAIN_S for new, old in pairs)


def _bounded(found: Mapping[KeySource, Fetched]) -> dict[KeySource, Fetched]:
    """The smallest ones, as many as fit into a Secret."""
    out: dict[KeySource, Fetched] = {}
    left = MAX_BYTES
    for source, one in sorted(found.items(), key=lambda item: (len(item[1].keys), item[0])):
        left -= len(one.keys) + len(source.url)
        if left < 0:
            log.warning("the keys of %s and others do not survive a restart: there are too many", source.url[:200])
            break
        out[source] = one
    return out


def _read(secret: Json) -> dict[KeySource, Fetched]:
    """The readable entries; keys and endpoints that Envoy would reject are left out."""
    out: dict[KeySource, Fetched] = {}
    try:
        for one in jsons.loads(base64.b64decode(dig(secret, "data", ENTRY, default=""))):
            source = KeySource(str(one["url"]), bool(one["discovered"]), bool(one.get("endpoints")))
            read = _endpoints if source.endpoints else jwks.usable
            out[source] = Fetched(read(str(one["keys"])), float(one["at"]))
    except (ValueError, KeyError, TypeError) as e:
        log.warning("Secret %s is not used: %s", SECRET, e)
    return out


def _endpoints(text: str) -> str:
    """Raises ValueError."""
    found = jsons.loads(text.encode())
    if not isinstance(found, dict) or not all(isinstance(v, str) and is_endpoint(v) for v in found.values()):
        raise ValueError("endpoints are not URLs for Envoy")
    if missing := [name for name in REQUIRED if not found.get(name)]:
        raise ValueError(f"endpoints lack {', '.join(missing)}")
    return text
