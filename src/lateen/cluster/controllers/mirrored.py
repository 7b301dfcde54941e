"""EndpointSlices of Endpoints that users write for a Service without a selector: what reads slices finds them there.

Follows k8s.io/kubernetes, pkg/controller/endpointslicemirroring.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers import slices
from lateen.cluster.controllers.loop import Key, Loop
from lateen.cluster.controllers.ownership import owner
from lateen.cluster.controllers.revisions import LAST_APPLIED
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
"""Endpoints with this annotation are a lock, not addresses."""
MOST = 1000
"""Addresses of one subset."""
_OWN = ("endpoints.kubernetes.io/last-change-trigger-time", LAST_APPLIED)


class MirroredEndpoints:
    name = "endpointslice-mirroring"
    watches = (kinds.SERVICE, kinds.ENDPOINTS, kinds.ENDPOINT_SLICE)

    def __init__(self, client: Client, loop: Loop) -> None:
        self._client, self._loop = client, loop

    def keys(self, kind: Kind, old: Json | None, new: Json | None) -> Iterable[Key]:
        """Services with a selector have slices of another controller's."""
        for obj in filter(None, (old, new)):
            meta = obj["metadata"]
            key = (meta["namespace"], meta["name"])
            if kind == kinds.ENDPOINT_SLICE:
                if dig(meta, "labels", slices.MANAGED) == MANAGER:
                    yield meta["namespace"], str(dig(meta, "labels", slices.SERVICE))
            elif not _selects(obj if kind == kinds.SERVICE else self._loop.get(kinds.SERVICE, *key)):
                yield key

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        service = self._loop.get(kinds.SERVICE, namespace, name)
        endpoints = self._loop.get(kinds.ENDPOINTS, namespace, name)
        wanted: list[Json] = []
        if service is not None and not _selects(service) and endpoints is not None and _is_mirrored(endpoints):
            wanted = of(endpoints)
        await slices.put(self._client, namespace, name, MANAGER, wanted)


def _selects(service: Json | None) -> bool:
    return bool(dig(service or {}, "spec", "selector"))


def _is_mirrored(endpoints: Json) -> bool:
    meta = endpoints["metadata"]
    going = bool(meta.get("deletionTimestamp"))
    return not going and dig(meta, "labels", SKIP) != "true" and LEADER not in (meta.get("annotations") or {})


def of(endpoints: Json) -> list[Json]:
    """One slice for each combination of ports and each family of addresses."""
    meta, found = endpoints["metadata"], dict[tuple[str, str], Json]()
    for subset in endpoints.get("subsets") or []:
        ports = [_port(p) for p in subset.get("ports") or []]
        known = [(a, True) for a in subset.get("addresses") or []]
        known += [(a, False) for a in subset.get("notReadyAddresses") or []]
        for address, ready in known[:MOST]:
            family = f"IPv{ipaddress.ip_address(address['ip']).version}"
            piece = found.setdefault((family, repr(ports)), _slice(endpoints, family, ports))
            piece["endpoints"].append(_endpoint(address, ready))
    annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k not in _OWN}
    for piece in found.values():
        piece["metadata"]["annotations"] = annotations
    return list(found.values())


def _slice(endpoints: Json, family: str, ports: list[Json]) -> Json:
    meta = endpoints["metadata"]
    labels = {**(meta.get("labels") or {}), slices.SERVICE: meta["name"], slices.MANAGED: MANAGER}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": family,
        "metadata": {
            "namespace": meta["namespace"],
            "generateName": f"{meta['name']}-",
            "labels": labels,
            "ownerReferences": [owner({**endpoints, "apiVersion": "v1", "kind": "Endpoints"})],
        },
        "endpoints": [],
        "ports": ports,
    }


def _port(port: Json) -> Json:
    spoken = {"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {}
    return {"name": port.get("name") or "", "port": port["port"], "protocol": port.get("protocol") or "TCP"} | spoken


def _endpoint(address: Json, ready: bool) -> Json:
    given = {k: address[k] for k in ("hostname", "nodeName", "targetRef") if address.get(k)}
    return {"addresses": [address["ip"]], "conditions": {"ready": ready}} | given
