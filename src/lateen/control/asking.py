"""Certificates requested by annotations of Gateways (Gateway API) and Ingresses, as with cert-manager: one for each
Secret that they name for a host. Pure.

Source: https://cert-manager.io/docs/usage/gateway/ and https://cert-manager.io/docs/usage/ingress/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lateen.api import cert_manager as cm
from lateen.api import kinds
from lateen.api import objects as o
from lateen.kit.jsons import Json
from lateen.mesh.objects import Objects


def certificates(objects: Objects, mine: Callable[[o.Resource[Any]], bool]) -> Iterator[Json]:
    """Certificates in the namespace of the object, which owns them; listeners whose Secret is in another namespace are
    ignored. ``mine``: whether an object is considered."""
    for gateway in filter(mine, objects.kubernetes_gateways.values()):
        hosts: dict[str, list[str]] = {}
        for li in gateway.spec.listeners:
            for ref in li.tls.certificate_refs if li.tls and li.hostname else ():
                if ref.kind == "Secret" and ref.namespace in (None, gateway.ref.namespace):
                    hosts.setdefault(ref.name, []).append(str(li.hostname))
        yield from _of(gateway, hosts)
    for ingress in filter(mine, objects.ingresses.values()):
        yield from _of(ingress, {t.secret_name: list(t.hosts) for t in ingress.spec.tls if t.secret_name and t.hosts})


def _of(owner: o.Resource[Any], hosts: dict[str, list[str]]) -> Iterator[Json]:
    notes = dict(owner.notes)
    name, kind = notes.get(cm.BY_CLUSTER_ISSUER), "ClusterIssuer"
    if not name:
        name, kind = notes.get(cm.BY_ISSUER), "Issuer"
    if not name:
        return
    row = kinds.find(owner.ref.group, owner.ref.kind)
    assert row is not None
    mine = {"apiVersion": row.api_version, "kind": row.kind, "name": owner.ref.name, "uid": owner.uid}
    for secret, names in hosts.items():
        yield {
            "apiVersion": kinds.CERTIFICATE.api_version,
            "kind": kinds.CERTIFICATE.kind,
            "metadata": {
                "name": secret,
                "namespace": owner.ref.namespace,
                "ownerReferences": [{**mine, "controller": True, "blockOwnerDeletion": True}],
            },
            "spec": {
                "secretName": secret,
                "dnsNames": list(dict.fromkeys(names)),
                "issuerRef": {"name": name, "kind": kind, "group": cm.GROUP},
            },
        }
