"""The volumes of a proxy, and their mounts."""

from __future__ import annotations

from lateen.inject.context import Context
from lateen.kit import jsons
from lateen.kit.jsons import Json


def mounts(crl: bool = False, bootstrap: bool = False) -> list[Json]:
    """The volume mounts of the agent and Envoy. ``bootstrap``: also the user's part of Envoy's bootstrap."""
    out = [
        {"name": "workload-socket", "mountPath": "/var/run/secrets/workload-spiffe-uds"},
        {"name": "credential-socket", "mountPath": "/var/run/secrets/credential-uds"},
        {"name": "workload-certs", "mountPath": "/var/run/secrets/workload-spiffe-credentials"},
        {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio"},
    ]
    if crl:
        out.append({"name": "istio-ca-crl", "mountPath": "/var/run/secrets/istio/crl"})
    out.append({"name": "istio-data", "mountPath": "/var/lib/istio/data"})
    if bootstrap:
        out.append({"name": "custom-bootstrap-volume", "mountPath": "/etc/istio/custom-bootstrap"})
    return [
        *out,
        {"name": "istio-envoy", "mountPath": "/etc/istio/proxy"},
        {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
        {"name": "istio-podinfo", "mountPath": "/etc/istio/pod"},
    ]


def volumes(crl: bool = False, envoy: str = "istio-envoy") -> list[Json]:
    """A sidecar's volumes. Those for sockets have no source, so that another template (SPIRE) can give them one; by
    default, the API server makes them ``emptyDir``."""
    own: Json = {} if crl or envoy != "istio-envoy" else {"emptyDir": {}}
    out: list[Json] = [{"name": "workload-socket"}, {"name": "credential-socket", **own}]
    out.append({"name": "workload-certs", **own})
    out += [
        {"name": envoy, "emptyDir": {"medium": "Memory"}},
        {"name": "istio-data", "emptyDir": {}},
        {
            "name": "istio-podinfo",
            "downwardAPI": {
                "items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
                ]
            },
        },
        token_volume(),
        {"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}},
    ]
    if crl:
        out.append({"name": "istio-ca-crl", "configMap": {"name": "istio-ca-crl", "optional": True}})
    return out


def token_volume() -> Json:
    source = {"serviceAccountToken": {"path": "istio-token", "audience": "istio-ca", "expirationSeconds": 43200}}
    return {"name": "istio-token", "projected": {"sources": [source]}}


def user_items(c: Context, name: str) -> list[Json]:
    """``sidecar.istio.io/userVolume`` and ``userVolumeMount``: JSON, by volume name, in the order of the names as in
    Istio (whose templates range over a map). Raises ValueError."""
    given = c.annotations.get(f"sidecar.istio.io/{name}")
    if not given:
        return []
    found = jsons.loads(given)
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise ValueError(f"annotation sidecar.istio.io/{name}: expected a JSON object of volumes by name")
    return [{"name": k, **v} for k, v in sorted(found.items())]
