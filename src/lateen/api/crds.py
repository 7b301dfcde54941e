"""The CustomResourceDefinitions of the mesh's kinds, generated from their types."""

from __future__ import annotations

from typing import Any, NamedTuple

from lateen.api import kinds
from lateen.api.config import schema
from lateen.api.kinds import Kind
from lateen.kit.digits import digits
from lateen.kit.jsons import Json, dig

BUNDLE = "gateway.networking.k8s.io/bundle-version"
CHANNEL = "gateway.networking.k8s.io/channel"
EXPERIMENTAL = "PILOT_ENABLE_ALPHA_GATEWAY_API"
"""istiod's environment variable (named as in Istio) that enables the experimental channel."""
RELEASE = "v1.6.1"
"""The release of the Gateway API that the types follow."""
OURS = "lateen.dev/installed"
"""The label of other projects' CRDs that we installed; those installed by somebody else are left alone."""
APPROVED = "https://github.com/kubernetes-sigs/gateway-api/pull/4530"
"""The URL of the API's approval, which the API server requires of CRDs in Kubernetes' own groups."""


class Bundle(NamedTuple):
    """The release and channel of the Gateway API's CRDs in a cluster; empty if they do not say."""

    release: str
    channel: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the release, without a pre-release suffix (v1.7.0-rc.1)."""
        parts = self.release.lstrip("v").partition("-")[0].split(".")
        return tuple(int(n) if digits(n) else 0 for n in parts)

    @property
    def known(self) -> bool:
        """Whether our types can read this release: from 1.0 to the minor release that they follow."""
        return (1, 0) <= self.numbers[:2] <= OWN.numbers[:2]

    def __str__(self) -> str:
        return f"{self.release or 'of an unknown release'} ({self.channel or 'unknown'} channel)"


def bundle(crd: Json) -> Bundle:
    """The release and channel that a CRD of the Gateway API states."""
    notes = dig(crd, "metadata", "annotations", default={})
    return Bundle(str(notes.get(BUNDLE, "")), str(notes.get(CHANNEL, "")))


OWN = Bundle(RELEASE, "standard")


def crds(experimental: bool = False) -> list[Json]:
    """``experimental``: including the kinds and fields of the Gateway API's experimental channel."""
    return [crd(k, experimental) for k in kinds.owned() if experimental or not k.experimental]


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
    if k.group in kinds.GATEWAY_APIS:
        return _official(experimental)
    return _ISTIO if k.group.endswith(ISTIO) else {"labels": {OURS: "true"}}


def _categories(k: Kind) -> list[str]:
    if k.group.endswith(ISTIO):
        return ["istio-io", f"{k.group.partition('.')[0]}-istio-io"]
    return ["gateway-api"] if k.group in kinds.GATEWAY_APIS else []


ISTIO = ".istio.io"
_ISTIO: Json = {"labels": {"app": "istio-pilot", "chart": "istio", "heritage": "Tiller", "release": "istio"}}


def _official(experimental: bool) -> Json:
    """The annotations by which the Gateway API's own CRDs state their release and channel."""
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
