"""Runs the real Prometheus in a pod of the embedded cluster, with the configuration that a user wrote for Kubernetes.

Debian's Prometheus is built without Kubernetes discovery: each ``kubernetes_sd_configs`` becomes an ``http_sd_configs``
that this process answers. Without a Prometheus on the machine, the collector runs instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from aiohttp import web

from lateen.api.kinds import Kind
from lateen.console import collector, discovery
from lateen.console.scrape_config import Asked, matching, translated
from lateen.kit import jsons, servers, tasks, yamldoc
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient
from lateen.kube.informer import Informer
from lateen.kube.kubeconfig import TOKEN_DIR
from lateen.wire import ports

log = logging.getLogger("lateen.console.launcher")

PROGRAM = "prometheus"
CONFIG, LISTEN, STORAGE = "--config.file", "--web.listen-address", "--storage.tsdb.path"
LOOK_S = 1.0
"""Seconds between checks of the configuration file."""


def option(args: list[str], name: str, default: str) -> str:
    for at, arg in enumerate(args):
        if arg.startswith(f"{name}="):
            return arg.partition("=")[2]
        if arg == name and at + 1 < len(args):
            return args[at + 1]
    return default


class Launcher:
    def __init__(self, client: HttpClient, args: list[str]) -> None:
        self._client, self._args = client, args
        self._config = Path(option(args, CONFIG, "prometheus.yml")).absolute()
        self._asked: list[Asked] = []
        self._included: list[str] = []
        self._informers: dict[Kind, Informer] = {}
        self._namespace = (TOKEN_DIR / "namespace").read_text().strip()

    def _objects(self, kind: Kind) -> Iterable[Json]:
        return self._informers[kind].objects.values()

    async def _targets(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if number >= len(self._asked):
            raise web.HTTPNotFound
        role, namespaces = self._asked[number].role, self._asked[number].namespaces
        for kind in discovery.ROLES[role][1]:
            if kind not in self._informers:
                self._informers[kind] = Informer(self._client, kind)
                tasks.spawn(self._informers[kind].run(), f"informer {kind.plural}")
            await self._informers[kind].synced.wait()
        found = discovery.groups(role, discovery.Cluster(self._objects), namespaces)
        return web.Response(body=jsons.dumps(found), content_type="application/json")

    def _texts(self) -> dict[Path, str]:
        """The configuration and the files that it includes. Raises OSError, and ConfigProblem for too many."""
        return {p: p.read_text() for p in (self._config, *matching(self._included, self._config.parent))}

    def _translate(self, url: str, to: Path) -> None:
        """Raises ConfigProblem, OSError, YamlError."""
        found = translated(yamldoc.load(self._config.read_text()), self._config.parent, url, self._namespace)
        to.write_text(yamldoc.dump(found.config))
        self._asked, self._included = found.asked, found.included

    async def _follow(self, url: str, to: Path, process: asyncio.subprocess.Process) -> None:
        """Reload when the configuration file changes."""
        known = self._texts()
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(OSError):
                try:
                    if (texts := self._texts()) == known:
                        continue
                    known = texts
                    self._translate(url, to)
                except ValueError as e:
                    log.error("the former configuration stays in force: %s: %s", self._config, e)
                    continue
                with contextlib.suppress(ProcessLookupError):  # it has ended; run() says so
                    process.send_signal(signal.SIGHUP)

    async def run(self, program: str) -> int:
        """Prometheus' exit code. Raises OSError, ValueError."""
        app = web.Application()
        app.add_routes([web.get(r"/{number:\d+}", self._targets)])
        runner = servers.runner(app)
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
    storage = Path(option(args, STORAGE, "data"))
    if program is not None:
        # Beside the real one, for the console's graph, which Prometheus cannot answer.
        beside = tasks.spawn(collector.serve(client, (ports.COLLECTOR,), storage / "lateen"), "collector")
        try:
            sys.exit(await Launcher(client, args).run(program))
        finally:
            await tasks.cancel(beside)
    log.warning("Prometheus is not installed here (apt-get install prometheus); the collector answers in its place")
    port = option(args, LISTEN, ":9090").rpartition(":")[2]
    await collector.serve(client, (int(port), ports.COLLECTOR), storage)
