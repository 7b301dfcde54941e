"""The Pod Security Standards: what a pod may not ask for at a level. Pure.

Sources: https://kubernetes.io/docs/concepts/security/pod-security-standards/, whose levels ``baseline`` and
``restricted`` these are; the words are those of k8s.io/pod-security-admission.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lateen.kit.jsons import Json, dig

PRIVILEGED, BASELINE, RESTRICTED = LEVELS = ("privileged", "baseline", "restricted")
LATEST = 999
"""The minor version that stands for the newest one."""

_CAPABILITIES = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"),
    *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
_SYSCTLS = {
    **dict.fromkeys(("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies"), 0),
    **dict.fromkeys(("net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"), 0),
    "net.ipv4.ip_local_reserved_ports": 27,
    **dict.fromkeys((f"net.ipv4.tcp_keepalive_{n}" for n in ("time", "intvl", "probes")), 29),
    "net.ipv4.tcp_fin_timeout": 29,
    **dict.fromkeys(("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"), 32),
}
"""Safe sysctls, and since which minor version they are."""
_VOLUMES = frozenset(
    (
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    )
)
_SELINUX = {"": 0, "container_t": 0, "container_init_t": 0, "container_kvm_t": 0, "container_engine_t": 31}
_PROFILES = ("Localhost", "RuntimeDefault")
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_POD, _SECCOMP = "seccomp.security.alpha.kubernetes.io/pod", "container.seccomp.security.alpha.kubernetes.io/"


class Violation(NamedTuple):
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})"


def violations(level: str, minor: int, meta: Json, spec: Json) -> list[Violation]:
    """Of a pod or a pod's template, by the standards of a minor version of Kubernetes."""
    if level == PRIVILEGED:
        return []
    asked = _Asked(minor, meta, spec)
    checks = list(_BASELINE)
    if level == RESTRICTED:
        replaced = {_host_paths} | ({_capabilities} if minor >= 22 else set()) | ({_seccomp} if minor >= 19 else set())
        checks = [c for c in checks if c not in replaced]
        checks += [check for check, since in _RESTRICTED if minor >= since]
    return [found for check in checks if (found := check(asked)) is not None]


class _Asked(NamedTuple):
    minor: int
    meta: Json
    spec: Json

    @property
    def windows(self) -> bool:
        return bool(dig(self.spec, "os", "name") == "windows")

    @property
    def pod(self) -> Json:
        found: Json = self.spec.get("securityContext") or {}
        return found

    def containers(self) -> Iterable[tuple[str, Json, Json]]:
        """Name, securityContext and container."""
        for key in ("initContainers", "containers", "ephemeralContainers"):
            for c in self.spec.get(key) or []:
                yield str(c.get("name")), c.get("securityContext") or {}, c

    def which(self, bad: Callable[[Json], object]) -> list[str]:
        """The containers whose securityContext is bad."""
        return [name for name, context, _ in self.containers() if bad(context)]

    def who(self, bad: Callable[[Json], object]) -> str:
        """The pod and the containers whose securityContext is bad, as the subject of a sentence."""
        named = self.which(bad)
        return " and ".join((["pod"] if bad(self.pod) else []) + ([_containers(named)] if named else []))

    def contexts(self) -> list[Json]:
        return [self.pod, *(context for _, context, _ in self.containers())]


def _plural(one: str, count: int) -> str:
    return one if count == 1 else f"{one}s"


def _quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def _containers(names: list[str]) -> str:
    return f"{_plural('container', len(names))} {_quoted(names)}"


# --- baseline --------------------------------------------------------------------------------------------------------


def _apparmor(a: _Asked) -> Violation | None:
    def profile(context: Json) -> str:
        return str(dig(context, "appArmorProfile", "type", default=_PROFILES[0]))

    who = a.who(lambda context: profile(context) not in _PROFILES)
    bad = sorted({p for p in map(profile, a.contexts()) if p not in _PROFILES})
    annotations = {k: str(v) for k, v in (a.meta.get("annotations") or {}).items() if k.startswith(_APPARMOR)}
    noted = sorted(
        f'{k}="{v}"' for k, v in annotations.items() if v not in ("", "runtime/default") and v[:10] != "localhost/"
    )
    subjects = [who] if who else []
    subjects += [_plural("annotation", len(noted))] if noted else []
    if not subjects:
        return None
    says = f"{' and '.join(subjects)} must not set AppArmor profile type to {_quoted([*bad, *noted])}"
    return Violation(_plural("forbidden AppArmor profile", len(bad) + len(noted)), says)


