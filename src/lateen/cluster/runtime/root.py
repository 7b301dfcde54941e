"""A container's root directory: a tmpfs with the host's programs, read-only, and everything else the pod's own.

Runs in a freshly forked child of the runtime, in its own mount and PID namespaces. Containers of the same pod may write
to its volumes at the same time, so sources and targets of mounts are resolved without following links and mounted by
descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lateen.cluster import kernel
from lateen.cluster.kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC
from lateen.kit import beneath

HOST_DIRS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
ETC_FILES = (
    "nsswitch.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "ssl",
    "alternatives",
    "services",
    "protocols",
    "mime.types",
    "ca-certificates",
    "inputrc",
    "bash.bashrc",
    "profile",
    "terminfo",
    "python3",
    "python3.11",
    "chromium.d",
    "fonts",
    "java-17-openjdk",
)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DIRECTORIES = (
    ("tmp", 0o1777),
    ("run", 0o755),
    ("var", 0o755),
    ("proc", 0o555),
    ("dev", 0o755),
    ("etc", 0o755),
    ("root", 0o755),  # programs may be below it (a Python in ~/.pyenv)
    ("home", 0o755),
    ("opt", 0o755),
    ("srv", 0o755),
    ("run/secrets", 0o755),
    ("sys", 0o555),
    ("var/tmp", 0o1777),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/cache", 0o755),
)
LINKS = {"var/run": "../run"}

# What container engines hide from containers in /proc: to these files, root in the container is root of the machine
# (writing kernel.core_pattern would be enough to run any command on the host).
PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
PROC_HIDDEN = ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list")


def build(spec: dict[str, Any]) -> None:
    """Create the root directory that ``spec`` describes and move into it. Raises OSError."""
    root = f"{spec['directory']}/root"
    os.makedirs(root, exist_ok=True)
    kernel.mount("none", "/", "", MS_REC | MS_PRIVATE)
    kernel.mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=512m")
    inside = _of_image(root, spec) if spec["rootfs"] else _of_machine(root)
    _dev(root)
    with beneath.Directory.open(root) as top:
        for name, text in spec["etc"].items():
            top.write(f"etc/{name}", text.encode())
        # Volumes filled from the API become read-only after everything is mounted: other volumes may be mounted in
        # them.
        for mount in spec["mounts"]:
            _mount(top, inside, mount)
            if not mount.get("own"):
                _restrict(top, inside, mount)
        for mount in spec["mounts"]:
            if mount.get("own"):
                _restrict(top, inside, mount)
    _proc(root, spec["privileged"])
    if spec["readOnlyRoot"]:
        kernel.restrict(root, MS_RDONLY)
    kernel.pivot_root(root)


Inside = Callable[[str], list[str]]
"""The components of a mount's target, with the root directory's own links followed."""


def _of_machine(root: str) -> Inside:
    """The machine's programs, read-only, in directories of the pod's own."""
    links = _host_programs(root)
    for name, mode in DIRECTORIES:
        os.mkdir(f"{root}/{name}")
        os.chmod(f"{root}/{name}", mode)
    for name, link in LINKS.items():
        os.symlink(link, f"{root}/{name}")
    _etc(root)
    return lambda target: _checked(target, _below_links(target, links))


def _of_image(root: str, spec: dict[str, Any]) -> Inside:
    """The image's files; what the container writes is on top of them, in the tmpfs that is at ``root`` now."""
    for name in ("upper", "work"):
        os.mkdir(f"{root}/{name}", 0o755)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    fds = [os.open(path, flags) for path in (spec["rootfs"], f"{root}/upper", f"{root}/work")]
    try:
        # By descriptor: a colon or comma in a path would be read as the option's end.
        lower, upper, work = map(_by, fds)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}" + (",userxattr" if spec["rootless"] else "")
        kernel.mount("overlay", root, "overlay", MS_NODEV, options, shown=f"the files of the image {spec['rootfs']}")
    finally:
        for fd in fds:
            os.close(fd)
    return lambda target: _checked(target, beneath.resolved(spec["rootfs"], beneath.parts(target.lstrip("/"))))


def bind(source: str, target: str, flags: int = 0) -> None:
    """Bind-mount a file or directory of ours; the target is created."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        Path(target).touch()
    kernel.mount(source, target, "", MS_BIND | MS_REC)
    if flags:
        kernel.restrict(target, flags)


def _host_programs(root: str) -> dict[str, str]:
    """Mount the host's program directories; returns the links among them (``bin`` -> ``usr/bin``)."""
    links = {}
    for name in HOST_DIRS:
        host = Path("/") / name
        if host.is_symlink():
            links[name] = str(host.readlink())
            os.symlink(links[name], f"{root}/{name}")
        elif host.is_dir():
            bind(str(host), f"{root}/{name}", MS_RDONLY | MS_NODEV)
    return links


