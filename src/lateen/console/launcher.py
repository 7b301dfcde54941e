"""Runs the real Prometheus in a pod of the embedded cluster, with the configuration that a user wrote for Kubernetes.

Debian's Prometheus is built without Kubernetes discovery: each ``kubernetes_sd_configs`` becomes an ``http_sd_configs``
that this process answers. Where there is no Prometheus, the collector answers in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiohttp import web

from lateen.api.kinds import Kind
from lateen.console import discovery
from lateen.kit import jsons, tasks, yamldoc
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient
from lateen.kube.informer import Informer

log = logging.getLogger("lateen.console.launcher")

PROGRAM = "prometheus"
CONFIG, LISTEN, STORAGE = "--config.file", "--web.listen-address", "--storage.tsdb.path"
REFRESH = "5s"
LOOK_S = 1.0
"""How often the configuration file is looked at."""


class ConfigProblem(ValueError):
    """The configuration has something that cannot be done here."""


def option(args: list[str], name: str, default: str) -> str:
    for at, arg in enumerate(args):
        if arg.startswith(f"{name}="):
            return arg.partition("=")[2]
        if arg == name and at + 1 < len(args):
            return args[at + 1]
    return default


def translated(config: Any, url: str, asked: list[tuple[str, list[str]]], own_namespace: str) -> Any:
    """The configuration with each Kubernetes discovery replaced. ``asked`` gets what has to be answered: at ``url``
    followed by the number in it, (role, namespaces). Raises ConfigProblem."""
    if isinstance(config, list):
        return [translated(one, url, asked, own_namespace) for one in config]
    if not isinstance(config, dict):
        return config
    out = {k: translated(v, url, asked, own_namespace) for k, v in config.items() if k != "kubernetes_sd_configs"}
    for one in config.get("kubernetes_sd_configs") or []:
        role = str(one.get("role", ""))
        if role not in discovery.ROLES:
            raise ConfigProblem(f'kubernetes_sd_configs: role "{role}" cannot be discovered here; {_known()}')
        if one.get("selectors"):
            raise ConfigProblem("kubernetes_sd_configs: selectors cannot be used here; keep targets by relabel_configs")
        wanted = one.get("namespaces") or {}
        names = [str(n) for n in wanted.get("names") or []]
        asked.append((role, [*names, *([own_namespace] if wanted.get("own_namespace") else [])]))
        out.setdefault("http_sd_configs", []).append({"url": f"{url}/{len(asked) - 1}", "refresh_interval": REFRESH})
    return out


def _known() -> str:
    return f"known: {', '.join(discovery.ROLES)}"


class Launcher:
    def __init__(self, client: HttpClient, args: list[str]) -> None:
        self._client, self._args = client, args
        self._config = Path(option(args, CONFIG, "prometheus.yml"))
        self._asked: list[tuple[str, list[str]]] = []
        self._informers: dict[Kind, Informer] = {}
        self._namespace = os.environ.get("POD_NAMESPACE", "istio-system")

    def _objects(self, kind: Kind) -> Iterable[Json]:
        return self._informers[kind].objects.values()

    async def _targets(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if number >= len(self._asked):
            raise web.HTTPNotFound
        role, namespaces = self._asked[number]
        for kind in discovery.ROLES[role][1]:
            if kind not in self._informers:
                self._informers[kind] = Informer(self._client, kind)
                tasks.spawn(self._informers[kind].run(), f"informer {kind.plural}")
            await self._informers[kind].synced.wait()
        found = discovery.groups(role, discovery.Cluster(self._objects), namespaces)
        return web.Response(body=jsons.dumps(found), content_type="application/json")

    def _translate(self, url: str, to: Path) -> None:
        """Raises ConfigProblem, OSError, YamlError."""
        asked: list[tuple[str, list[str]]] = []
        out = translated(yamldoc.load(self._config.read_text()), url, asked, self._namespace)
        to.write_text(yamldoc.dump(out))
        self._asked = asked

    async def _follow(self, url: str, to: Path, process: asyncio.subprocess.Process) -> None:
        """Reload when the configuration file changes."""
        known = self._config.read_text()
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(OSError):
                if (text := self._config.read_text()) == known:
                    continue
                known = text
                try:
                    self._translate(url, to)
                except ValueError as e:
                    log.error("the former configuration stays in force: %s: %s", self._config, e)
                    continue
                process.send_signal(signal.SIGHUP)

    async def run(self, program: str) -> int:
        """Prometheus' exit code. Raises OSError, ValueError."""
        app = web.Application()
        app.add_routes([web.get(r"/{number:\d+}", self._targets)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "prometheus.yml"
            self._translate(url, config)
            process = await asyncio.create_subprocess_exec(program, f"{CONFIG}={config}", *_rest(self._args))
            following = tasks.spawn(self._follow(url, config, process), "configuration")
            try:
                return await process.wait()
            except asyncio.CancelledError:
                process.terminate()
                return await process.wait()
            finally:
                following.cancel()


def _rest(args: list[str]) -> list[str]:
    """The arguments but the configuration file."""
    out, skip = [], False
    for arg in args:
        if not skip and not arg.startswith(f"{CONFIG}=") and arg != CONFIG:
            out.append(arg)
        skip = arg == CONFIG
    return out


async def serve(client: HttpClient, args: list[str]) -> None:
    """Until it is cancelled or Prometheus ends, whose exit code becomes ours."""
    program = shutil.which(PROGRAM)
    if program is not None:
        sys.exit(await Launcher(client, args).run(program))
    from lateen.console import collector

    log.warning("Prometheus is not installed here (apt-get install prometheus); the collector answers in its place")
    port = option(args, LISTEN, ":9090").rpartition(":")[2]
    await collector.serve(client, int(port), Path(option(args, STORAGE, "data")))
