"""Istio's annotations: whether they are known, on the right kind of object, and have valid values. The table lists
their names, the kinds that they belong on, and their stability."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from lateen.analysis.registry import analyzer
from lateen.analysis.snapshot import Message, Snapshot, Source, message
from lateen.api import kinds
from lateen.kit import duration, jsons
from lateen.kit.jsons import dig


class Known(NamedTuple):
    kinds: tuple[str, ...] = ("Pod",)
    alpha: bool = True
    deprecated: str | None = None


ANY = ("Any",)
_SIDECAR = [
    "agentLogLevel",
    "bootstrapOverride",
    "componentLogLevel",
    "enableCoreDump",
    "extraStatTags",
    "interceptionMode",
    "logLevel",
    "nativeSidecar",
    "proxyCPU",
    "proxyCPULimit",
    "proxyImage",
    "proxyImageType",
    "proxyMemory",
    "proxyMemoryLimit",
    "rewriteAppHTTPProbers",
    "statsCompression",
    "statsEvictionInterval",
    "statsFlushInterval",
    "statsHistogramBuckets",
    "status",
    "userVolume",
    "userVolumeMount",
]
_OLD = [
    "controlPlaneAuthPolicy",
    "discoveryAddress",
    "statsInclusionPrefixes",
    "statsInclusionRegexps",
    "statsInclusionSuffixes",
]
_TRAFFIC = [
    "excludeInboundPorts",
    "excludeInterfaces",
    "excludeOutboundIPRanges",
    "excludeOutboundPorts",
    "includeInboundPorts",
    "includeOutboundIPRanges",
    "includeOutboundPorts",
    "kubevirtInterfaces",
]

KNOWN: dict[str, Known] = {
    **{f"sidecar.istio.io/{n}": Known() for n in _SIDECAR},
    **{f"sidecar.istio.io/{n}": Known(deprecated="") for n in _OLD},
    **{f"traffic.sidecar.istio.io/{n}": Known() for n in _TRAFFIC},
    **{
        f"readiness.status.sidecar.istio.io/{n}": Known()
        for n in ("applicationPorts", "failureThreshold", "initialDelaySeconds", "periodSeconds")
    },
    **{f"install.operator.istio.io/{n}": Known(ANY) for n in ("chart-owner", "owner-generation", "version")},
    **{
        f"ambient.istio.io/{n}": Known(("Pod", "Namespace"), alpha=n != "redirection")
        for n in ("redirection", "dns-capture", "bypass-inbound-capture", "waypoint-inbound-binding")
    },
    **{
        f"gateway.istio.io/{n}": Known(("Gateway", "Service", "Deployment", "Pod"))
        for n in ("controller-version", "name-override", "service-account", "defaults-for-class", "tls-terminate-mode")
    },
    "sidecar.istio.io/inject": Known(alpha=False, deprecated=' in favor of the "sidecar.istio.io/inject" label'),
    "status.sidecar.istio.io/port": Known(),
    "inject.istio.io/templates": Known(),
    "proxy.istio.io/config": Known(alpha=False),
    "proxy.istio.io/overrides": Known(),
    "prometheus.istio.io/merge-metrics": Known(),
    "istio.io/rev": Known(alpha=False),
    "istio.io/workload-controller": Known(),
    "istio.io/reroute-virtual-interfaces": Known(),
    "istio.io/dry-run": Known(("AuthorizationPolicy",)),
    "galley.istio.io/analyze-suppress": Known(ANY, alpha=False),
    "networking.istio.io/exportTo": Known(("Service",)),
    "networking.istio.io/traffic-distribution": Known(("Service", "ServiceEntry", "Namespace")),
    "networking.istio.io/address-type": Known(("Gateway",)),
    "networking.istio.io/service-type": Known(("Gateway",)),
    "topology.istio.io/controlPlaneClusters": Known(("Namespace",)),
    "traffic.istio.io/nodeSelector": Known(("Service",)),
    "security.istio.io/autoMTLS": Known(("Pod",)),
    "alpha.istio.io/identity": Known(("Service",)),
    "alpha.istio.io/kubernetes-serviceaccounts": Known(("Service",)),
    "alpha.istio.io/canonical-serviceaccounts": Known(("Service",)),
    "lateen.dev/host-ports": Known(("Service",), alpha=False),
}
WRITTEN_BY_US = {"sidecar.istio.io/status", "sidecar.istio.io/interceptionMode", "istio.io/rev"}


def _annotated(snapshot: Snapshot) -> Iterator[tuple[Source, str, Mapping[str, str]]]:
    """(object, the kind that its annotations are for, annotations); a Deployment's pod template as well as itself."""
    for s in snapshot.all(kinds.NAMESPACE, kinds.SERVICE, kinds.POD, kinds.DEPLOYMENT):
        yield s, s.kind, s.annotations
        if s.id == kinds.DEPLOYMENT.id:
            yield s, kinds.POD.kind, dig(s.spec, "template", "metadata", "annotations", default={})


