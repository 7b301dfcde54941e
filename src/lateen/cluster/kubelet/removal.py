"""Removes the object of a pod from the API."""

from __future__ import annotations

import logging

from lateen.api import kinds
from lateen.kit.jsons import Json
from lateen.kube.client import Client, KubeError

log = logging.getLogger("lateen.kubelet")

_REFUSED = (403, 409)


async def remove(client: Client, pod: Json) -> None:
    """Remove a pod that has ended. Another pod may have its name by now (of a StatefulSet, after it was deleted with
    force), so only an object with its UID is removed. Raises KubeError, OSError.

    Such a request is answered with 409, or with 403 by kube-apiserver if the other pod is another node's
    (``plugin/pkg/admission/noderestriction``); but a webhook may refuse a deletion with 403, too, until later.
    """
    meta = pod["metadata"]
    namespace, name, uid = str(meta["namespace"]), str(meta["name"]), str(meta["uid"])
    try:
        await client.delete(kinds.POD, namespace, name, grace=0, uid=uid)
    except KubeError as e:
        if e.code not in _REFUSED or await _exists(client, namespace, name, uid):
            raise
        log.info("%s/%s is another pod now", namespace, name)


async def _exists(client: Client, namespace: str, name: str, uid: str) -> bool:
    """Whether the pod is there, as far as this node may know. Raises KubeError, OSError."""
    try:
        found = await client.get(kinds.POD, namespace, name)
    except KubeError as e:
        if e.code != 403:
            raise
        return False  # it is another node's
    return found is not None and str(found["metadata"].get("uid")) == uid
