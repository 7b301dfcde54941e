"""Turns a container's specification and its image into what the runtime starts."""

from __future__ import annotations

from lateen.cluster.kubelet import etc_files, security, service_links, volumes
from lateen.cluster.kubelet.accounts import Accounts
from lateen.cluster.kubelet.container import Container
from lateen.cluster.kubelet.images import Image
from lateen.cluster.kubelet.sandbox import Sandbox
from lateen.cluster.network import links
from lateen.cluster.runtime.privileges import CAPABILITIES
from lateen.cluster.runtime.shim import DEFAULT_PATH
from lateen.kit.jsons import Json

MESSAGE_PATH = "/dev/termination-log"


async def of(sandbox: Sandbox, c: Container) -> Json:
    """What the runtime needs to start the container, except for its log. Raises UnknownImage, NotReady, Misconfigured,
    OSError, KubeError."""
    image = sandbox.node.images.find(str(c.spec["image"]))
    accounts = Accounts(image.rootfs)
    user = _privileges(sandbox, c, image, accounts)
    env = await _environment(sandbox, c, image, user)
    command = [volumes.expand(w, env) for w in c.spec.get("command") or []]
    arguments = [volumes.expand(w, env) for w in c.spec.get("args") or []]
    mounts = [{"source": s, "target": t, "readOnly": read_only} for s, t, read_only in image.mounts]
    mounts += sandbox.volumes.mounts(sandbox.pod, c.spec, env)
    return {
        "build": True,
        "rootfs": image.rootfs,
        "rootless": sandbox.node.rootless,
        "argv": _words(image, command, arguments),
        "env": env,
        "cwd": c.spec.get("workingDir") or image.directory or "/",
        "directory": str(sandbox.directory),
        "netns": links.path(sandbox.uid),
        "hostname": etc_files.hostname(sandbox.pod),
        "sysctls": security.sysctls(sandbox.pod, sandbox.node.rootless),
        "etc": etc_files.etc_files(sandbox.pod, sandbox.address)
        | security.accounts(accounts.passwd, accounts.group, user.uid, user.gid, user.home),
        # Outer directories first: a volume on /tmp must not hide programs below it.
        "mounts": sorted(mounts, key=lambda m: str(m["target"]).rstrip("/").split("/")),
        **user.spec(),
    }


def _words(image: Image, command: list[str], arguments: list[str]) -> list[str]:
    """What the container runs: a pod's own command, in which the image's program may have its usual name."""
    if not command:
        return [*image.entrypoint, *(arguments or image.arguments)]
    usual = image.program and command[0] == image.program
    return [*(image.entrypoint if usual else command[:1]), *command[1:], *arguments]


async def of_command(sandbox: Sandbox, c: Container, command: list[str]) -> Json:
    return {**await of(sandbox, c), "argv": command, "build": False, "mounts": [], "etc": {}}


async def of_start(sandbox: Sandbox, c: Container, attempt: int) -> Json:
    """Add the standard streams, the log, the file for the termination message, and whose processes it sees."""
    spec = {**await of(sandbox, c), "beside": await sandbox.beside()}
    streams = {key: bool(c.spec.get(key)) for key in ("stdin", "stdinOnce", "tty")}
    if streams["tty"]:
        spec["env"] = {"TERM": "xterm", **spec["env"]}
    message = {
        "source": str(sandbox.open_message(c)),
        "target": c.spec.get("terminationMessagePath") or MESSAGE_PATH,
        "readOnly": False,
    }
    return {**spec, **streams, "log": f"logs/{c.name}/{attempt}.log", "mounts": [*spec["mounts"], message]}


async def _environment(sandbox: Sandbox, c: Container, image: Image, user: security.Privileges) -> dict[str, str]:
    base = {
        "PATH": DEFAULT_PATH,
        "HOSTNAME": etc_files.hostname(sandbox.pod),
        "HOME": user.home,
        **dict(image.env),
        **service_links.variables([*await sandbox.services(), service_links.API]),
    }
    if sandbox.node.rootless and image.marks_traffic:
        base["LATEEN_SOCKET_MARK"] = "1337"
    return await volumes.environment(sandbox.node.client, sandbox.pod, c.spec, base)


def _privileges(sandbox: Sandbox, c: Container, image: Image, accounts: Accounts) -> security.Privileges:
    return security.decide(
        sandbox.pod,
        c.spec,
        image.user,
        frozenset(CAPABILITIES),
        accounts.of,
        sandbox.node.rootless,
        image.marks_traffic,
    )


def notes(sandbox: Sandbox, c: Container) -> tuple[str, ...]:
    """The settings of a securityContext that have no effect here."""
    image = sandbox.node.images.find(str(c.spec["image"]))
    return _privileges(sandbox, c, image, Accounts(image.rootfs)).notes