@analyzer("annotations.K8sAnalyzer", "Checks for misplaced and invalid Istio annotations in Kubernetes resources")
def known_and_placed(snapshot: Snapshot) -> Iterator[Message]:
    for s, kind, given in _annotated(snapshot):
        for name, value in given.items():
            if _ours(name):
                yield from _one(s, kind, name, str(value))


def _ours(name: str) -> bool:
    domain = name.partition("/")[0]
    return (domain == "istio.io" or domain.endswith(".istio.io")) and not domain.startswith(("operator.", "internal."))


def _one(s: Source, kind: str, name: str, value: str) -> Iterator[Message]:
    known = KNOWN.get(name)
    path = ("metadata", "annotations", name)
    if known is None:
        yield message("IST0108", s, name, path=path)
        return
    if known.deprecated is not None:
        yield message("IST0135", s, name, known.deprecated, path=path)
    if known.kinds == ANY:
        return
    if kind not in known.kinds:
        yield message("IST0107", s, name, ", ".join(known.kinds), path=path)
        return
    check = VALUES.get(name)
    try:
        if check:
            check(value)
    except ValueError as e:
        yield message("IST0125", s, name, str(e), path=path)


@analyzer("annotations.AlphaAnalyzer", "Checks for alpha Istio annotations in Kubernetes resources")
def alpha(snapshot: Snapshot) -> Iterator[Message]:
    for s, kind, given in _annotated(snapshot):
        if s.namespace == snapshot.root:
            continue
        for name in given:
            known = KNOWN.get(name)
            if known and known.alpha and name not in WRITTEN_BY_US and (kind in known.kinds or known.kinds == ANY):
                yield message("IST0136", s, name, path=("metadata", "annotations", name))


def _boolean(text: str) -> None:
    if text.lower() not in ("true", "false", "t", "f", "1", "0"):
        raise ValueError(f'"{text}" is neither true nor false')


def _ports(text: str) -> None:
    for part in filter(None, (p.strip() for p in text.split(","))):
        if part == "*":
            continue
        ends = part.split("-")
        if len(ends) > 2 or not all(e.isdigit() and 0 <= int(e) <= 65535 for e in ends):
            raise ValueError(f'"{part}" is not a port')


def _ranges(text: str) -> None:
    for part in filter(None, (p.strip() for p in text.split(","))):
        if part != "*":
            try:
                ipaddress.ip_network(part, strict=False)
            except ValueError:
                raise ValueError(f'"{part}" is not a CIDR range') from None


def _number(text: str) -> None:
    if not text.isdigit():
        raise ValueError(f'"{text}" is not a whole number')


def _json(text: str) -> None:
    try:
        jsons.loads(text)
    except ValueError:
        raise ValueError("is not JSON") from None


def _one_of(*allowed: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if text not in allowed:
            raise ValueError(f'"{text}" is not one of {", ".join(allowed)}')

    return check


def _duration(text: str) -> None:
    duration.nanoseconds(text)


VALUES: dict[str, Callable[[str], None]] = {
    "sidecar.istio.io/inject": _boolean,
    "sidecar.istio.io/rewriteAppHTTPProbers": _boolean,
    "sidecar.istio.io/enableCoreDump": _boolean,
    "sidecar.istio.io/nativeSidecar": _boolean,
    "prometheus.istio.io/merge-metrics": _boolean,
    "sidecar.istio.io/interceptionMode": _one_of("REDIRECT", "TPROXY", "NONE"),
    "sidecar.istio.io/userVolume": _json,
    "sidecar.istio.io/userVolumeMount": _json,
    "sidecar.istio.io/statsHistogramBuckets": _json,
    "sidecar.istio.io/statsFlushInterval": _duration,
    "sidecar.istio.io/statsEvictionInterval": _duration,
    "status.sidecar.istio.io/port": _ports,
    "readiness.status.sidecar.istio.io/initialDelaySeconds": _number,
    "readiness.status.sidecar.istio.io/periodSeconds": _number,
    "readiness.status.sidecar.istio.io/failureThreshold": _number,
    "readiness.status.sidecar.istio.io/applicationPorts": _ports,
    "traffic.sidecar.istio.io/includeOutboundIPRanges": _ranges,
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": _ranges,
    "traffic.sidecar.istio.io/includeInboundPorts": _ports,
    "traffic.sidecar.istio.io/excludeInboundPorts": _ports,
    "traffic.sidecar.istio.io/includeOutboundPorts": _ports,
    "traffic.sidecar.istio.io/excludeOutboundPorts": _ports,
}
