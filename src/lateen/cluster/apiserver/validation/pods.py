"""Pods and pod templates (follows core validation's ValidatePodSpec and ValidatePodUpdate)."""

from __future__ import annotations

import ipaddress
import re

from lateen.cluster.apiserver.validation import containers, gated, meta, names, placing, resizing, volumes
from lateen.cluster.apiserver.validation.fields import Causes, bad, denied, duplicate, missing, required, unsupported
from lateen.kit import jsons
from lateen.kit.jsons import Json

RESTART = ("Always", "OnFailure", "Never")
_SYSTEMS = ("linux", "windows")
_DNS = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_SYSCTL = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")


def spec(value: Json, path: str) -> Causes:
    shared = containers.Names(value)
    out = volumes.check(value.get("volumes") or [], f"{path}.volumes")
    if not value.get("containers"):
        out.append(required(f"{path}.containers"))
    out += containers.check(value.get("containers") or [], f"{path}.containers", shared)
    out += containers.check(value.get("initContainers") or [], f"{path}.initContainers", shared, init=True)
    for key in ("containers", "initContainers"):
        for i, container in enumerate(value.get(key) or []):
            out += resizing.policy(container, value.get("restartPolicy", "Always"), f"{path}.{key}[{i}]")
    if value.get("restartPolicy", "Always") not in RESTART:
        out.append(unsupported(f"{path}.restartPolicy", value["restartPolicy"], RESTART))
    if value.get("dnsPolicy", "ClusterFirst") not in _DNS:
        out.append(unsupported(f"{path}.dnsPolicy", value["dnsPolicy"], _DNS))
    for key, valid in (
        ("hostname", names.dns_label),
        ("subdomain", names.dns_label),
        ("serviceAccountName", names.dns_subdomain),
        ("nodeName", names.dns_subdomain),
        ("priorityClassName", names.dns_subdomain),
        ("runtimeClassName", names.dns_subdomain),
    ):
        if value.get(key):
            out += [bad(f"{path}.{key}", value[key], s) for s in valid(value[key])]
    out += _numbers(value, path) + _sleeps(value, path) + _host_ports(value, path)
    out += meta.labels(value.get("nodeSelector") or {}, f"{path}.nodeSelector")
    out += containers.security(value.get("securityContext") or {}, f"{path}.securityContext")
    out += _sysctls(value, path)
    if value.get("os") and value["os"].get("name") not in _SYSTEMS:
        out.append(unsupported(f"{path}.os", value["os"].get("name") or "", _SYSTEMS))
    return out + _addresses(value, path) + placing.check(value, path) + _claims(value, path)


def _host_ports(value: Json, path: str) -> Causes:
    """On the node's network a port has one number."""
    says = "must match `containerPort` when `hostNetwork` is true"
    return [
        bad(f"{path}.{key}[{i}].ports[{j}].hostPort", port["hostPort"], says)
        for key in (("containers", "initContainers") if value.get("hostNetwork") else ())
        for i, container in enumerate(value.get(key) or [])
        for j, port in enumerate(container.get("ports") or [])
        if port.get("hostPort") and port["hostPort"] != port.get("containerPort")
    ]


