"""CNI plugins after our own network: what the node's ``/etc/cni/net.d`` lists after ``lateen`` is run for each pod, as
runtimes do (https://www.cni.dev/docs/spec/).

The directories of the node that pods see as /etc/cni and /opt/cni (``hostPath``) are in the state directory; nothing of
the machine's own is read or run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from lateen.cluster.network import links, plan
from lateen.kit import jsons
from lateen.kit.files import write_atomic
from lateen.kit.jsons import Json
from lateen.wire import cni

OWN = "lateen"
VERSION, PATIENCE_S = "1.0.0", 60.0
MARK = "1337"
"""What marks the proxies' connections without root on the host; see ``recipe``."""


class Plugins:
    def __init__(self, root: Path, rootless: bool) -> None:
        """``root``: a directory of the node's own."""
        self._root, self._rootless = root, rootless
        self.conf, self.bin = root / "etc" / "net.d", root / "opt" / "bin"
        self._results = root / "results"
        self.seen = {Path("/etc/cni"): root / "etc", Path("/opt/cni"): root / "opt"}
        """Paths that pods ask for -> where they are."""

    def prepare(self) -> None:
        """Raises OSError."""
        for path in (self.conf, self.bin, self._results):
            path.mkdir(parents=True, exist_ok=True)
        for path in self._results.iterdir():
            if not Path(links.path(path.name)).exists():  # its pod has gone while this node did not run
                path.unlink()
        first = self.conf / "10-lateen.conflist"
        if not first.exists():
            made = {"cniVersion": VERSION, "name": OWN, "plugins": [{"type": OWN}]}
            write_atomic(first, jsons.dumps(made), 0o644)

    async def add(self, pod: Json, uid: str, address: str) -> None:
        """Raises OSError with what a plugin has said, after DEL, since plugins keep what they have made of a pod."""
        try:
            await self._add(pod, uid, address)
        except BaseException:
            with contextlib.suppress(OSError):  # the first failure is the one to report
                await self.remove(pod, uid)
            raise

    async def _add(self, pod: Json, uid: str, address: str) -> None:
        result: Json = {
            "cniVersion": VERSION,
            "interfaces": [{"name": "eth0", "sandbox": links.path(uid)}],
            "ips": [{"address": f"{address}/32", "gateway": plan.GATEWAY, "interface": 0}],
        }
        plugins = self._after_ours(pod)
        for config in plugins:
            out = await self._run("ADD", config | {"prevResult": result}, pod, uid)
            result = _result(config["type"], out) if out else result
        if plugins:
            write_atomic(self._results / uid, jsons.dumps(result), 0o600)

    async def remove(self, pod: Json, uid: str) -> None:
        """Run DEL of all plugins with the result of ADD, including those after one that fails. Raises OSError with what
        failed."""
        failed, added = [], self._added(uid)
        for config in reversed(self._after_ours(pod)):
            try:
                await self._run("DEL", config | added, pod, uid)
            except OSError as e:
                failed.append(str(e))
        if failed:
            raise OSError("; ".join(failed))
        (self._results / uid).unlink(missing_ok=True)

    def _added(self, uid: str) -> Json:
        """Nothing for a pod that has not been added completely, or by an earlier version."""
        with contextlib.suppress(OSError, ValueError):
            return {"prevResult": jsons.loads((self._results / uid).read_bytes())}
        return {}

    def _after_ours(self, pod: Json) -> list[Json]:
        """The plugins to run; none for a pod with the node's network, among which is who installs plugins. Raises
        OSError."""
        if pod["spec"].get("hostNetwork"):
            return []
        first = cni.chosen([p.name for p in self.conf.iterdir()])
        if not first:
            return []
        try:
            found = cni.network(first, (self.conf / first).read_bytes())
        except ValueError as e:
            raise OSError(str(e)) from e
        about = {"cniVersion": found.get("cniVersion") or VERSION, "name": found.get("name") or OWN}
        return [{**p, **about} for p in found["plugins"] if p["type"] != OWN]

    async def _run(self, command: str, config: Json, pod: Json, uid: str) -> bytes:
        kind = str(config["type"])
        if "/" in kind:
            raise OSError(f"the CNI plugin {kind!r} is not a valid file name")
        config = jsons.loads(jsons.dumps(config).replace(b'"/etc/cni/', f'"{self._root}/etc/'.encode()))
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": uid,
            "CNI_NETNS": links.path(uid) if Path(links.path(uid)).exists() else "",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.bin),
            "CNI_ARGS": cni.arguments(pod),
            **({"LATEEN_SOCKET_MARK": MARK} if self._rootless else {}),
        }
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                str(self.bin / kind), stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
            )
        except OSError as e:
            raise OSError(f"the CNI plugin {kind} cannot be run: {e.strerror}") from e
        try:
            async with asyncio.timeout(PATIENCE_S):
                out, err = await process.communicate(jsons.dumps(config))
        except BaseException as e:
            await _kill(process)
            if not isinstance(e, TimeoutError):
                raise
            raise OSError(f"the CNI plugin {kind} has not ended in {PATIENCE_S:.0f} s") from None
        if process.returncode:
            raise OSError(f"the CNI plugin {kind} has failed: {cni.said(out) or err.decode(errors='replace').strip()}")
        return out


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End a plugin with the programs that it has started; what it does must not go on beside or after DEL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _result(kind: str, out: bytes) -> Json:
    """What a plugin prints after ADD. Raises OSError."""
    try:
        found = jsons.loads(out)
    except ValueError as e:
        raise OSError(f"the CNI plugin {kind} has printed a result that is not JSON: {e}") from e
    if not isinstance(found, dict):
        raise OSError(f"the CNI plugin {kind} has printed a result that is not a JSON object")
    return found
