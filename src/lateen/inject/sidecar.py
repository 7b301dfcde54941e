"""The template ``sidecar``: redirection, Envoy and its agent beside the application."""

from __future__ import annotations

from lateen.inject import environment, parts, volumes
from lateen.inject.context import PROXY, Context, text
from lateen.inject.networks import with_network
from lateen.kit import jsons
from lateen.kit.jsons import Json, dig
from lateen.wire import ports

INIT, VALIDATION, CORE_DUMP = "istio-init", "istio-validation", "enable-core-dump"
_TRAFFIC = "traffic.sidecar.istio.io/"
_INTERCEPTION = "sidecar.istio.io/interceptionMode"
REROUTE = "istio.io/reroute-virtual-interfaces"


def template(c: Context) -> Json:
    """The template as a partial pod. Raises ValueError for annotations that cannot be parsed."""
    proxy = _proxy(c)
    init = [*([_redirection(c)] if c.mode != "NONE" else []), *([_core_dump(c)] if core_dump(c) else [])]
    if c.native:
        proxy["restartPolicy"] = "Always"
        init.append(proxy)
    labels = {"security.istio.io/tlsMode": c.labels.get("security.istio.io/tlsMode") or "istio", **parts.canonical(c)}
    spec: Json = {"initContainers": init, "volumes": _volumes(c), **parts.pull_secrets(c)}
    if not c.native:
        spec["containers"] = [proxy]
    annotations = {
        "istio.io/rev": c.settings.revision or "default",
        **parts.default_containers(c),
        **_unredirected(c),
        **_cni(c),
    }
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def core_dump(c: Context) -> bool:
    return c.annotation("sidecar.istio.io/enableCoreDump", c.settings.proxy("enableCoreDump")) == "true"


def _value(c: Context, name: str, value: str) -> str:
    return c.annotation(_TRAFFIC + name, c.settings.proxy(value))


def _excluded_inbound(c: Context) -> str:
    given = _value(c, "excludeInboundPorts", "excludeInboundPorts")
    found = [p.strip() for p in given.split(",") if p.strip()]
    port = c.status_port.strip()
    return ",".join(found if port in ("", "0") or port in found else [*found, port])


def _interfaces(c: Context) -> str | None:
    """Interfaces of virtual machines in the pod; the newer annotation takes precedence."""
    return c.annotations.get(REROUTE, c.annotations.get(f"{_TRAFFIC}kubevirtInterfaces"))


def _redirection(c: Context) -> Json:
    excluded = _excluded_inbound(c)
    own = f"{ports.ENVOY_METRICS},{ports.HEALTH}"
    arguments = [
        "istio-iptables",
        "-p",
        str(ports.OUTBOUND),
        "-z",
        str(ports.INBOUND),
        "-u",
        str(_ids(c)[0]),
        "-m",
        c.mode,
        "-i",
        _value(c, "includeOutboundIPRanges", "includeIPRanges"),
        "-x",
        _value(c, "excludeOutboundIPRanges", "excludeIPRanges"),
        "-b",
        _value(c, "includeInboundPorts", "includeInboundPorts"),
        "-d",
        f"{own},{excluded}" if excluded else own,
    ]
    for flag, name in (("-q", "includeOutboundPorts"), ("-o", "excludeOutboundPorts")):
        if _TRAFFIC + name in c.annotations or c.settings.proxy(name):
            arguments += [flag, _value(c, name, name)]
    if (interfaces := _interfaces(c)) is not None:
        arguments += ["-k", interfaces]
    if (excluded_interfaces := c.annotations.get(f"{_TRAFFIC}excludeInterfaces")) is not None:
        arguments += ["-c", excluded_interfaces]
    level = c.annotation("sidecar.istio.io/agentLogLevel", c.settings.of_global("logging", "level") or "default:info")
    arguments += [f"--log_output_level={level}", *parts.json_log(c)]
    if c.settings.cni:
        arguments += ["--run-validation", "--skip-rule-apply"]
    elif c.settings.of_global("proxy_init", "forceApplyIptables"):
        arguments.append("--force-apply")
    out: Json = {
        "name": VALIDATION if c.settings.cni else INIT,
        "image": parts.image(c, text(c.settings.of_global("proxy_init", "image"))),
        "args": arguments,
        **parts.pull(c),
        "resources": parts.resources(c),
        "securityContext": _init_security(c),
    }
    if c.metadata:
        out["env"] = [environment.env(k, v) for k, v in sorted(c.metadata.items())]
    return out