def _etc(root: str) -> None:
    for name in ETC_FILES:
        if (Path("/etc") / name).exists():
            bind(str((Path("/etc") / name).resolve()), f"{root}/etc/{name}", MS_RDONLY | MS_NODEV)


def _dev(root: str) -> None:
    dev = f"{root}/dev"
    kernel.mount("tmpfs", dev, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k")
    for name in DEVICES:
        bind(f"/dev/{name}", f"{dev}/{name}")
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ):
        os.symlink(target, f"{dev}/{name}")
    os.mkdir(f"{dev}/pts")
    os.mkdir(f"{dev}/shm")
    kernel.mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    kernel.mount("tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m")


def _proc(root: str, privileged: bool) -> None:
    kernel.mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if privileged:
        return
    for name in PROC_READ_ONLY:
        path = f"{root}/proc/{name}"
        if os.path.exists(path):
            kernel.mount(path, path, "", MS_BIND | MS_REC)
            kernel.restrict(path, MS_RDONLY)
    for name in PROC_HIDDEN:
        path = f"{root}/proc/{name}"
        if os.path.isdir(path):
            kernel.mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=4k")
        elif os.path.exists(path):
            kernel.mount("/dev/null", path, "", MS_BIND)


# --- volumes, files of the pod, directories of the image -----------------------------------------------------------


def _mount(top: beneath.Directory, inside: Inside, mount: dict[str, Any]) -> None:
    """``source`` (trusted), ``sub`` (a path below it, created if missing), ``target``, ``readOnly``, ``own``
    (a directory of the pod itself, in which mount points may be created), ``links`` (that ``sub`` may pass through,
    because no container writes there)."""
    source = _source(mount["source"], mount.get("sub") or "", bool(mount.get("links")))
    try:
        names = inside(mount["target"])
        target = _target(top, names, stat.S_ISDIR(os.fstat(source).st_mode))
        try:
            kernel.mount(_by(source), _by(target), "", MS_BIND | MS_REC, shown=_shown(mount))
        finally:
            os.close(target)
    finally:
        os.close(source)


def _restrict(top: beneath.Directory, inside: Inside, mount: dict[str, Any]) -> None:
    names = inside(mount["target"])
    flags = (MS_RDONLY if mount["readOnly"] else 0) | (0 if mount.get("devices") else MS_NODEV)
    with top.walk(names[:-1]) as above:
        mounted = above.reference(names[-1])
    try:
        kernel.restrict(_by(mounted), flags, _shown(mount))
    finally:
        os.close(mounted)


def _shown(mount: dict[str, Any]) -> str:
    return f"of {mount['source']} at {mount['target']}"


def _by(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _source(path: str, sub: str, links: bool) -> int:
    if not sub:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    names = beneath.parts(sub)
    *above, name = beneath.resolved(path, names) if links else names
    with beneath.Directory.open(path) as volume:
        mode = stat.S_IMODE(os.fstat(volume.fd).st_mode)
        try:
            with volume.walk(above) as where:
                return where.reference(name)
        except FileNotFoundError:
            with volume.directory(sub, make=True, mode=mode) as made:
                os.fchmod(made.fd, mode)
                return os.dup(made.fd)


def _below_links(target: str, links: dict[str, str]) -> list[str]:
    """The target's path components. Only links directly below the root that we have created are resolved."""
    names = beneath.parts(target.lstrip("/"))
    for link, leads in links.items():
        if names[0] == link:
            names[:1] = beneath.parts(leads.lstrip("/"))
    if names[:2] == ["var", "run"] and len(names) > 2:
        names[:2] = ["run"]
    return names


def _checked(target: str, names: list[str]) -> list[str]:
    if not names or names[0] in ("proc", "sys"):
        raise beneath.Unsafe(f"nothing can be mounted at {target}")
    return names


def _target(top: beneath.Directory, names: list[str], directory: bool) -> int:
    with top.walk(names[:-1], make=True) as above:
        if directory:
            with above.walk(names[-1:], make=True) as made:
                return os.dup(made.fd)
        try:
            os.close(above.open_file(names[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        return above.reference(names[-1])
