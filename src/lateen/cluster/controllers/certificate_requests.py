"""CertificateSigningRequests: those that somebody has approved are signed by the cluster's CA, old ones are removed.

As kube-controller-manager's csrsigning and csrcleaning. Requests for other signers than Kubernetes' own are left to
whoever signs them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.loop import Key
from lateen.cluster.rules import requests
from lateen.kit import times
from lateen.kit.jsons import Json, dig
from lateen.kit.pair import Pair
from lateen.kube.client import Client


class CertificateRequests:
    name = "certificate-requests"
    watches = (kinds.CERTIFICATE_REQUEST,)

    def __init__(self, client: Client, authority: Pair) -> None:
        self._client, self._authority = client, authority

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:  # noqa: ARG002
        if new is not None:
            yield (new["metadata"]["name"],)

    async def reconcile(self, key: Key) -> float | None:
        (name,) = key
        obj = await self._client.get(kinds.CERTIFICATE_REQUEST, "", name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        left = (requests.kept_until(obj) - times.now()).total_seconds()
        if left <= 0:
            await self._client.delete(kinds.CERTIFICATE_REQUEST, "", name)
            return None
        if requests.wants_signing(obj):
            await self._client.patch(kinds.CERTIFICATE_REQUEST, "", name, {"status": self._answer(obj)}, "status")
        return left

    def _answer(self, obj: Json) -> Json:
        from lateen.cluster.rules import signing

        spec, usages = obj["spec"], obj["spec"].get("usages") or []
        request = signing.parse(spec["request"])
        why = signing.unfit(spec["signerName"], request, usages)
        if not why:
            try:
                made = signing.sign(self._authority, request, usages, requests.lifetime(spec), times.now())
                return {"certificate": base64.b64encode(made.encode()).decode()}
            except ValueError as e:
                why = str(e)
        now = times.stamp()
        failed = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why}
        failed |= {"lastUpdateTime": now, "lastTransitionTime": now}
        return {"conditions": [*dig(obj, "status", "conditions", default=[]), failed]}
