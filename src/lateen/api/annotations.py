"""Istio's annotations: what each does, which kinds may carry it, and which of its values are invalid. Pure; the
injection webhook, ``kube-inject`` and ``analyze`` use the same functions, and docs/ has the table.

Source: https://istio.io/latest/docs/reference/config/annotations/
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lateen.api import annotation_values as values
from lateen.api.effective import general, leaves
from lateen.api.mesh import ProxyConfig, effect
from lateen.api.mesh.reading import canonical, proxy_config_problems
from lateen.kit import yamldoc

PROXY_CONFIG = "proxy.istio.io/config"
PROBERS = "sidecar.istio.io/rewriteAppHTTPProbers"
BEFORE_PROXY = "sidecar.istio.io/init-containers-before-proxy"
ANY = "any object"
_SERVICE = ("Service",)
_GATEWAY = ("Gateway",)
_OF_GATEWAYS = ("Gateway", "Service", "Deployment", "Pod")
TAP_BODIES = "lateen.dev/tap-bodies"
"""Ours: the proxy of a pod where it is "true" gets Envoy's tap filter, without draining anything; it does nothing until
the agent asks for bodies. Each command that looks at bodies has an annotation ``TAP_BODIES.<its id>`` of its own, whose
value it changes every ``TAP_RENEW_S`` seconds; istiod (``control.tapped``) ignores those that have not changed for
``TAP_LASTS_S`` seconds, so that one whose command was killed has no effect."""
TAP_RENEW_S, TAP_LASTS_S = 20.0, 60.0
INGRESS_CLASS = "kubernetes.io/ingress.class"
"""Not an ``istio.io`` annotation, but read by Istio's ingress controller."""


class Problem(NamedTuple):
    """``error``: the pod is rejected; otherwise it is created, with a warning."""

    annotation: str
    says: str
    error: bool

    def __str__(self) -> str:
        return f"annotation {self.annotation}: {self.says}"


class Annotation(NamedTuple):
    idle: str = ""
    """Why it has no effect; empty if it has one."""
    check: Callable[[str], None] | None = None
    """Raises ValueError for an invalid value; the pod is then rejected."""
    tell: Callable[[str], str] | None = None
    """A caveat about a value; empty if there is none."""
    on: tuple[str, ...] = ("Pod",)
    """Kinds of objects that may carry it."""
    alpha: bool = True
    """Whether Istio calls the feature alpha."""
    deprecated: bool = False


_STATS = "unused statistics are kept until the proxy exits"
_GONE = "Istio has removed it"
_AMBIENT = "ambient mode is not implemented"
_OTHERWISE = "not implemented for Gateways of the Gateway API yet"
_LOG_LEVEL = values.one_of("trace", "debug", "info", "warning", "error", "critical", "off")
_SECONDS = Annotation(check=values.count)
_RESOURCE = Annotation(check=values.quantity)
_ENTRY = Annotation(on=("WorkloadEntry",))
"""Written by istiod."""

