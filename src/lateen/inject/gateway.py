"""The template ``gateway``: a proxy that is the pod's main container, without redirection."""

from __future__ import annotations

from lateen.inject import environment, parts, volumes
from lateen.inject.context import PROXY, Context
from lateen.kit import jsons
from lateen.kit.jsons import Json
from lateen.wire import ports


def template(c: Context) -> Json:
    """The template as a partial pod. The proxy may bind every port of its pod, including those below 1024."""
    annotations: Json = {"istio.io/rev": c.settings.revision or "default"}
    if len(c.applications) == 1:
        annotations |= {
            k: v
            for k in ("kubectl.kubernetes.io/default-logs-container", "kubectl.kubernetes.io/default-container")
            if (v := c.annotations.get(k, c.applications[0]))
        }
    spec = {
        "securityContext": _security(c),
        "containers": [_proxy(c)],
        "volumes": volumes.volumes(),
        **parts.pull_secrets(c),
    }
    return {"metadata": {"labels": parts.canonical(c), "annotations": annotations}, "spec": spec}


def _security(c: Context) -> Json:
    """The installation's ``values.gateways.securityContext``, otherwise what binding a port below 1024 requires."""
    given = c.settings.values.get("gateways") or {}
    out = given.get("securityContext") or {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]}
    seccomp = given.get("seccompProfile")
    return jsons.copy(out) | ({"seccompProfile": jsons.copy(seccomp)} if seccomp else {})


def _proxy(c: Context) -> Json:
    out: Json = {
        "name": PROXY,
        "image": parts.image(c),
        "ports": [{"containerPort": ports.ENVOY_METRICS, "name": "http-envoy-prom", "protocol": "TCP"}],
        "args": parts.arguments(c, "router"),
        "env": _environment(c),
        **parts.pull(c),
        "readinessProbe": parts.readiness(c),
        "securityContext": {"runAsUser": c.settings.uid, "runAsGroup": c.settings.gid},
        "volumeMounts": volumes.mounts(),
    }
    if lifecycle := c.settings.proxy("lifecycle"):
        out["lifecycle"] = jsons.copy(lifecycle)
    return out


def _environment(c: Context) -> list[Json]:
    """A sidecar's variables, in the order of Istio's gateway template."""
    found = environment.environment(c)
    names = [e["name"] for e in found]
    applications = found.pop(names.index("ISTIO_META_APP_CONTAINERS"))
    names.remove("ISTIO_META_APP_CONTAINERS")
    found.insert(names.index("GOMEMLIMIT") + 1, applications)
    return found
