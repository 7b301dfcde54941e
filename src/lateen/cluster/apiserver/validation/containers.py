"""Containers of pods (after core validation's validateContainers)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lateen.cluster.apiserver.validation import names, probes, volumes
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, duplicate, missing, required, unsupported
from lateen.cluster.apiserver.validation.quantities import requirements
from lateen.kit.jsons import Json

PROTOCOLS = ("TCP", "UDP", "SCTP")
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")


class Names:
    """What the containers of one pod share: their names are unique, and their mounts refer to its volumes."""

    def __init__(self, spec: Json) -> None:
        self.volumes = {str(v.get("name")) for v in spec.get("volumes") or []}
        self.claims = {str(c.get("name")) for c in spec.get("resourceClaims") or []}
        self.seen: set[str] = set()


_RESOURCES = tuple(
    f"{part}.{name}" for part in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_CHOICES = {
    "procMount": ("Default", "Unmasked"),
    "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
    "supplementalGroupsPolicy": ("Merge", "Strict"),
}


def check(containers: list[Json], path: str, shared: Names, init: bool = False) -> Causes:
    out: Causes = []
    host_ports: set[tuple[Any, ...]] = set()
    for i, container in enumerate(containers):
        at = f"{path}[{i}]"
        out += _name(container, at, shared)
        out += _image(container, at)
        out += _ports(container.get("ports") or [], f"{at}.ports", host_ports)
        out += _env(container.get("env") or [], f"{at}.env")
        out += _env_from(container.get("envFrom") or [], f"{at}.envFrom")
        out += _mounts(container.get("volumeMounts") or [], f"{at}.volumeMounts", shared.volumes)
        out += requirements(container.get("resources") or {}, f"{at}.resources", shared.claims)
        out += security(container.get("securityContext") or {}, f"{at}.securityContext")
        out += _life(container, at, init)
    return out


def _name(container: Json, at: str, shared: Names) -> Causes:
    name = str(container.get("name") or "")
    if not name:
        return [required(f"{at}.name")]
    if wrong := names.dns_label(name):
        return [bad(f"{at}.name", name, s) for s in wrong]
    if name in shared.seen:
        return [duplicate(f"{at}.name", name)]
    shared.seen.add(name)
    return []


def _image(container: Json, at: str) -> Causes:
    image = str(container.get("image") or "")
    out: Causes = []
    if not image:
        out.append(required(f"{at}.image"))
    elif image.strip() != image:
        out.append(bad(f"{at}.image", image, "must not have leading or trailing whitespace"))
    for key, allowed in (
        ("imagePullPolicy", ("Always", "IfNotPresent", "Never")),
        ("terminationMessagePolicy", ("File", "FallbackToLogsOnError")),
    ):
        if container.get(key) and container[key] not in allowed:
            out.append(unsupported(f"{at}.{key}", container[key], allowed))
    return out


def _ports(ports: list[Json], path: str, host_ports: set[tuple[Any, ...]]) -> Causes:
    out: Causes = []
    seen: set[str] = set()
    for i, port in enumerate(ports):
        at, name = f"{path}[{i}]", str(port.get("name") or "")
        if name and (wrong := names.port_name(name)):
            out += [bad(f"{at}.name", name, s) for s in wrong]
        elif name and name in seen:
            out.append(duplicate(f"{at}.name", name))
        seen.add(name)
        number, host = port.get("containerPort", 0), port.get("hostPort", 0)
        if not number:
            out.append(required(f"{at}.containerPort"))
        else:
            out += [bad(f"{at}.containerPort", number, s) for s in names.port_number(number)]
        if host:
            out += [bad(f"{at}.hostPort", host, s) for s in names.port_number(host)]
            key = (port.get("hostIP", ""), host, port.get("protocol", "TCP"))
            out += [duplicate(f"{at}.hostPort", host)] if key in host_ports else []
            host_ports.add(key)
        if port.get("protocol", "TCP") not in PROTOCOLS:
            out.append(unsupported(f"{at}.protocol", port["protocol"], PROTOCOLS))
    return out


def _env(variables: list[Json], path: str) -> Causes:
    out: Causes = []
    for i, item in enumerate(variables):
        at, name = f"{path}[{i}]", str(item.get("name") or "")
        out += [bad(f"{at}.name", name, s) for s in names.variable(name)] if name else [required(f"{at}.name")]
        if item.get("valueFrom") is not None:
            out += _value_from(item, f"{at}.valueFrom")
    return out


def _value_from(item: Json, at: str) -> Causes:
    source = item["valueFrom"]
    given = [k for k in _SOURCES if source.get(k) is not None]
    if item.get("value"):
        return [bad(at, "", "may not be specified when `value` is not empty")]
    if not given:
        return [bad(at, "", f"must specify one of: {', '.join(f'`{k}`' for k in _SOURCES[:-1])} or `{_SOURCES[-1]}`")]
    if len(given) > 1:
        return [bad(at, "", "may not have more than one field specified at a time")]
    kind = given[0]
    ref, where = source[kind], f"{at}.{kind}"
    if kind == "fieldRef":
        return volumes.field_ref(ref, where, volumes.ENV)
    if kind == "resourceFieldRef":
        what = ref.get("resource")
        known = what in _RESOURCES or str(what).partition(".")[2].startswith("hugepages-")
        return (
            ([] if known else [unsupported(f"{where}.resource", what, _RESOURCES)])
            if what
            else [required(f"{where}.resource")]
        )
    key, name = str(ref.get("key") or ""), str(ref.get("name") or "")
    wrong = [bad(f"{where}.name", name, s) for s in names.dns_subdomain(name)] if "name" in ref else []
    if wrong:
        return wrong
    return [bad(f"{where}.key", key, s) for s in names.config_key(key)] if key else [required(f"{where}.key")]


def _env_from(sources: list[Json], path: str) -> Causes:
    out: Causes = []
    for i, source in enumerate(sources):
        at = f"{path}[{i}]"
        if prefix := source.get("prefix"):
            out += [bad(f"{at}.prefix", prefix, s) for s in names.variable(prefix)]
        given = [k for k in ("configMapRef", "secretRef") if source.get(k) is not None]
        if len(given) != 1:
            says = "may not have more than one field specified at a time" if given else ""
            out.append(bad(path, "", says or "must specify one of: `configMapRef` or `secretRef`"))
        out += [required(f"{at}.{k}.name") for k in given if not source[k].get("name")]
    return out


def _mounts(mounts: list[Json], path: str, known: set[str]) -> Causes:
    out: Causes = []
    seen: set[str] = set()
    for i, mount in enumerate(mounts):
        at, name, target = f"{path}[{i}]", str(mount.get("name") or ""), str(mount.get("mountPath") or "")
        if not name:
            out.append(required(f"{at}.name"))
        if name not in known:
            out.append(missing(f"{at}.name", name))
        if not target:
            out.append(required(f"{at}.mountPath"))
        elif target in seen:
            out.append(bad(f"{at}.mountPath", target, "must be unique"))
        seen.add(target)
        for key in ("subPath", "subPathExpr"):
            value = str(mount.get(key) or "")
            out += [bad(f"{at}.{key}", value, s) for s in names.relative_path(value)]
        where = f"{path}.mountPropagation"  # as Kubernetes, which does not say which mount
        if mount.get("mountPropagation") not in (None, *_PROPAGATIONS):
            out.append(unsupported(where, mount["mountPropagation"], _PROPAGATIONS))
        if mount.get("recursiveReadOnly") not in (None, "Disabled") and not mount.get("readOnly"):
            out.append(denied(f"{path}.recursiveReadOnly", "may only be specified when readOnly is true"))
        if mount.get("subPath") and mount.get("subPathExpr"):
            out.append(bad(f"{at}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"))
    return out


_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")


def security(context: Json, path: str) -> Causes:
    """Numbers of users and groups; contradictory privileges."""
    out: Causes = []
    for key in ("runAsUser", "runAsGroup", "fsGroup"):
        value = context.get(key)
        if value is not None and not 0 <= value < 1 << 31:
            out.append(bad(f"{path}.{key}", value, "must be between 0 and 2147483647, inclusive"))
    for i, value in enumerate(context.get("supplementalGroups") or []):
        if not 0 <= value < 1 << 31:
            out.append(bad(f"{path}.supplementalGroups[{i}]", value, "must be between 0 and 2147483647, inclusive"))
    for key, allowed in _CHOICES.items():
        if context.get(key) not in (None, *allowed):
            out.append(unsupported(f"{path}.{key}", context[key], allowed))
    for key, what in (("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")):
        out += _profile(context.get(key) or {}, f"{path}.{key}", what) if context.get(key) is not None else []
    if context.get("allowPrivilegeEscalation") is False and context.get("privileged"):
        says = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        out.append(bad(path, context, says))
    return out


def _profile(profile: Json, path: str, what: str) -> Causes:
    kind, name = profile.get("type"), profile.get("localhostProfile")
    if not kind:
        return [required(f"{path}.type", f"type is required when {what} profile is set")]
    if kind not in _PROFILES:
        return [unsupported(f"{path}.type", kind, _PROFILES)]
    if kind == "Localhost" and not name:
        return [required(f"{path}.localhostProfile", f"must be set when {what} type is Localhost")]
    if kind == "Localhost" and what == "seccomp":
        return [bad(f"{path}.localhostProfile", name, says) for says in names.relative_path(str(name))]
    if kind != "Localhost" and name is not None:
        return [bad(f"{path}.localhostProfile", profile, f"can only be set when {what} type is Localhost")]
    return []


def _life(container: Json, at: str, init: bool) -> Causes:
    """Probes, hooks and the restart policy, which an init container has only if it is a sidecar."""
    policy = container.get("restartPolicy")
    out: Causes = []
    if policy is not None and not init:
        out.append(denied(f"{at}.restartPolicy", "may not be set for non-init containers"))
    elif policy not in (None, "Always"):
        out.append(unsupported(f"{at}.restartPolicy", policy, ("Always",)))
    checks: tuple[tuple[str, Callable[[Json, str], Causes]], ...] = (
        ("lifecycle", probes.lifecycle),
        ("livenessProbe", probes.only_one_success),
        ("readinessProbe", probes.readiness),
        ("startupProbe", probes.only_one_success),
    )
    for key, rule in checks:
        if container.get(key) is None:
            continue
        if init and policy != "Always":
            out.append(denied(f"{at}.{key}", "may not be set for init containers without restartPolicy=Always"))
        else:
            out += rule(container[key], f"{at}.{key}")
    return out
