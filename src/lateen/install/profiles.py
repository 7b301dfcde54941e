"""Configuration profiles, and how an IstioOperator file changes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lateen.inject import settings as injection
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig

API_VERSION = "install.istio.io/v1alpha1"

INGRESS_PORTS = [
    {"port": 15021, "targetPort": 15021, "name": "status-port"},
    {"port": 80, "targetPort": 8080, "name": "http2"},
    {"port": 443, "targetPort": 8443, "name": "https"},
    {"port": 31400, "targetPort": 31400, "name": "tcp"},
    {"port": 15443, "targetPort": 15443, "name": "tls"},
]
EGRESS_PORTS = [
    {"port": 80, "targetPort": 8080, "name": "http2"},
    {"port": 443, "targetPort": 8443, "name": "https"},
    {"port": 15443, "targetPort": 15443, "name": "tls"},
]
SMALL = {"requests": {"cpu": "10m", "memory": "40Mi"}}


def _gateway(name: str, enabled: bool, resources: Json | None = None) -> Json:
    return {"name": name, "enabled": enabled, "k8s": {"resources": resources or {}}}


def _profile(ingress: bool, egress: bool, pilot: bool, mesh: Json | None = None, resources: Json | None = None) -> Json:
    return {
        "meshConfig": mesh or {},
        "components": {
            "pilot": {"enabled": pilot, "k8s": {}},
            "ingressGateways": [_gateway("istio-ingressgateway", ingress, resources)],
            "egressGateways": [_gateway("istio-egressgateway", egress, resources)],
        },
        "values": {"global": {"proxy": {"resources": resources or {}}}},
    }


PROFILES: dict[str, Json] = {
    "default": _profile(True, False, True),
    "demo": _profile(True, True, True, {"accessLogFile": "/dev/stdout"}, SMALL),
    "minimal": _profile(False, False, True),
    "empty": _profile(False, False, False),
    "openshift": _profile(True, False, True),
    "preview": _profile(True, False, True),
    "remote": _profile(False, False, False),
}


NOTES = {
    "openshift": "sidecars set up their own redirection here (there is no CNI plugin): allow NET_ADMIN for them",
    "preview": "nothing is experimental in this version; the profile is the same as default",
    "remote": "a control plane in another cluster is not supported yet; only the definitions are installed",
}
"""What whoever chooses a profile must know."""


class ProfileError(ValueError):
    """A profile or an overlay that cannot be used; the message says what to write instead."""


@dataclass
class Operator:
    """The merged specification, and which of its fields have no effect."""

    spec: Json
    profile: str = "default"
    ignored: list[str] = field(default_factory=list)


_GATEWAY = (
    "name",
    "enabled",
    "namespace",
    "label.**",
    "k8s.resources.**",
    "k8s.service.ports",
    "k8s.service.type",
    "k8s.env",
)
_EFFECTIVE = (
    "profile",
    "meshConfig.accessLogFile",
    "meshConfig.accessLogFormat",
    "meshConfig.trustDomain",
    "meshConfig.trustDomainAliases",
    "meshConfig.extensionProviders",
    "meshConfig.outboundTrafficPolicy.mode",
    "meshConfig.connectTimeout",
    "meshConfig.localityLbSetting.**",
    "meshConfig.defaultConfig.concurrency",
    "meshConfig.defaultConfig.proxyMetadata.**",
    "meshConfig.h2UpgradePolicy",
    "meshConfig.dnsRefreshRate",
    "meshConfig.ingressClass",
    "meshConfig.ingressControllerMode",
    "meshConfig.ingressSelector",
    "meshConfig.lateen.**",
    "components.pilot.enabled",
    "components.pilot.k8s.resources.**",
    *(f"components.{kind}[].{field}" for kind in ("ingressGateways", "egressGateways") for field in _GATEWAY),
    *(f"values.{field}" for field in injection.EFFECTIVE),
)
VARIABLES = ("DEFAULT_WORKLOAD_CERT_TTL", "TRUST_DOMAIN", "PROXY_IMAGE", "ENABLE_NATIVE_SIDECARS")
"""istiod's environment variables that have an effect."""


def resolve(profile: str, overlays: list[Json], settings: list[str]) -> Operator:
    """A profile with IstioOperator documents and ``--set path=value`` on top. Raises ProfileError."""
    pairs = [_setting(s) for s in settings]
    name = next((str(v) for k, v in pairs if k == "profile"), None) or next(
        (str(o["spec"]["profile"]) for o in overlays if dig(o, "spec", "profile")), profile
    )
    if name not in PROFILES:
        raise ProfileError(f'there is no profile "{name}"; there are: {", ".join(sorted(PROFILES))}')
    spec = jsons.copy(PROFILES[name])
    ignored: list[str] = []
    for overlay in overlays:
        if overlay.get("apiVersion") != API_VERSION or overlay.get("kind") != "IstioOperator":
            raise ProfileError(
                f"expected apiVersion {API_VERSION}, kind IstioOperator; found "
                f"{overlay.get('apiVersion')}, {overlay.get('kind')}"
            )
        ignored += _ineffective(overlay.get("spec") or {}, "")
        spec = _merge(spec, overlay.get("spec") or {})
    for path, value in pairs:
        if path != "profile":
            nested: Any = value
            for part in reversed(path.removeprefix("spec.").split(".")):
                nested = {part: nested}
            ignored += _ineffective(nested, "")
            spec = _merge(spec, nested)
    return Operator(spec, name, ignored)


def _setting(text: str) -> tuple[str, Any]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise ProfileError(f"--set {text}: write it as path=value, as in --set profile=demo")
    literal: Any = {"true": True, "false": False}.get(value, int(value) if value.lstrip("-").isdigit() else value)
    return key, literal


def _merge(base: Any, over: Any) -> Any:
    """Maps are merged; lists of named things by name, other lists are replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{k: _merge(base.get(k), v) for k, v in over.items()}}
    if (
        isinstance(base, list)
        and isinstance(over, list)
        and all(isinstance(v, dict) and "name" in v for v in over)
        and all(isinstance(v, dict) and "name" in v for v in base)
        and base
        and "enabled" in base[0]
    ):
        given = {v["name"]: v for v in over}
        merged = [_merge(v, given.pop(v["name"], {})) for v in base]
        return merged + list(given.values())
    return over


def _ineffective(node: Any, path: str) -> list[str]:
    if isinstance(node, dict) and node:
        return [p for k, v in node.items() for p in _ineffective(v, f"{path}.{k}" if path else k)]
    if path.endswith(".autoscaleEnabled"):
        return [path] if node else []  # nothing is scaled by itself here, so only "true" has no effect
    if path in ("components.ingressGateways", "components.egressGateways") and isinstance(node, list):
        return [p for g in node for p in _ineffective(g, f"{path}[]")]
    if path == "components.pilot.k8s.env":
        return [f"{path}[{e['name']}]" for e in node or [] if e.get("name") not in VARIABLES]
    if any(path == e or (e.endswith(".**") and f"{path}.".startswith(e[:-2])) for e in _EFFECTIVE):
        return []
    return [path]
