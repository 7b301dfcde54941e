"""Istio's annotations: what each does, which kinds may carry it, and which of its values are invalid. Pure; the
injection webhook, ``kube-inject`` and ``analyze`` use the same functions, and docs/ has the table.

Source: https://istio.io/latest/docs/reference/config/annotations/
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lateen.api.effective import general, leaves
from lateen.api.mesh import ProxyConfig, effect
from lateen.api.mesh.reading import canonical, proxy_config_problems
from lateen.kit import duration, jsons, regex, yamldoc
from lateen.kit.booleans import boolean
from lateen.kit.digits import digits

_QUANTITY = re.compile(r"[+-]?\d+(\.\d+)?([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?$")
_IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$")
_LEVELS = ("trace", "debug", "info", "warning", "warn", "error", "critical", "off")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_INTERFACE = re.compile(r"[^\s/,]{1,15}$")
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


def _is_number(text: str) -> bool:
    """ASCII digits only: the text becomes an argument of iptables."""
    return digits(text)


def _port(text: str, what: str = "a port") -> None:
    if not _is_number(text.strip()) or int(text) > 65535:
        raise ValueError(f'"{text}" is not {what} (0 to 65535)')


def _ports(text: str) -> None:
    for part in text.split(",") if text.strip() else ():
        _port(part.strip(), "a port; write ports separated by commas")


def _ports_or_all(text: str) -> None:
    if text != "*":
        _ports(text)


def _ranges(text: str) -> None:
    for part in text.split(",") if text else ():
        try:
            _, slash, length = part.strip().partition("/")
            if not slash or not _is_number(length):
                raise ValueError
            ipaddress.ip_network(part.strip(), strict=False)
        except ValueError:
            raise ValueError(f'"{part}" is not a range of addresses such as 10.0.0.0/8') from None


def _ranges_or_all(text: str) -> None:
    if text != "*":
        _ranges(text)


def _count(text: str) -> None:
    if not _is_number(text) or int(text) >= 2**31:
        raise ValueError(f'"{text}" is not a number of seconds or times')


def _bool(text: str) -> None:
    boolean(text)


def _quantity(text: str) -> None:
    if not _QUANTITY.match(text):
        raise ValueError(f'"{text}" is not a quantity such as 100m or 128Mi')


def _image(text: str) -> None:
    if not _IMAGE.match(text):
        raise ValueError(f'"{text}" is not the name of an image')


def _one_of(*known: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if text not in known:
            near = difflib.get_close_matches(text, known, 1) or difflib.get_close_matches(text.upper(), known, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise ValueError(f'"{text}" is not {" or ".join(known)}{hint}')

    return check


def _components(text: str) -> None:
    for part in filter(None, text.split(",")):
        name, found, level = part.partition(":")
        if not found or not name.strip() or level.strip() not in _LEVELS:
            raise ValueError(f'"{part}" is not component:level, as in misc:error')


def _scopes(text: str) -> None:
    levels = ("debug", "info", "warn", "warning", "error", "fatal", "none")
    for part in filter(None, text.split(",")):
        if part.rpartition(":")[2].strip() not in levels:
            raise ValueError(f'"{part}" is not scope:level; levels are {", ".join(levels)}')


def _interfaces(text: str) -> None:
    for part in filter(None, text.split(",")):
        if not _INTERFACE.match(part.strip()):
            raise ValueError(f'"{part}" is not the name of a network interface')


def _volumes(text: str) -> None:
    try:
        found = jsons.loads(text)
    except ValueError as e:
        raise ValueError(f"it is not JSON: {e}") from None
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise ValueError('expected an object that maps volume names to volumes, as in {"cache": {"emptyDir": {}}}')


def _mounts(text: str) -> None:
    _volumes(text)
    for name, mount in jsons.loads(text).items():
        if not isinstance(mount.get("mountPath"), str):
            raise ValueError(f'"{name}" needs a mountPath')


def _targets(text: str) -> None:
    for part in filter(None, (p.strip() for p in text.split(","))):
        port, _, path = part.partition(":")
        if not _is_number(port) or not 0 < int(port) < 65536 or not path.startswith("/"):
            raise ValueError(f'"{part}" is not port:/path')


def _interval(text: str) -> None:
    if duration.nanoseconds(text) < 10**6:
        raise ValueError(f'"{text}" is shorter than 1ms')


def _buckets(text: str) -> None:
    try:
        found = jsons.loads(text)
    except ValueError as e:
        raise ValueError(f"it is not JSON: {e}") from None
    lists = list(found.values()) if isinstance(found, dict) else [()]
    for given in lists:
        numbers = isinstance(given, list) and given and all(isinstance(x, int | float) and x > 0 for x in given)
        if not numbers or sorted(set(given)) != given:
            raise ValueError(
                'expected an object that maps name prefixes to ascending numbers, as in {"istiocustom": [1, 5, 10]}'
            )


def _regexes(text: str) -> None:
    for pattern in text.split(","):
        regex.compiled(pattern)


def _names(text: str) -> None:
    if not all(re.match(r"[\w.-]+$", n.strip()) for n in text.split(",")):
        raise ValueError(f'"{text}" is not a list of names separated by commas')


def _config_map(text: str) -> None:
    if len(text) > 253 or not all(map(_LABEL.match, text.split("."))):
        raise ValueError(f'"{text}" is not the name of a ConfigMap')


def _mode(text: str) -> str:
    return {
        "NONE": "no traffic is redirected: services are at 127.0.0.1 (without IPv4: ::1) and their ports; only an "
        "ingress listener of a Sidecar has the application served by the mesh",
    }.get(text, "")


def _inject(text: str) -> str:
    if text in ("true", "false", ""):
        return ""
    return f'"{text}" is neither "true" nor "false", so the namespace\'s and the installation\'s settings decide'


def _core_dump(text: str) -> str:
    return (
        "it sets the node's kernel.core_pattern, so privileged containers must be allowed for the pod"
        if (text == "true")
        else ""
    )


def _proxy_image(text: str) -> str:
    return "" if "/" in text else "an image without a registry is ignored; write the full reference"


def _grpc_simple(text: str) -> str:
    simple = "grpc-simple" in [n.strip() for n in text.split(",")]
    return (
        "with grpc-simple, the certificate expires after a day and is not renewed; use grpc-agent, which renews it"
        if simple
        else ""
    )


_STATS = "unused statistics are kept until the proxy exits"
_GONE = "Istio has removed it"
_AMBIENT = "ambient mode is not implemented"
_OTHERWISE = "not implemented for Gateways of the Gateway API yet"
_LOG_LEVEL = _one_of("trace", "debug", "info", "warning", "error", "critical", "off")
_SECONDS = Annotation(check=_count)
_RESOURCE = Annotation(check=_quantity)
_ENTRY = Annotation(on=("WorkloadEntry",))
"""Written by istiod."""

KNOWN: dict[str, Annotation] = {
    "inject.istio.io/templates": Annotation(check=_names, tell=_grpc_simple),
    "istio.io/reroute-virtual-interfaces": Annotation(check=_interfaces),
    "istio.io/rev": Annotation(),
    "prometheus.istio.io/merge-metrics": Annotation(check=_bool),
    "prometheus.istio.io/scrape-targets": Annotation(check=_targets),
    PROXY_CONFIG: Annotation(alpha=False),
    "proxy.istio.io/overrides": Annotation(),
    "readiness.status.sidecar.istio.io/applicationPorts": Annotation(_GONE, _ports),
    "readiness.status.sidecar.istio.io/failureThreshold": _SECONDS,
    "readiness.status.sidecar.istio.io/initialDelaySeconds": _SECONDS,
    "readiness.status.sidecar.istio.io/periodSeconds": _SECONDS,
    "sidecar.istio.io/agentLogLevel": Annotation(check=_scopes),
    "sidecar.istio.io/bootstrapOverride": Annotation(check=_config_map),
    "sidecar.istio.io/capNetBindService": Annotation(check=_bool),
    "sidecar.istio.io/componentLogLevel": Annotation(check=_components),
    "sidecar.istio.io/discoveryAddress": Annotation("proxies connect to the istiod of their revision", deprecated=True),
    "sidecar.istio.io/enableCoreDump": Annotation(check=_bool, tell=_core_dump),
    "sidecar.istio.io/extraStatTags": Annotation("metrics have Istio's standard labels", deprecated=True),
    BEFORE_PROXY: Annotation(check=_names),
    "sidecar.istio.io/inject": Annotation(tell=_inject, alpha=False, deprecated=True),
    "sidecar.istio.io/interceptionMode": Annotation(check=_one_of("REDIRECT", "TPROXY", "NONE"), tell=_mode),
    "sidecar.istio.io/logLevel": Annotation(check=_LOG_LEVEL),
    "sidecar.istio.io/nativeSidecar": Annotation(check=_bool),
    "sidecar.istio.io/proxyCPU": _RESOURCE,
    "sidecar.istio.io/proxyCPULimit": _RESOURCE,
    "sidecar.istio.io/proxyImage": Annotation(check=_image, tell=_proxy_image),
    "sidecar.istio.io/proxyImageType": Annotation(check=_one_of("default", "debug", "distroless")),
    "sidecar.istio.io/proxyMemory": _RESOURCE,
    "sidecar.istio.io/proxyMemoryLimit": _RESOURCE,
    PROBERS: Annotation(check=_bool),
    "sidecar.istio.io/statsCompression": Annotation("statistics are not compressed"),
    "sidecar.istio.io/statsEvictionInterval": Annotation(_STATS),
    "sidecar.istio.io/statsFlushInterval": Annotation(check=_interval),
    "sidecar.istio.io/statsHistogramBins": Annotation("Envoy's default of 100 is used"),
    "sidecar.istio.io/statsHistogramBuckets": Annotation(check=_buckets),
    "sidecar.istio.io/statsInclusionPrefixes": Annotation(deprecated=True),
    "sidecar.istio.io/statsInclusionRegexps": Annotation(check=_regexes, deprecated=True),
    "sidecar.istio.io/statsInclusionSuffixes": Annotation(deprecated=True),
    "sidecar.istio.io/status": Annotation(),
    "sidecar.istio.io/userVolume": Annotation(check=_volumes),
    "sidecar.istio.io/userVolumeMount": Annotation(check=_mounts),
    "status.sidecar.istio.io/port": Annotation(check=_port),
    "traffic.sidecar.istio.io/excludeInboundPorts": Annotation(check=_ports),
    "traffic.sidecar.istio.io/excludeInterfaces": Annotation(check=_interfaces),
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": Annotation(check=_ranges),
    "traffic.sidecar.istio.io/excludeOutboundPorts": Annotation(check=_ports),
    "traffic.sidecar.istio.io/includeInboundPorts": Annotation(check=_ports_or_all),
    "traffic.sidecar.istio.io/includeOutboundIPRanges": Annotation(check=_ranges_or_all),
    "traffic.sidecar.istio.io/includeOutboundPorts": Annotation(check=_ports_or_all),
    "traffic.sidecar.istio.io/kubevirtInterfaces": Annotation(check=_interfaces),
    "istio.io/autoRegistrationGroup": _ENTRY,
    "istio.io/connectedAt": _ENTRY,
    "istio.io/disconnectedAt": _ENTRY,
    "istio.io/workloadController": _ENTRY,
    "ambient.istio.io/bypass-inbound-capture": Annotation(_AMBIENT),
    "ambient.istio.io/dns-capture": Annotation(_AMBIENT),
    "ambient.istio.io/redirection": Annotation(_AMBIENT, alpha=False),
    "istio.io/use-waypoint-canary-weight": Annotation(_AMBIENT, on=("Namespace", "Service", "ServiceEntry")),
    "ambient.istio.io/waypoint-inbound-binding": Annotation(_AMBIENT, on=("GatewayClass", "Gateway")),
    "galley.istio.io/analyze-suppress": Annotation(on=(ANY,)),
    INGRESS_CLASS: Annotation(on=("Ingress",), alpha=False),
    "istio.io/dry-run": Annotation(on=("AuthorizationPolicy",)),
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
