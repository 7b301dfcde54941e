"""Which pods are redirected, and how, according to the annotations written by injection. Pure.

The conditions are those of Istio's plugin (cni/pkg/plugin): a pod that injection has passed over, or that has
``istio-init``, is left alone.
"""

from __future__ import annotations

from lateen.agent import capture
from lateen.agent.rules import Capture
from lateen.kit.jsons import Json, dig
from lateen.wire import ports

PROXY, INIT = "istio-proxy", "istio-init"
_TRAFFIC = "traffic.sidecar.istio.io/"
_FLAGS = {
    "-i": ("includeOutboundIPRanges", "*"),
    "-x": ("excludeOutboundIPRanges", ""),
    "-b": ("includeInboundPorts", "*"),
    "-d": ("excludeInboundPorts", ""),
    "-o": ("excludeOutboundPorts", ""),
    "-q": ("includeOutboundPorts", ""),
    "-k": ("kubevirtInterfaces", ""),
    "-c": ("excludeInterfaces", ""),
}
"""Flag of istio-iptables -> annotation and default."""


class Invalid(ValueError):
    """An annotation has an invalid value; the message names it."""


def passed_over(pod: Json) -> str:
    """Why a pod is not redirected; empty if it is."""
    spec, annotations = pod.get("spec") or {}, dig(pod, "metadata", "annotations", default={})
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    names = {c.get("name") for c in containers}
    if PROXY not in names:
        return "it has no sidecar"
    if INIT in names:
        return "istio-init redirects it"
    if spec.get("hostNetwork"):
        return "it has the node's network"
    if str(annotations.get("sidecar.istio.io/inject", "true")).lower() == "false":
        return "injection is off for it"
    if "sidecar.istio.io/status" not in annotations:
        return "it was not injected"
    if annotations.get("sidecar.istio.io/interceptionMode") == "NONE":
        return "its interception mode is NONE"
    return ""


def of(pod: Json, mark: int | None = None) -> Capture:
    """``mark``: that of the proxies' sockets, where their user does not tell them. Raises Invalid."""
    annotations = dig(pod, "metadata", "annotations", default={})
    security = dig(_proxy(pod), "securityContext", default={})
    arguments = ["-p", str(ports.OUTBOUND), "-z", str(ports.INBOUND)]
    arguments += ["-u", str(security.get("runAsUser") or ports.PROXY_UID)]
    arguments += ["-m", str(annotations.get("sidecar.istio.io/interceptionMode") or "REDIRECT")]
    for flag, (name, default) in _FLAGS.items():
        given = str(annotations.get(_TRAFFIC + name, default))
        if flag == "-d":  # the proxy's own ports, whatever the annotation says
            given = ",".join(filter(None, [given, *map(str, ports.EXCLUDED_INBOUND)]))
        arguments += [flag, given]
    try:
        return capture.parse(arguments, mark, _captures_dns(pod))
    except ValueError as e:
        raise Invalid(f"the pod's annotations are invalid: {e}") from e


def _proxy(pod: Json) -> Json:
    spec = pod.get("spec") or {}
    both = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    return next((c for c in both if c.get("name") == PROXY), {})


def _captures_dns(pod: Json) -> bool:
    given = {str(e.get("name")): e.get("value") for e in _proxy(pod).get("env") or []}
    return given.get("ISTIO_META_DNS_CAPTURE") == "true"