def _added(context: Json, allowed: Iterable[str]) -> set[str]:
    return {str(c) for c in dig(context, "capabilities", "add", default=[])} - set(allowed)


def _adding(a: _Asked, allowed: Iterable[str]) -> str:
    names = a.which(lambda context: _added(context, allowed))
    every = sorted({c for context in a.contexts()[1:] for c in _added(context, allowed)})
    says = f"must not include {_quoted(every)} in securityContext.capabilities.add"
    return f"{_containers(names)} {says}" if names else ""


def _capabilities(a: _Asked) -> Violation | None:
    says = _adding(a, _CAPABILITIES)
    return Violation("non-default capabilities", says) if says else None


def _namespaces(a: _Asked) -> Violation | None:
    found = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if a.spec.get(key)]
    return Violation("host namespaces", ", ".join(found)) if found else None


def _host_paths(a: _Asked) -> Violation | None:
    found = [str(v["name"]) for v in a.spec.get("volumes") or [] if "hostPath" in v]
    return Violation("hostPath volumes", f"{_plural('volume', len(found))} {_quoted(found)}") if found else None


def _host_ports(a: _Asked) -> Violation | None:
    found = {name: {p["hostPort"] for p in c.get("ports") or [] if p.get("hostPort")} for name, _, c in a.containers()}
    names = [name for name, ports in found.items() if ports]
    ports = sorted({str(p) for ports in found.values() for p in ports})
    verb = "uses" if len(names) == 1 else "use"
    says = f"{_containers(names)} {verb} {_plural('hostPort', len(ports))} {', '.join(ports)}"
    return Violation("hostPort", says) if names else None


def _privileged(a: _Asked) -> Violation | None:
    names = a.which(lambda context: context.get("privileged"))
    says = f"{_containers(names)} must not set securityContext.privileged=true"
    return Violation("privileged", says) if names else None


def _proc_mount(a: _Asked) -> Violation | None:
    names = a.which(lambda context: context.get("procMount", "Default") != "Default")
    kinds = sorted({str(c["procMount"]) for c in a.contexts() if c.get("procMount", "Default") != "Default"})
    says = f"{_containers(names)} must not set securityContext.procMount to {_quoted(kinds)}"
    return Violation("procMount", says) if names else None


def _selinux(a: _Asked) -> Violation | None:
    def kind(context: Json) -> str:
        return str(dig(context, "seLinuxOptions", "type", default=""))

    def sets(context: Json, key: str) -> bool:
        return bool(dig(context, "seLinuxOptions", key))

    def forbidden(context: Json) -> bool:
        return a.minor < _SELINUX.get(kind(context), LATEST + 1)

    who = a.who(lambda context: forbidden(context) or sets(context, "user") or sets(context, "role"))
    kinds = sorted({kind(context) for context in a.contexts() if forbidden(context)})
    data = [f"{_plural('type', len(kinds))} {_quoted(kinds)}"] if kinds else []
    data += [f"{key} may not be set" for key in ("user", "role") if any(sets(c, key) for c in a.contexts())]
    says = f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}"
    return Violation("seLinuxOptions", says) if who else None


def _seccomp_type(context: Json) -> str:
    return str(dig(context, "seccompProfile", "type", default=""))


def _seccomp(a: _Asked) -> Violation | None:
    if a.minor < 19:
        return _seccomp_annotations(a)
    who = a.who(lambda context: _seccomp_type(context) not in ("", *_PROFILES))
    kinds = sorted({k for k in map(_seccomp_type, a.contexts()) if k not in ("", *_PROFILES)})
    says = f"{who} must not set securityContext.seccompProfile.type to {_quoted(kinds)}"
    return Violation("seccompProfile", says) if who else None