def _init_security(c: Context) -> Json:
    privileged = bool(c.settings.proxy("privileged"))
    out: Json = {"allowPrivilegeEscalation": privileged, "privileged": privileged, **_seccomp(c)}
    if c.settings.cni:
        user_id, group = _ids(c)
        user = {"runAsGroup": group, "runAsUser": user_id, "runAsNonRoot": True}
        return out | {"capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True, **user}
    return out | {
        "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
        "readOnlyRootFilesystem": False,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        "runAsUser": 0,
    }


def _ids(c: Context) -> tuple[int, int]:
    """The user and group by which the redirection identifies the proxy; with TPROXY always the default ones."""
    return (ports.PROXY_UID, ports.PROXY_UID) if c.mode == "TPROXY" else (c.settings.uid, c.settings.gid)


def _seccomp(c: Context) -> Json:
    given = c.settings.proxy("seccompProfile")
    return {"seccompProfile": jsons.copy(given)} if given else {}


def _core_dump(c: Context) -> Json:
    return {
        "name": CORE_DUMP,
        "image": parts.image(c),
        "command": ["/bin/sh"],
        "args": ["-c", "sysctl -w kernel.core_pattern=/var/lib/istio/data/core.proxy && ulimit -c unlimited"],
        **parts.pull(c),
        "resources": parts.resources(c),
        "securityContext": {
            "allowPrivilegeEscalation": True,
            "capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]},
            "privileged": True,
            "readOnlyRootFilesystem": False,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "runAsUser": 0,
        },
    }


def _proxy(c: Context) -> Json:
    out: Json = {
        "name": PROXY,
        "image": parts.image(c),
        "ports": [{"containerPort": ports.ENVOY_METRICS, "name": "http-envoy-prom", "protocol": "TCP"}],
        "args": parts.arguments(c, "sidecar"),
        **_lifecycle(c),
        "env": [*_legacy_localhost(c), *environment.environment(c, bootstrap=True)],
        **parts.pull(c),
        "securityContext": _security(c),
        "resources": parts.resources(c),
        "volumeMounts": [
            *volumes.mounts(crl=True, bootstrap=environment.BOOTSTRAP in c.annotations),
            *volumes.user_items(c, "userVolumeMount"),
        ],
    }
    if c.status_port != "0":
        out["readinessProbe"] = parts.readiness(c)
        startup = c.settings.proxy("startupProbe") or {}
        if startup.get("enabled"):
            get = {"path": "/healthz/ready", "port": ports.HEALTH}
            threshold = int(startup.get("failureThreshold") or 600)
            out["startupProbe"] = {
                "httpGet": get,
                "periodSeconds": 1,
                "timeoutSeconds": 3,
                "failureThreshold": threshold,
            }
    return out


def _legacy_localhost(c: Context) -> list[Json]:
    """If inbound traffic is sent to localhost, the agent probes there, too."""
    local = dig(c.settings.mesh, "inboundTrafficPolicy", "mode") == "LOCALHOST"
    return [environment.env("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "true")] if local else []


def _lifecycle(c: Context) -> Json:
    if given := c.settings.proxy("lifecycle"):
        return {"lifecycle": jsons.copy(given)}
    out: Json = {}
    if c.hold and not c.native:  # a native sidecar's startup probe delays the application
        out["postStart"] = {"exec": {"command": ["pilot-agent", "wait"]}}
    if c.native:
        drain = ["pilot-agent", "request", f"--debug-port={c.status_port}", "POST", "drain"]
        out["preStop"] = {"exec": {"command": drain}}
    return {"lifecycle": out} if out else {}


def _security(c: Context) -> Json:
    tproxy = c.mode == "TPROXY"
    bind = c.annotation("sidecar.istio.io/capNetBindService", c.settings.proxy("capNetBindService")) == "true"
    traced = c.metadata.get("IPTABLES_TRACE_LOGGING") == "true"
    privileged = traced or bool(c.settings.proxy("privileged"))
    added = [*(["NET_ADMIN"] if tproxy or traced else []), *(["NET_BIND_SERVICE"] if bind and not traced else [])]
    root = tproxy or bind or traced
    return {
        "allowPrivilegeEscalation": privileged,
        "privileged": privileged,
        "capabilities": {**({"add": added} if added else {}), "drop": ["ALL"]},
        "readOnlyRootFilesystem": not core_dump(c),
        "runAsGroup": ports.PROXY_UID if root else c.settings.gid,  # by which the redirection knows root's proxy
        "runAsNonRoot": not root,
        "runAsUser": 0 if root else c.settings.uid,
        **_seccomp(c),
    }


def _volumes(c: Context) -> list[Json]:
    out = volumes.volumes(crl=True)
    if override := c.annotations.get(environment.BOOTSTRAP):
        out.insert(3, {"name": "custom-bootstrap-volume", "configMap": {"name": override}})
    return [*out, *volumes.user_items(c, "userVolume")]


def _unredirected(c: Context) -> Json:
    """Record interception mode NONE in the pod's annotation, whatever it was set by, because istiod sees only the
    annotation and clients must not use mutual TLS then."""
    return {_INTERCEPTION: c.mode} if c.mode == "NONE" else {}


def _cni(c: Context) -> Json:
    """Annotations for the CNI plugin, because there is no init container."""
    if not c.settings.cni:
        return {}
    out: Json = {}
    if c.settings.multus:
        name = "k8s.v1.cni.cncf.io/networks"
        out[name] = with_network(c.annotations.get(name, ""), "default/istio-cni")
    out[_INTERCEPTION] = c.mode
    for name, value in (
        ("includeOutboundIPRanges", "includeIPRanges"),
        ("excludeOutboundIPRanges", "excludeIPRanges"),
    ):
        if found := _value(c, name, value):
            out[_TRAFFIC + name] = found
    out[f"{_TRAFFIC}includeInboundPorts"] = _value(c, "includeInboundPorts", "includeInboundPorts")
    out[f"{_TRAFFIC}excludeInboundPorts"] = _excluded_inbound(c)
    for name in ("includeOutboundPorts", "excludeOutboundPorts"):
        if _TRAFFIC + name in c.annotations or c.settings.proxy(name):
            out[_TRAFFIC + name] = _value(c, name, name)
    for name in (REROUTE, f"{_TRAFFIC}kubevirtInterfaces", f"{_TRAFFIC}excludeInterfaces"):
        if given := c.annotations.get(name):
            out[name] = given
    return out