KNOWN: dict[str, Annotation] = {
    "inject.istio.io/templates": Annotation(check=values.names, tell=values.about_templates),
    "istio.io/reroute-virtual-interfaces": Annotation(check=values.interfaces),
    "istio.io/rev": Annotation(),
    "prometheus.istio.io/merge-metrics": Annotation(check=values.truth),
    "prometheus.istio.io/scrape-targets": Annotation(check=values.targets),
    PROXY_CONFIG: Annotation(alpha=False),
    "proxy.istio.io/overrides": Annotation(),
    "readiness.status.sidecar.istio.io/applicationPorts": Annotation(_GONE, values.ports),
    "readiness.status.sidecar.istio.io/failureThreshold": _SECONDS,
    "readiness.status.sidecar.istio.io/initialDelaySeconds": _SECONDS,
    "readiness.status.sidecar.istio.io/periodSeconds": _SECONDS,
    "sidecar.istio.io/agentLogLevel": Annotation(check=values.scope_levels),
    "sidecar.istio.io/bootstrapOverride": Annotation(check=values.config_map),
    "sidecar.istio.io/capNetBindService": Annotation(check=values.truth),
    "sidecar.istio.io/componentLogLevel": Annotation(check=values.component_levels),
    "sidecar.istio.io/discoveryAddress": Annotation("proxies connect to the istiod of their revision", deprecated=True),
    "sidecar.istio.io/enableCoreDump": Annotation(check=values.truth, tell=values.about_core_dumps),
    "sidecar.istio.io/extraStatTags": Annotation("metrics have Istio's standard labels", deprecated=True),
    BEFORE_PROXY: Annotation(check=values.names),
    "sidecar.istio.io/inject": Annotation(tell=values.about_injection, alpha=False, deprecated=True),
    "sidecar.istio.io/interceptionMode": Annotation(
        check=values.one_of("REDIRECT", "TPROXY", "NONE"), tell=values.about_interception
    ),
    "sidecar.istio.io/logLevel": Annotation(check=_LOG_LEVEL),
    "sidecar.istio.io/nativeSidecar": Annotation(check=values.truth),
    "sidecar.istio.io/proxyCPU": _RESOURCE,
    "sidecar.istio.io/proxyCPULimit": _RESOURCE,
    "sidecar.istio.io/proxyImage": Annotation(check=values.image, tell=values.about_image),
    "sidecar.istio.io/proxyImageType": Annotation(check=values.image_type, tell=values.about_image_type),
    "sidecar.istio.io/proxyMemory": _RESOURCE,
    "sidecar.istio.io/proxyMemoryLimit": _RESOURCE,
    PROBERS: Annotation(check=values.truth),
    "sidecar.istio.io/statsCompression": Annotation("statistics are not compressed"),
    "sidecar.istio.io/statsEvictionInterval": Annotation(_STATS),
    "sidecar.istio.io/statsFlushInterval": Annotation(check=values.interval),
    "sidecar.istio.io/statsHistogramBins": Annotation("Envoy's default of 100 is used"),
    "sidecar.istio.io/statsHistogramBuckets": Annotation(check=values.buckets),
    "sidecar.istio.io/statsInclusionPrefixes": Annotation(deprecated=True),
    "sidecar.istio.io/statsInclusionRegexps": Annotation(check=values.regexes, deprecated=True),
    "sidecar.istio.io/statsInclusionSuffixes": Annotation(deprecated=True),
    "sidecar.istio.io/status": Annotation(),
    "sidecar.istio.io/userVolume": Annotation(check=values.volumes),
    "sidecar.istio.io/userVolumeMount": Annotation(check=values.mounts),
    "status.sidecar.istio.io/port": Annotation(check=values.port),
    "traffic.sidecar.istio.io/excludeInboundPorts": Annotation(check=values.ports),
    "traffic.sidecar.istio.io/excludeInterfaces": Annotation(check=values.interfaces),
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": Annotation(check=values.ranges),
    "traffic.sidecar.istio.io/excludeOutboundPorts": Annotation(check=values.ports),
    "traffic.sidecar.istio.io/includeInboundPorts": Annotation(check=values.ports_or_all),
    "traffic.sidecar.istio.io/includeOutboundIPRanges": Annotation(check=values.ranges_or_all),
    "traffic.sidecar.istio.io/includeOutboundPorts": Annotation(check=values.ports_or_all),
    "traffic.sidecar.istio.io/kubevirtInterfaces": Annotation(check=values.interfaces),
    "istio.io/autoRegistrationGroup": _ENTRY,
    "istio.io/connectedAt": _ENTRY,
    "istio.io/disconnectedAt": _ENTRY,
    "istio.io/workloadController": _ENTRY,
    "ambient.istio.io/bypass-inbound-capture": Annotation(_AMBIENT),
    "ambient.istio.io/dns-capture": Annotation(_AMBIENT),
    "ambient.istio.io/redirection": Annotation(_AMBIENT, alpha=False),
    "istio.io/use-waypoint-canary-weight": Annotation(_AMBIENT, on=("Namespace", "Service", "ServiceEntry")),
    "ambient.istio.io/xfcc-include-client-identity": Annotation(_AMBIENT, on=("GatewayClass", "Gateway")),
    "ambient.istio.io/waypoint-inbound-binding": Annotation(_AMBIENT, on=("GatewayClass", "Gateway")),
    "galley.istio.io/analyze-suppress": Annotation(on=(ANY,)),
    INGRESS_CLASS: Annotation(on=("Ingress",), alpha=False),
    "istio.io/dry-run": Annotation(on=("AuthorizationPolicy",)),
    "istio.io/connect-strategy": Annotation("connections are spread over the addresses", on=("ServiceEntry",)),
    "networking.istio.io/exportTo": Annotation(on=_SERVICE),
    "networking.istio.io/traffic-distribution": Annotation(on=("Service", "ServiceEntry", "Namespace")),
    "networking.istio.io/address-type": Annotation(_OTHERWISE, on=_GATEWAY),
    "networking.istio.io/service-type": Annotation(on=_GATEWAY),
    "alpha.istio.io/canonical-serviceaccounts": Annotation(_GONE, on=_SERVICE, deprecated=True),
    "alpha.istio.io/kubernetes-serviceaccounts": Annotation(_GONE, on=_SERVICE, deprecated=True),
    "gateway.istio.io/controller-version": Annotation(_OTHERWISE, on=(ANY,)),
    "gateway.istio.io/defaults-for-class": Annotation("it is a label of ConfigMaps", on=_OF_GATEWAYS),
    "gateway.istio.io/name-override": Annotation(on=_OF_GATEWAYS),
    "gateway.istio.io/service-account": Annotation(on=_OF_GATEWAYS),
    "gateway.istio.io/tls-terminate-mode": Annotation("it is an option of listeners (tls.options)", on=_OF_GATEWAYS),
    "topology.istio.io/controlPlaneClusters": Annotation(on=("Namespace",)),
    "traffic.istio.io/nodeSelector": Annotation(
        "gateways to other networks have load balancers", on=_SERVICE, alpha=False
    ),
}
"""A test checks that every annotation of a pod without ``idle`` changes the injected pod."""


