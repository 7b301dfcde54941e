"""The CustomResourceDefinitions of the mesh's kinds, made from their types."""

from __future__ import annotations

from lateen.api import kinds
from lateen.api.config import schema
from lateen.api.kinds import Kind
from lateen.kit.jsons import Json


def crds() -> list[Json]:
    return [crd(k) for k in kinds.owned()]


def crd(k: Kind) -> Json:
    """The CustomResourceDefinition of a kind that the mesh owns."""
    columns = [{"name": n, "type": "string", "jsonPath": p} for n, p in k.columns]
    columns.append({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    body = {"type": "object", "properties": {"spec": schema(k.spec), "status": free}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{k.plural}.{k.group}",
            "labels": {"app": "istio-pilot", "chart": "istio", "heritage": "Tiller", "release": "istio"},
        },
        "spec": {
            "group": k.group,
            "scope": "Namespaced" if k.namespaced else "Cluster",
            "names": {
                "kind": k.kind,
                "plural": k.plural,
                "singular": k.kind.lower(),
                "listKind": f"{k.kind}List",
                "shortNames": list(k.short),
                "categories": ["istio-io", f"{k.group.partition('.')[0]}-istio-io"],
            },
            "versions": [
                {
                    "name": v,
                    "served": True,
                    "storage": v == k.version,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": body},
                    "additionalPrinterColumns": columns,
                }
                for v in k.versions
            ],
        },
    }
