"""Secrets of type kubernetes.io/service-account-token: each gets a token of its account, and goes with the account.

As kube-controller-manager's tokens controller. Such a token does not expire; it is valid for as long as its Secret is
there, which clients outside of the cluster rely on (another cluster's control plane).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.loop import Key, Loop
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

TYPE = "kubernetes.io/service-account-token"
ACCOUNT, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
Issue = Callable[[Json, Json], str]
"""(account, Secret) -> a token that is bound to both"""


class AccountTokens:
    name = "service-account-tokens"
    watches = (kinds.SECRET, kinds.SERVICE_ACCOUNT)

    def __init__(self, client: Client, loop: Loop, certificate: str, issue: Issue) -> None:
        self._client, self._loop, self._certificate, self._issue = client, loop, certificate, issue

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        obj = new or old or {}
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        if kind is kinds.SECRET:
            if obj.get("type") == TYPE:
                yield (namespace, name)
            return
        for secret in self._loop.objects(kinds.SECRET, namespace):
            if secret.get("type") == TYPE and _note(secret, ACCOUNT) == name:
                yield (namespace, secret["metadata"]["name"])

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        secret = self._loop.get(kinds.SECRET, namespace, name)
        if secret is None or secret["metadata"].get("deletionTimestamp"):
            return
        account = await self._client.get(kinds.SERVICE_ACCOUNT, namespace, _note(secret, ACCOUNT))
        uid = dig(account or {}, "metadata", "uid", default="")
        if account is None or (_note(secret, UID) not in ("", uid)):
            await self._client.delete(kinds.SECRET, namespace, name)
            return
        have = secret.get("data") or {}
        wanted = {"ca.crt": _base64(self._certificate), "namespace": _base64(namespace)}
        wanted["token"] = have.get("token") or _base64(self._issue(account, secret))
        if {k: have.get(k) for k in wanted} != wanted or _note(secret, UID) != uid:
            change = {"metadata": {"annotations": {UID: uid}}, "data": wanted}
            await self._client.patch(kinds.SECRET, namespace, name, change)


def _note(secret: Json, name: str) -> str:
    return str(dig(secret, "metadata", "annotations", name, default=""))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