def _numbers(value: Json, path: str) -> Causes:
    out: Causes = []
    deadline = value.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 0x7FFFFFFF:
        out.append(bad(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"))
    return out


def _sleeps(value: Json, path: str) -> Causes:
    """A hook cannot sleep for longer than the pod has to end."""
    grace = value.get("terminationGracePeriodSeconds", 30)
    out: Causes = []
    for i, container in enumerate(value.get("containers") or []):
        for hook in ("postStart", "preStop"):
            seconds = (((container.get("lifecycle") or {}).get(hook) or {}).get("sleep") or {}).get("seconds")
            if seconds is not None and not 0 <= seconds <= grace:
                says = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                out.append(bad(f"{path}.containers[{i}].lifecycle.{hook}.sleep", seconds, says))
    return out


def _sysctls(value: Json, path: str) -> Causes:
    """The names of sysctls become paths in /proc/sys."""
    out: Causes = []
    seen: set[str] = set()
    for i, item in enumerate((value.get("securityContext") or {}).get("sysctls") or []):
        name = str(item.get("name") or "")
        if name in seen:
            out.append(duplicate(f"{path}.securityContext.sysctls[{i}].name", name))
        seen.add(name)
        if not _SYSCTL.fullmatch(name) or len(name) > 253:
            at = f"{path}.securityContext.sysctls[{i}].name"
            out.append(bad(at, name, f"must have at most 253 characters and match regex ^{_SYSCTL.pattern}$"))
    return out


def _addresses(value: Json, path: str) -> Causes:
    out: Causes = []
    for i, alias in enumerate(value.get("hostAliases") or []):
        at = f"{path}.hostAliases[{i}]"
        out += ip(str(alias.get("ip") or ""), f"{at}.ip")
        for j, host in enumerate(alias.get("hostnames") or []):
            out += [bad(f"{at}.hostnames[{j}]", host, s) for s in names.dns_subdomain(host)]
    dns = value.get("dnsConfig") or {}
    if len(servers := dns.get("nameservers") or []) > 3:
        out.append(bad(f"{path}.dnsConfig.nameservers", servers, "must not have more than 3 nameservers"))
    for i, server in enumerate(dns.get("nameservers") or []):
        out += ip(server, f"{path}.dnsConfig.nameservers[{i}]")
    if value.get("dnsPolicy") == "None" and not dns.get("nameservers"):
        at, says = f"{path}.dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None"
        if dns:
            at, says = f"{at}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
        out.append(required(at, says))
    for i, search in enumerate(dns.get("searches") or []):
        wrong = names.dns_subdomain(search.rstrip(".")) if search != "." else []
        out += [bad(f"{path}.dnsConfig.searches[{i}]", search, s) for s in wrong]
    for i, option in enumerate(dns.get("options") or []):
        if not option.get("name"):
            out.append(required(f"{path}.dnsConfig.options[{i}]"))
    return out


def ip(value: str, path: str) -> Causes:
    try:
        ipaddress.ip_address(value)
        return []
    except ValueError:
        return [bad(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]


def _claims(value: Json, path: str) -> Causes:
    out: Causes = []
    seen: set[str] = set()
    for i, claim in enumerate(value.get("resourceClaims") or []):
        at, name = f"{path}.resourceClaims[{i}].name", str(claim.get("name") or "")
        out += [bad(at, name, s) for s in names.dns_label(name)] if name else [required(at)]
        out += [duplicate(at, name)] if name in seen else []
        seen.add(name)
    return out


def template(value: Json, path: str, restart: tuple[str, ...] = ("Always",)) -> Causes:
    """The PodTemplateSpec of a workload; ``restart``: the policies that it may have. Those that run to completion may
    have a deadline as well."""
    found = value.get("metadata") or {}
    inner = value.get("spec") or {}
    out = meta.labels(found.get("labels") or {}, f"{path}.labels")
    out += meta.annotated(found.get("annotations") or {}, f"{path}.annotations")
    out += spec(inner, f"{path}.spec")
    policy = inner.get("restartPolicy", "Always")
    if "Always" not in restart and policy in RESTART and policy not in restart:
        out.append(required(f"{path}.spec.restartPolicy", "valid values: " + ", ".join(f'"{p}"' for p in restart)))
    elif policy in RESTART and policy not in restart:
        out.append(unsupported(f"{path}.spec.restartPolicy", policy, restart))
    if inner.get("ephemeralContainers"):
        out.append(denied(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"))
    if inner.get("activeDeadlineSeconds") is not None and "Always" in restart:
        out.append(denied(f"{path}.spec.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"))
    return out


_UPDATE_SAYS = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def unchanged(new: Json, old: Json) -> Causes:
    """What may be changed in an existing pod: images, a shorter deadline, additional tolerations, fewer gates, and with
    gates fewer nodes."""
    for key in ("containers", "initContainers"):
        if len(new.get(key) or []) != len(old.get(key) or []):
            return [denied("spec." + key, "pod updates may not add or remove containers")]
    there = [_lasting(t) for t in new.get("tolerations") or []]
    if any(_lasting(t) not in there for t in old.get("tolerations") or []):
        return [denied("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")]
    gates = [g.get("name") for g in old.get("schedulingGates") or []]
    for i, gate in enumerate(new.get("schedulingGates") or []):
        if gate.get("name") not in gates:
            return [
                denied(f"spec.schedulingGates[{i}].name", "only deletion is allowed, but found new scheduling gate")
            ]
    before, after = old.get("activeDeadlineSeconds"), new.get("activeDeadlineSeconds")
    if before is not None and (after is None or after > before):
        at, less = "spec.activeDeadlineSeconds", "must be less than or equal to previous value"
        return [bad(at, after, less if after is not None else "must not update from a positive integer to nil value")]
    grace = "terminationGracePeriodSeconds"
    if new.get(grace) == 1 and (old.get(grace) or 0) < 0:
        new = {**new, grace: old[grace]}
    new, refused = gated.narrowed(new, old)
    if refused:
        return refused
    return [] if _fixed(new) == _fixed(old) else [denied("spec", _UPDATE_SAYS)]


def _lasting(toleration: Json) -> Json:
    return {k: v for k, v in toleration.items() if k != "tolerationSeconds"}


def _fixed(value: Json) -> Json:
    """The part of a pod's spec that can never be changed; its node is chosen by a binding."""
    free = ("activeDeadlineSeconds", "tolerations", "schedulingGates")
    out = jsons.copy({k: v for k, v in value.items() if k not in free})
    for container in [*out.get("containers", []), *out.get("initContainers", [])]:
        container.pop("image", None)
    return out


def new(value: Json) -> Causes:
    """A pod being created."""
    out = spec(value, "spec")
    if value.get("ephemeralContainers"):
        out.append(denied("spec.ephemeralContainers", "cannot be set on create"))
    return out


_NOT_EPHEMERAL = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy")


def ephemeral(new: Json, old: Json) -> Causes:
    """Ephemeral containers can be added to a pod, and then neither changed nor removed."""
    path, given = "spec.ephemeralContainers", new.get("ephemeralContainers") or []
    before = {c["name"]: c for c in old.get("ephemeralContainers") or []}
    now = {str(c.get("name")): c for c in given}
    out: Causes = []
    for name, was in before.items():
        if name not in now:
            out.append(denied(path, f'existing ephemeral containers "{name}" may not be removed'))
        elif now[name] != was:
            out.append(denied(path, f'existing ephemeral containers "{name}" may not be changed'))
    shared = containers.Names(new)
    others = [*(new.get("containers") or []), *(new.get("initContainers") or [])]
    shared.seen = {str(c["name"]) for c in others}
    out += containers.check(given, path, shared)
    for i, c in enumerate(given):
        at = f"{path}[{i}]"
        set_here = [k for k in (*_NOT_EPHEMERAL, "resources") if c.get(k)]
        out += [denied(f"{at}.{k}", "cannot be set for an Ephemeral Container") for k in set_here]
        target = c.get("targetContainerName")
        if target and target not in {str(o["name"]) for o in others}:
            out.append(missing(f"{at}.targetContainerName", target))
    return out