def problems(annotations: Mapping[str, Any]) -> list[Problem]:
    """Problems with a pod's annotations, and those without an effect, by name. Annotations outside of istio.io are
    ignored."""
    out = []
    for name, value in annotations.items():
        if not is_istio(name):
            continue
        known = KNOWN.get(name)
        if known is None:
            near = difflib.get_close_matches(name, list(KNOWN), 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            out.append(Problem(name, f"Istio has no such annotation{hint}", False))
        elif name == PROXY_CONFIG:
            out += _proxy_config(str(value))
        else:
            out += _one(name, known, str(value))
    return out


def is_istio(name: str) -> bool:
    """Whether an annotation is one of Istio's, or looks like one. Those of Istio's operator are not for users."""
    domain = name.partition("/")[0]
    ours = domain == "istio.io" or domain.endswith(".istio.io") or name == INGRESS_CLASS
    return ours and not domain.startswith(("operator.", "install.operator.", "internal."))


def _one(name: str, known: Annotation, value: str) -> list[Problem]:
    try:
        if known.check:
            known.check(value)
    except ValueError as e:
        return [Problem(name, str(e), True)]
    if "Pod" in known.on and known.idle:
        return [Problem(name, f"it has no effect in this version of Lateen: {known.idle}", False)]
    said = telling(name, value)
    return [Problem(name, said, False)] if said else []


def telling(name: str, value: str) -> str:
    """A caveat about the value of an annotation, or of the label of that name; empty if there is none."""
    tell = KNOWN[name].tell
    return tell(value) if tell else ""


def _proxy_config(text: str) -> list[Problem]:
    """Unknown fields and invalid values reject the pod; known fields without an effect are warned about."""
    try:
        value = yamldoc.load(text)
    except yamldoc.YamlError as e:
        return [Problem(PROXY_CONFIG, f"it cannot be read: {e}", True)]
    if found := proxy_config_problems(value, ""):
        return [Problem(PROXY_CONFIG, str(p), True) for p in found]
    out = []
    for path, leaf in leaves(ProxyConfig, canonical(ProxyConfig, value, "")):
        form = f"defaultConfig.{general(path)}"
        why = effect.reason(form) or effect.variable(f"defaultConfig.{path}")
        if why is not None and leaf not in effect.SAME.get(form, ()):
            out.append(Problem(PROXY_CONFIG, f"{path} has no effect in this version of Lateen: {why}", False))
        elif (says := effect.weaker(form, leaf)) is not None:
            out.append(Problem(PROXY_CONFIG, f"{path}: {says}", False))
    return out