def _seccomp_annotations(a: _Asked) -> Violation | None:
    given = a.meta.get("annotations") or {}
    keys = [_SECCOMP_POD, *(f"{_SECCOMP}{name}" for name, _, _ in a.containers())]
    found = {k: str(given[k]) for k in keys if k in given}
    safe = ("runtime/default", "docker/default")
    bad = sorted(f'{k}="{v}"' for k, v in found.items() if v not in safe and not v.startswith("localhost/"))
    says = f"forbidden {_plural('annotation', len(bad))} {', '.join(bad)}"
    return Violation("seccompProfile", says) if bad else None


def _sysctls(a: _Asked) -> Violation | None:
    names = [str(s.get("name")) for s in a.pod.get("sysctls") or []]
    found = [name for name in names if a.minor < _SYSCTLS.get(name, LATEST + 1)]
    return Violation("forbidden sysctls", ", ".join(found)) if found else None


def _host_process(a: _Asked) -> Violation | None:
    who = a.who(lambda context: dig(context, "windowsOptions", "hostProcess"))
    says = f"{who} must not set securityContext.windowsOptions.hostProcess=true"
    return Violation("hostProcess", says) if who else None


# --- restricted ------------------------------------------------------------------------------------------------------


def _escalation(a: _Asked) -> Violation | None:
    names = a.which(lambda context: context.get("allowPrivilegeEscalation") is not False)
    if not names or (a.windows and a.minor >= 25):
        return None
    says = f"{_containers(names)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", says)


def _unrestricted(a: _Asked) -> Violation | None:
    if a.windows and a.minor >= 25:
        return None
    keeping = a.which(lambda context: "ALL" not in dig(context, "capabilities", "drop", default=[]))
    says = [f'{_containers(keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    says += [added] if (added := _adding(a, ("NET_BIND_SERVICE",))) else []
    return Violation("unrestricted capabilities", "; ".join(says)) if says else None


def _volumes(a: _Asked) -> Violation | None:
    kinds = {str(v["name"]): sorted(v.keys() - {"name"}) for v in a.spec.get("volumes") or []}
    bad = {name: found[0] if found else "unknown" for name, found in kinds.items() if not _VOLUMES.intersection(found)}
    verb, types = "uses" if len(bad) == 1 else "use", sorted(set(bad.values()))
    says = f"{_plural('volume', len(bad))} {_quoted(bad)} {verb} {_plural('restricted volume type', len(types))} "
    return Violation("restricted volume types", says + _quoted(types)) if bad else None


def _non_root(a: _Asked) -> Violation | None:
    reason = "runAsNonRoot != true"
    if who := a.who(lambda context: context.get("runAsNonRoot") is False):
        return Violation(reason, f"{who} must not set securityContext.runAsNonRoot=false")
    if a.pod.get("runAsNonRoot") or not (names := a.which(lambda context: context.get("runAsNonRoot") is None)):
        return None
    return Violation(reason, f"pod or {_containers(names)} must set securityContext.runAsNonRoot=true")


def _user(a: _Asked) -> Violation | None:
    who = a.who(lambda context: context.get("runAsUser") == 0)
    return Violation("runAsUser=0", f"{who} must not set runAsUser=0") if who else None


def _seccomp_set(a: _Asked) -> Violation | None:
    if a.windows and a.minor >= 25:
        return None
    if found := _seccomp(a):
        return found
    names = a.which(lambda context: not _seccomp_type(context))
    if _seccomp_type(a.pod) or not names:
        return None
    says = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Violation("seccompProfile", f"pod or {_containers(names)} {says}")


_BASELINE = (
    *(_apparmor, _capabilities, _namespaces, _host_paths, _host_ports, _privileged, _proc_mount, _selinux, _seccomp),
    *(_sysctls, _host_process),
)
_RESTRICTED = ((_escalation, 8), (_unrestricted, 22), (_volumes, 0), (_non_root, 0), (_user, 23), (_seccomp_set, 19))
"""And since which minor version they are asked."""
