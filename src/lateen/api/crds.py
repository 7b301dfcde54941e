"""The CustomResourceDefinitions of the mesh's kinds, made from their types."""

from __future__ import annotations

from typing import Any

from lateen.api import kinds
from lateen.api.config import schema
from lateen.api.kinds import Kind
from lateen.kit.jsons import Json

BUNDLE = "gateway.networking.k8s.io/bundle-version"
CHANNEL = "gateway.networking.k8s.io/channel"
EXPERIMENTAL = "PILOT_ENABLE_ALPHA_GATEWAY_API"
"""istiod's environment variable, of Istio's name, that asks for the experimental channel."""
RELEASE = "v1.6.1"
"""Of the Gateway API, whose kinds' types are those of this release."""
OURS = "lateen.dev/installed"
"""The label of CRDs that other projects define and that we have installed: those that somebody else has installed are
left as they are."""
APPROVED = "https://github.com/kubernetes-sigs/gateway-api/pull/4530"
"""Where Kubernetes' reviewers have approved the API: the API server asks for it in groups of Kubernetes' own."""


def crds(experimental: bool = False) -> list[Json]:
    """``experimental``: with the fields that only the Gateway API's experimental channel has."""
    return [crd(k, experimental) for k in kinds.owned()]


def crd(k: Kind, experimental: bool = False) -> Json:
    """The CustomResourceDefinition of a kind that the mesh owns."""
    columns = [{"name": n, "type": "string", "jsonPath": p} for n, p in k.columns]
    columns.append({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
    body = {
        "type": "object",
        "properties": {"spec": schema(k.spec, experimental), "status": _status(k)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{k.plural}.{k.group}", **_metadata(k, experimental)},
        "spec": {
            "group": k.group,
            "scope": "Namespaced" if k.namespaced else "Cluster",
            "names": {
                "kind": k.kind,
                "plural": k.plural,
                "singular": k.kind.lower(),
                "listKind": f"{k.kind}List",
                "shortNames": list(k.short),
                "categories": _categories(k),
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


def _metadata(k: Kind, experimental: bool) -> Json:
    if k.group == kinds.GATEWAY_API:
        return _official(experimental)
    return _ISTIO if k.group.endswith(ISTIO) else {"labels": {OURS: "true"}}


def _categories(k: Kind) -> list[str]:
    if k.group.endswith(ISTIO):
        return ["istio-io", f"{k.group.partition('.')[0]}-istio-io"]
    return ["gateway-api"] if k.group == kinds.GATEWAY_API else []


ISTIO = ".istio.io"
_ISTIO: Json = {"labels": {"app": "istio-pilot", "chart": "istio", "heritage": "Tiller", "release": "istio"}}


def _official(experimental: bool) -> Json:
    """As the Gateway API's own CRDs say which they are."""
    return {
        "labels": {OURS: "true"},
        "annotations": {
            "api-approved.kubernetes.io": APPROVED,
            BUNDLE: RELEASE,
            CHANNEL: "experimental" if experimental else "standard",
        },
    }


def _status(k: Kind) -> Json:
    out: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if k.pending:
        waiting = {
            "status": "Unknown",
            "reason": "Pending",
            "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }
        out["default"] = {"conditions": [{"type": name, **waiting} for name in k.pending]}
    return out
