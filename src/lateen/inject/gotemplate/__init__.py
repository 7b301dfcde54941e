"""The user's own injection templates: Go templates with the functions that Istio's injector offers.

Source: https://pkg.go.dev/text/template, https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/
("Custom templates").
"""

from __future__ import annotations

from lateen.api.values import overlay
from lateen.inject import parts
from lateen.inject.context import Context
from lateen.inject.gotemplate.run import render
from lateen.kit import yamldoc
from lateen.kit.jsons import Json, dig

__all__ = ["render", "render_pod"]

READ: Json = {
    "revision": "",
    "global": {
        "caName": "",
        "pilotCertProvider": "istiod",
        "proxy_init": {"image": "proxyv2"},
        "sds": {"token": {"aud": "istio-ca"}},
    },
}
"""Values of Istio's chart that its own templates read, and ours do not: users start from copies of those."""


def render_pod(text: str, c: Context) -> Json:
    """The partial pod that a template produces. Raises ValueError."""
    out = yamldoc.load(render(text, _data(c))) or {}
    if not isinstance(out, dict):
        raise ValueError("it does not produce a YAML mapping")
    return out


def _data(c: Context) -> Json:
    """Istio's SidecarTemplateData, with objects as JSON; ``.Spec.Containers`` finds ``containers``."""
    meta = {"annotations": {}, "labels": {}, "name": "", "namespace": c.namespace, **(c.pod.get("metadata") or {})}
    config = {"interceptionMode": "REDIRECT", "proxyMetadata": {}, **c.config}
    mesh = {"trustDomain": c.settings.trust_domain, **c.settings.mesh}
    revision = c.settings.revision if c.settings.revision != "default" else ""
    return {
        "TypeMeta": {"kind": c.workload.kind, "APIVersion": c.workload.api_version},
        "DeploymentMeta": {"name": c.workload.name, "namespace": c.workload.namespace},
        "ObjectMeta": meta,
        "Spec": {"serviceAccountName": "", "containers": [], "initContainers": [], **(c.pod.get("spec") or {})},
        "ProxyConfig": config,
        "MeshConfig": mesh,
        "Values": overlay({**READ, "revision": revision}, c.settings.values),
        "Revision": c.settings.revision,
        "ProxyImage": parts.image(c),
        "ProxyUID": c.settings.uid,
        "ProxyGID": c.settings.gid,
        "InboundTrafficPolicyMode": str(dig(mesh, "inboundTrafficPolicy", "mode", default="PASSTHROUGH")).lower(),
        "NativeSidecars": c.native,
    }
