"""Scales of whatever has one: Deployments and their like, and custom resources whose definitions say so."""

from __future__ import annotations

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.cluster.controllers.served import custom
from lateen.kit.jsons import Json, dig
from lateen.kube.client import Client, KubeError

SCALED = (kinds.DEPLOYMENT, kinds.STATEFUL_SET, kinds.REPLICA_SET, kinds.REPLICATION_CONTROLLER)
NOT_SERVED = "the server could not find the requested resource"
"""What is said of a kind that has no scale."""


class NoScale(Exception):
    """There is none; the message says why, as Kubernetes' clients do. ``absent``: whether it is only the object that is
    missing; ``unscaled``: the resource that has no scale."""

    def __init__(self, says: str, absent: bool = False, unscaled: str = "") -> None:
        super().__init__(says)
        self.absent, self.unscaled = absent, unscaled


async def find(client: Client, namespace: str, ref: Json) -> tuple[Kind, Json]:
    """The kind and the Scale (autoscaling/v1) of what a reference with ``apiVersion``, ``kind`` and ``name`` names; any
    version of the group will do. Raises NoScale, and KubeError if the API cannot tell now."""
    group = str(ref.get("apiVersion") or "").rpartition("/")[0]
    kind = await _kind(client, group, str(ref["kind"]))
    found = await client.get(kind, namespace, str(ref["name"]), "scale")
    if found is None:
        raise NoScale(f'{_qualified(kind)} "{ref["name"]}" not found', absent=True)
    return kind, found


async def _kind(client: Client, group: str, name: str) -> Kind:
    known = next((k for k in kinds.BUILT_IN if (k.group, k.kind) == (group, name)), None)
    if known is not None:
        if known not in SCALED:
            raise NoScale(NOT_SERVED, unscaled=_qualified(known))
        return known
    crds, _ = await client.list(kinds.CRD)
    for crd in crds:
        if (crd["spec"]["group"], dig(crd, "spec", "names", "kind")) == (group, name) and (kind := custom(crd)):
            version = next(v for v in crd["spec"]["versions"] if v["name"] == kind.version)
            if not dig(version, "subresources", "scale"):
                raise NoScale(NOT_SERVED, unscaled=_qualified(kind))
            return kind
    raise NoScale(f'no matches for kind "{name}" in group "{group}"')


def _qualified(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural


async def resize(client: Client, kind: Kind, scale: Json, replicas: int) -> None:
    """Set ``spec.replicas`` of an unchanged Scale. Raises KubeError."""
    meta = scale["metadata"]
    change = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": {"replicas": replicas}}
    await client.patch(kind, meta["namespace"], meta["name"], change, "scale")


__all__ = ["SCALED", "KubeError", "NoScale", "find", "resize"]
