"""An installation's settings for proxies: Istio's Helm values, the mesh configuration, and the injector's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lateen import __version__
from lateen.api import reading
from lateen.api.domain import CLUSTER_DOMAIN, TRUST_DOMAIN
from lateen.api.values import overlay
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig
from lateen.wire import ports

DEFAULTS: Json = {
    "global": {
        "hub": "docker.io/lateen",
        "tag": __version__,
        "istioNamespace": "istio-system",
        "imagePullPolicy": "",
        "imagePullSecrets": [],
        "logging": {"level": "default:info"},
        "logAsJson": False,
        "network": "",
        "meshID": "",
        "multiCluster": {"clusterName": ""},
        "caAddress": "",
        "proxy": {
            "image": "proxyv2",
            "clusterDomain": CLUSTER_DOMAIN,
            "logLevel": "warning",
            "componentLogLevel": "misc:error",
            "privileged": False,
            "enableCoreDump": False,
            "statusPort": ports.MERGED_METRICS,
            "readinessInitialDelaySeconds": 0,
            "readinessPeriodSeconds": 15,
            "readinessFailureThreshold": 4,
            "startupProbe": {"enabled": True, "failureThreshold": 600},
            "includeIPRanges": "*",
            "excludeIPRanges": "",
            "includeInboundPorts": "*",
            "excludeInboundPorts": "",
            "includeOutboundPorts": "",
            "excludeOutboundPorts": "",
            "holdApplicationUntilProxyStarts": False,
            "autoInject": "enabled",
            "lifecycle": {},
            "resources": {
                "requests": {"cpu": "100m", "memory": "128Mi"},
                "limits": {"cpu": "2", "memory": "1Gi"},
            },
        },
    },
    "sidecarInjectorWebhook": {
        "rewriteAppHTTPProbe": True,
        "neverInjectSelector": [],
        "alwaysInjectSelector": [],
        "injectedAnnotations": {},
        "defaultTemplates": [],
        "templates": {},
        "aliases": {},
    },
    "pilot": {"cni": {"enabled": False, "provider": "default"}},
}
"""Default values of Istio's chart ``istio-discovery``; a resource may be null, which removes its default."""
EFFECTIVE = (
    "global.hub",
    "global.tag",
    "global.imagePullPolicy",
    "global.imagePullSecrets",
    "global.logging.level",
    "global.logAsJson",
    "global.network",
    "global.meshID",
    "global.multiCluster.clusterName",
    "global.caAddress",
    *(f"global.proxy.{name}" for name in DEFAULTS["global"]["proxy"] if name not in ("lifecycle", "resources")),
    "global.proxy.startupProbe.**",
    "global.proxy.lifecycle.**",
    "global.proxy.resources.**",
    "global.proxy.capNetBindService",
    "global.proxy.outlierLogPath",
    "global.proxy.seccompProfile.**",
    "global.proxy_init.image",
    "global.proxy_init.forceApplyIptables",
    "gateways.securityContext.**",
    "gateways.seccompProfile.**",
    *(f"sidecarInjectorWebhook.{name}" for name in DEFAULTS["sidecarInjectorWebhook"]),
    *(f"sidecarInjectorWebhook.{name}.**" for name in ("injectedAnnotations", "templates", "aliases")),
    *(f"sidecarInjectorWebhook.{name}[].**" for name in ("neverInjectSelector", "alwaysInjectSelector")),
    "pilot.cni.enabled",
    "pilot.cni.provider",
)
"""Paths of the installation's values that have an effect on injected pods."""


@dataclass(frozen=True)
class Settings:
    """``values`` and ``mesh`` are complete, with every default filled in."""

    values: Json = field(default_factory=lambda: jsons.copy(DEFAULTS))
    mesh: Json = field(default_factory=dict)
    """The mesh configuration as the user wrote it."""
    revision: str = "default"
    native: bool = False
    """Whether proxies are native sidecars unless the pod says otherwise."""
    native_supported: bool = True
    """Whether every node in the cluster can run them."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for the proxy's container, from the path of the webhook's URL."""
    proxy_config: Json | None = None
    """The workload's ProxyConfig if it differs from the mesh's ``defaultConfig``, without the pod's annotation."""
    image_type: str = ""
    uid: int = ports.PROXY_UID
    gid: int = ports.PROXY_UID
    image: str = ""
    """The proxy's image, if it is not built from ``values.global`` (hub, proxy.image, tag)."""

    def proxy(self, name: str) -> Any:
        return dig(self.values, "global", "proxy", name)

    def of_global(self, *path: str) -> Any:
        return dig(self.values, "global", *path)

    @property
    def injector(self) -> Json:
        return dict(self.values.get("sidecarInjectorWebhook") or {})

    @property
    def policy(self) -> str:
        return str(self.proxy("autoInject") or "enabled")

    @property
    def never_inject(self) -> list[Json]:
        return list(self.injector.get("neverInjectSelector") or [])

    @property
    def always_inject(self) -> list[Json]:
        return list(self.injector.get("alwaysInjectSelector") or [])

    @property
    def templates(self) -> Mapping[str, str]:
        """The user's own templates (Go templates) by name."""
        return dict(self.injector.get("templates") or {})

    @property
    def cni(self) -> bool:
        return bool(dig(self.values, "pilot", "cni", "enabled") or dig(self.values, "istio_cni", "enabled"))

    @property
    def multus(self) -> bool:
        chained = dig(self.values, "istio_cni", "chained", default=True)
        return dig(self.values, "pilot", "cni", "provider") == "multus" or not chained

    @property
    def default_config(self) -> Json:
        return self.mesh.get("defaultConfig") or {} if self.proxy_config is None else self.proxy_config

    @property
    def cluster_domain(self) -> str:
        return reading.cluster_domain(self.values)

    @property
    def cluster_name(self) -> str:
        return reading.cluster_name(self.values)

    @property
    def trust_domain(self) -> str:
        return str(self.mesh.get("trustDomain") or self.of_global("trustDomain") or TRUST_DOMAIN)

    @property
    def status_port(self) -> int:
        """The port that the mesh's agents listen on."""
        return int(dig(self.mesh, "defaultConfig", "statusPort", default=ports.MERGED_METRICS))

    @property
    def istiod(self) -> str:
        if address := self.of_global("caAddress"):
            return str(address)
        suffix = "" if self.revision in ("", "default") else f"-{self.revision}"
        return f"istiod{suffix}.{self.of_global('istioNamespace')}.svc:{ports.XDS}"


def settings(values: Json | None = None, mesh: Json | None = None, **more: Any) -> Settings:
    """The defaults overridden by the installation's ``values``. Null removes a default."""
    return replace(Settings(), values=overlay(DEFAULTS, values or {}), mesh=mesh or {}, **more)


NATIVE_SINCE, NATIVE_POSSIBLE = (1, 33), (1, 29)
"""The Kubernetes version in which native sidecars became stable, so that Istio uses them by default; and the one since
which they exist (KEP-753), so that a pod can ask for one."""


def native_nodes(kubelets: list[str], since: tuple[int, int] = NATIVE_SINCE) -> bool:
    """Whether all nodes have at least that version, given the kubelets' versions (``v1.33.2+k3s1``)."""
    found = [re.match(r"v?(\d+)\.(\d+)", v) for v in kubelets]
    return bool(found) and all(m is not None and (int(m[1]), int(m[2])) >= since for m in found)
