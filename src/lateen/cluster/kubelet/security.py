"""A container's privileges, from its own and its pod's securityContext, as Kubernetes interprets them. Pure.

Without root on the host there is only one user, who is uid 0 in the containers. Another uid then takes a user namespace
of the container's own; what cannot be provided is listed in ``notes``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lateen.kit.jsons import Json, dig

DEFAULT_CAPABILITIES = frozenset(
    (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
        *("NET_BIND_SERVICE", "SYS_CHROOT", "AUDIT_WRITE", "SETFCAP"),
    )
)
"""The defaults of container engines, without NET_RAW (forged packets) and MKNOD (there is no device cgroup)."""

SYSCTLS = frozenset(
    {
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_syncookies",
    }
)
"""The sysctls that Kubernetes considers safe and that belong to the pod's network."""


class Misconfigured(Exception):
    """The container cannot be created as specified (CreateContainerConfigError)."""


@dataclass(frozen=True)
class Account:
    """An entry of /etc/passwd."""

    name: str
    gid: int
    home: str


@dataclass(frozen=True)
class Privileges:
    """``groups``: None leaves the groups as they are; ``nested``: in a user namespace of its own."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] | None = ()
    nested: bool = False
    capabilities: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    read_only_root: bool = False
    home: str = "/root"
    notes: tuple[str, ...] = ()

    def spec(self) -> Json:
        """The form that the runtime reads."""
        return {
            "uid": self.uid,
            "gid": self.gid,
            "groups": None if self.groups is None else list(self.groups),
            "nested": self.nested,
            "capabilities": list(self.capabilities),
            "privileged": self.privileged,
            "noNewPrivileges": self.no_new_privileges,
            "readOnlyRoot": self.read_only_root,
        }


def capabilities(wanted: Json, every: frozenset[str]) -> tuple[str, ...]:
    """Apply ``add`` and ``drop`` to the default set; ALL stands for all of them. Raises Misconfigured."""
    sets = []
    for field in ("add", "drop"):
        names = {str(n).upper().removeprefix("CAP_") for n in wanted.get(field) or []}
        if unknown := sorted(names - every - {"ALL"}):
            raise Misconfigured(f'unknown capability "CAP_{unknown[0]}" to {field}')
        sets.append(names)
    add, drop = sets
    kept = every if "ALL" in add else DEFAULT_CAPABILITIES
    kept = frozenset() if "ALL" in drop and "ALL" not in add else kept - drop
    return tuple(sorted(kept | (add - {"ALL"})))


def decide(
    pod: Json,
    container: Json,
    image_user: tuple[int, int | None] | None,
    every: frozenset[str],
    account: Callable[[int], Account | None],
    rootless: bool,
    keeps_root: bool = False,
) -> Privileges:
    """``every``: the names of all capabilities; ``image_user``: the image's uid and gid; ``keeps_root``: without root,
    the program needs capabilities that another uid would not have. Raises Misconfigured."""
    shared = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    both = {**shared, **own}
    image_uid, image_gid = image_user or (0, None)
    uid = int(both.get("runAsUser", image_uid))
    entry = account(uid)
    gid = both.get("runAsGroup")
    if gid is None:
        gid = image_gid if image_gid is not None and uid == image_uid else entry.gid if entry else 0
    if both.get("runAsNonRoot") and uid == 0:
        why = (
            "container's runAsUser breaks non-root policy"
            if "runAsUser" in both
            else ("container has runAsNonRoot and image will run as root")
        )
        meta = pod["metadata"]
        raise Misconfigured(f'{why} (pod: "{meta["name"]}_{meta["namespace"]}", container: {container["name"]})')
    groups = [int(g) for g in shared.get("supplementalGroups") or []]
    if shared.get("fsGroup") is not None:
        groups.append(int(shared["fsGroup"]))
    privileged = bool(own.get("privileged"))
    caps = tuple(sorted(every)) if privileged else capabilities(own.get("capabilities") or {}, every)
    found = Privileges(
        uid,
        int(gid),
        tuple(dict.fromkeys(groups)),
        False,
        caps,
        privileged,
        own.get("allowPrivilegeEscalation") is False,
        bool(own.get("readOnlyRootFilesystem")),
        entry.home if entry else "/",
    )
    return _without_root(found, shared, keeps_root) if rootless else found


def _without_root(wanted: Privileges, shared: Json, keeps_root: bool) -> Privileges:
    notes = []
    if shared.get("supplementalGroups"):
        notes.append("supplementalGroups have no effect: the cluster runs as an ordinary user, who has only one group")
    if keeps_root and wanted.uid:
        caps = ("NET_ADMIN",)  # to mark its own connections, instead of the owner match, which needs different uids
        return replace(wanted, uid=0, gid=0, groups=None, capabilities=caps, notes=tuple(notes))
    if wanted.uid == 0:
        return replace(wanted, gid=0, groups=None, notes=tuple(notes))
    return replace(wanted, groups=None, nested=True, notes=tuple(notes))


def unsupported(pod: Json) -> str:
    """What of the machine the pod asks for and does not get; empty if it asks for nothing."""
    asked = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod["spec"].get(name)]
    return f"{', '.join(asked)}: no effect, the pod has its own namespaces, as every pod here" if asked else ""


def sysctls(pod: Json, rootless: bool) -> dict[str, str]:
    """File below /proc/sys -> value. As in containerd, everybody may ping, and low ports need no capability. Raises
    Misconfigured for a sysctl that is not safe."""
    out = {
        "net/ipv4/ping_group_range": "0 0" if rootless else "0 2147483647",
        "net/ipv4/ip_unprivileged_port_start": "0",
    }
    for item in dig(pod, "spec", "securityContext", "sysctls", default=[]):
        if item["name"] not in SYSCTLS:
            raise Misconfigured(f'forbidden sysctl: "{item["name"]}" not allowlisted')
        out[str(item["name"]).replace(".", "/")] = str(item["value"])
    return out


def accounts(passwd: str, group: str, uid: int, gid: int, home: str) -> dict[str, str]:
    """The container's /etc/passwd and /etc/group: the host's, plus the user if it has no entry there."""
    users = {line.split(":")[2] for line in passwd.splitlines() if line.count(":") >= 6}
    if str(uid) not in users:
        passwd += f"user{uid}:x:{uid}:{gid}::{home}:/bin/sh\n"
    groups = {line.split(":")[2] for line in group.splitlines() if line.count(":") >= 3}
    if str(gid) not in groups:
        group += f"group{gid}:x:{gid}:\n"
    return {"passwd": passwd, "group": group}
