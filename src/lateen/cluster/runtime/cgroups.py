"""Control groups: how much memory and CPU and how many processes a container may have.

Version 2, or the older hierarchies where the kernel has a controller in one of those: each controller is looked for
below our own group first and then further up, where whoever runs the cluster may make groups (root everywhere, a user
below what systemd has delegated). Nothing but groups of our own is made or changed, apart from controllers that a
group above must hand down.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "cpu", "pids")
PERIOD_US, LEAST_US = 100_000, 1000
PIDS = 4096
"""Processes and threads of one container, so that one that forks without end does not stop the machine."""


@dataclass(frozen=True)
class Limits:
    """``memory`` in bytes, ``cpu`` in CPUs; 0 where there is no limit."""

    memory: int = 0
    cpu: float = 0.0
    pids: int = PIDS


@dataclass(frozen=True)
class Base:
    """The directory that has the groups of all containers, for these controllers."""

    path: Path
    version: int
    controllers: tuple[str, ...]


class Groups:
    """``missing``: the reason for each controller that cannot be used."""

    def __init__(self, bases: list[Base], missing: dict[str, str]) -> None:
        self.bases, self.missing = bases, missing

    def make(self, name: str, limits: Limits) -> list[str]:
        """The directories of a new group, for a process to enter. There are those without a limit, too: one that comes
        later holds for every process, those that are started in the container meanwhile among them. Raises OSError."""
        out = []
        for base in self.bases:
            path = base.path / name
            path.mkdir(exist_ok=True)
            for controller in base.controllers:
                for file, value in _settings(base.version, controller, limits):
                    _write(path / file, value)
            out.append(str(path))
        return out

    def change(self, name: str, limits: Limits) -> None:
        """Give a group whose processes run other limits. Raises OSError, for example for less memory than is in use."""
        for base in self.bases:
            for controller in base.controllers:
                _change(base.path / name, [*_settings(base.version, controller, limits)])

    def killed(self, name: str) -> int:
        """How many processes of the group the kernel has killed because its memory was used up."""
        for base in self.bases:
            if "memory" in base.controllers:
                file = base.path / name / ("memory.events" if base.version == 2 else "memory.oom_control")
                with contextlib.suppress(OSError, ValueError):
                    found = dict(line.split() for line in file.read_text().splitlines())
                    return int(found.get("oom_kill", 0))
        return 0

    def remove(self, name: str) -> None:
        """A group with processes stays until the next ``sweep``."""
        for base in self.bases:
            with contextlib.suppress(OSError):
                (base.path / name).rmdir()

    def sweep(self) -> None:
        """Remove what is left of containers that are gone."""
        for base in self.bases:
            _sweep(base.path)


def _settings(version: int, controller: str, limits: Limits) -> Iterator[tuple[str, str]]:
    """File and value. Optional files are marked with ``?``."""
    unlimited = "max" if version == 2 else "-1"
    quota = str(max(int(limits.cpu * PERIOD_US), LEAST_US)) if limits.cpu else unlimited
    memory = str(limits.memory) if limits.memory else unlimited
    match version, controller:
        case 2, "memory":
            yield from (
                ("memory.max", memory),
                ("memory.swap.max?", "0" if limits.memory else unlimited),
                ("memory.oom.group?", "1"),
            )
        case 2, "cpu":
            yield "cpu.max", f"{quota} {PERIOD_US}"
        case 1, "memory":
            yield from ((f"memory.{k}limit_in_bytes{o}", memory) for k, o in (("", ""), ("memsw.", "?")))
        case 1, "cpu":
            yield from (("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", quota))
        case _, "pids":
            yield "pids.max", str(limits.pids)


def _change(path: Path, settings: list[tuple[str, str]]) -> None:
    """Version 1 has two limits of memory, of which the larger one is raised first and lowered last."""
    try:
        for file, value in settings:
            _write(path / file, value)
    except OSError:
        for file, value in reversed(settings):
            _write(path / file, value)
        for file, value in settings:
            _write(path / file, value)


def _write(path: Path, value: str) -> None:
    optional = path.name.endswith("?")
    path = path.with_name(path.name.rstrip("?"))
    if not optional or path.exists():
        path.write_text(value)


def enter(directories: list[str]) -> None:
    """Move the calling process into groups. Raises OSError."""
    for directory in directories:
        with open(f"{directory}/cgroup.procs", "w") as f:
            f.write("0")


def clear(directories: list[str], limit_s: float = 2.0) -> None:
    """Remove groups with what is in them, when their processes have gone; what is in use stays."""
    deadline = time.monotonic() + limit_s
    left = [Path(d) for d in directories]
    while left and time.monotonic() < deadline:
        for path in left:
            _sweep(path)
            with contextlib.suppress(OSError):
                path.rmdir()
        left = [p for p in left if p.exists()]
        if left:
            time.sleep(0.02)


def _sweep(base: Path) -> None:
    with contextlib.suppress(OSError):
        for path in base.iterdir():
            if path.is_dir():
                with contextlib.suppress(OSError):
                    path.rmdir()


# --- finding them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mount:
    """``own``: the directory of our own group; ``controllers``: those of an older hierarchy, empty for version 2."""

    top: Path
    own: Path
    controllers: frozenset[str]


class Kernel:
    """What the kernel answers when groups are made; tests have one of their own."""

    def hand_down(self, group: Path, controller: str) -> None:
        """Version 2: a group has the controllers that the one above it hands down, if that has no processes itself."""
        file = group / "cgroup.subtree_control"
        with contextlib.suppress(OSError):
            if controller not in file.read_text().split():
                file.write_text(f"+{controller}")

    def has(self, group: Path, controller: str, version: int) -> bool:
        names = {"memory": ("memory.limit_in_bytes", "memory.max"), "cpu": ("cpu.cfs_quota_us", "cpu.max")}
        return (group / names.get(controller, ("pids.max", "pids.max"))[version - 1]).exists()

    def enters(self, group: Path) -> str:
        """Why no process can be moved there; empty if one can."""
        script = 'echo 0 > "$1/cgroup.procs"'
        done = subprocess.run(["sh", "-c", script, "sh", str(group)], capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else f"a process cannot be moved there ({done.stderr.strip()[-120:]})"


def mounts(proc: Path = Path("/proc/self")) -> list[Mount]:
    """The hierarchies that are mounted, and where we are in each. Raises OSError."""
    groups: dict[frozenset[str], str] = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        groups[frozenset(names.split(",")) if names else frozenset()] = path
    out = []
    for line in (proc / "mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        root, at = (part.replace("\\040", " ") for part in head.split()[3:5])
        kind, _, options = tail.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        known = [n for n in groups if (n and n <= set(options.split(",")) if kind == "cgroup" else not n)]
        for controllers in known:
            inside = os.path.relpath(groups[controllers], root)
            own = Path(at) if inside.startswith("..") else Path(os.path.normpath(f"{at}/{inside}"))
            out.append(Mount(Path(at), own, controllers))
    return out


def find(name: str, kernel: Kernel | None = None, proc: Path = Path("/proc/self")) -> Groups:
    """Make a directory ``name`` for our groups in each hierarchy that has controllers which no other has."""
    kernel = kernel or Kernel()
    bases: list[Base] = []
    missing = dict.fromkeys(CONTROLLERS, "this machine has no control groups")
    try:
        found = mounts(proc)
    except (OSError, ValueError) as e:
        found, missing = [], dict.fromkeys(CONTROLLERS, f"control groups cannot be found: {e}")
    for mount in sorted(found, key=lambda m: bool(m.controllers)):
        wanted = [c for c in missing if not mount.controllers or c in mount.controllers]
        if not wanted:
            continue
        base, why = _base(mount, wanted, name, kernel)
        bases += [base] if base else []
        missing = {c: why.get(c, "") if c in wanted else says for c, says in missing.items()}
        missing = {c: says for c, says in missing.items() if says}
    return Groups(bases, missing)


def _base(mount: Mount, wanted: list[str], name: str, kernel: Kernel) -> tuple[Base | None, dict[str, str]]:
    """The base in one hierarchy, and why it has not got some controllers."""
    absent = says = "the kernel does not have it here"
    version = 1 if mount.controllers else 2
    for parent in _upwards(mount):
        path = parent / name
        try:
            path.mkdir(exist_ok=True)
            if version == 2:
                for group in (parent, path):
                    for controller in wanted:
                        kernel.hand_down(group, controller)
            probe = path / "probe"
            probe.mkdir(exist_ok=True)
            has = tuple(c for c in wanted if kernel.has(probe, c, version))
            says = kernel.enters(probe) if has else absent
            probe.rmdir()
            if not says:
                return Base(path, version, has), {c: absent for c in wanted if c not in has}
            path.rmdir()
        except OSError as e:
            says = f"{e.strerror}: {e.filename or path}"
    return None, dict.fromkeys(wanted, says)


def _upwards(mount: Mount) -> Iterator[Path]:
    """Our own group, and in version 2, where one with processes cannot have groups below it, those above it: no
    further than the first that is limited itself, since nobody should get out of a limit."""
    path = mount.own
    yield path
    while not mount.controllers and path != mount.top and not _is_limited(path):
        path = path.parent
        yield path


def _is_limited(path: Path) -> bool:
    files = (path / name for name in ("memory.max", "cpu.max", "pids.max"))
    return any(file.read_text().split()[0] != "max" for file in files if file.exists())
