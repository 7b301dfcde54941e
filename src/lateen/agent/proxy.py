"""One proxy's agent, wired: certificate first, then Envoy, then health, metrics, renewal and a graceful end."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from pathlib import Path

from lateen.agent import proxyless
from lateen.agent.certificates import Certificates, write_files, write_secrets
from lateen.agent.envoy import DIRECTORY, Envoy
from lateen.agent.istiod import FAILURES, Istiod, until_answered
from lateen.agent.metrics import Metrics
from lateen.agent.options import Options
from lateen.agent.probing import Prober
from lateen.agent.serving import Server
from lateen.kit import http, tasks
from lateen.kit.files import write_atomic
from lateen.wire import ports

log = logging.getLogger("lateen.agent")

NAMES_S = 30.0
"""istiod answers a question for names after this long at most, also where nothing is new."""


class Agent:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._istiod = Istiod(options.control_plane, options.mark)
        self._metrics = Metrics(options)
        self._envoy = Envoy(options, self._istiod, self._metrics)
        output = Path(options.env.get("OUTPUT_CERTS") or DIRECTORY)
        write = write_files if options.proxyless else write_secrets
        self._certificates = Certificates(self._istiod, output if options.proxyless else DIRECTORY, write)
        self._output = output
        self._stop = asyncio.Event()
        self._certified = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        server = await self._serve()
        if self._options.dns_capture:
            # Before anything asks for a name: where user ids cannot be told apart, our own questions come here too.
            tasks.spawn(self._dns(), "dns")
        first = tasks.spawn(self._certificates.first(), "first certificate")
        stopped = tasks.spawn(self._stop.wait(), "stop")
        await asyncio.wait((first, stopped), return_when=asyncio.FIRST_COMPLETED)
        if self._stop.is_set():
            return 0
        self._certified = True
        if group := self._options.env.get("ISTIO_META_AUTO_REGISTER_GROUP"):
            tasks.spawn(self._health(group), "health")
        running = [tasks.spawn(self._certificates.renew(first.result()), "renewal")]
        if self._options.proxyless:
            self._write_bootstrap()
        else:
            running.append(tasks.spawn(self._envoy.run(), "envoy"))
        await stopped
        if not self._options.proxyless:
            await self._envoy.stop()
        server.close()
        await tasks.cancel(*running)
        return 0

    async def _serve(self) -> asyncio.Server:
        """With status port 0, which turns it off, only inside the pod: Envoy and ``pilot-agent wait`` ask there."""
        o = self._options
        prober = Prober(o.probers, o.probe_address)
        server = Server(self._metrics, prober, self.ready, self._envoy.drain, self._stop.set)
        host = "0.0.0.0" if o.status_port else "127.0.0.1"
        return await http.serve(server.handle, host, o.status_port or ports.MERGED_METRICS)

    async def ready(self) -> str | None:
        """None where the pod can be used, else what is missing."""
        if self._options.proxyless:
            return None if self._certified else "there is no certificate yet"
        return await self._envoy.ready()

    def _write_bootstrap(self) -> None:
        text = json.dumps(proxyless.bootstrap(self._options, self._output))
        write_atomic(DIRECTORY / "grpc-bootstrap.json", text)

    async def _dns(self) -> None:
        """Answer the pod's DNS, with the table as istiod has it. Never returns."""
        from lateen.agent import dns  # only where it is wanted: the agent stays small

        server = dns.Server(dns.own_servers(), self._options.mark)
        await server.start()
        version = ""

        async def step() -> str:
            found = await self._istiod.ask("/names", {"version": version}, timeout=NAMES_S + 15)
            server.table = {k: tuple(v) for k, v in found["names"].items()}
            return str(found["version"])

        while True:
            version = await until_answered(step, "no table of names from istiod")

    async def _health(self, group: str) -> None:
        """A machine tells istiod how its application is, where its WorkloadGroup asks."""
        from lateen.agent import health

        me = {"node": str(self._options.node), "group": group}

        async def report(healthy: bool, says: str) -> None:
            await self._istiod.ask("/health", {**me, "healthy": healthy, "says": says})

        async def step() -> None:
            probe = (await self._istiod.ask("/probe", me))["probe"]
            if probe:
                await health.watch(probe, report)

        await until_answered(step, "no probe from istiod", first=0.5)


async def grpc_bootstrap(options: Options, path: Path) -> int:
    """``pilot-agent grpc-bootstrap``: once, for applications that look after renewal themselves."""
    try:
        await proxyless.once(options, path)
    except FAILURES as e:
        log.error("no certificate from istiod: %s", str(e) or "timeout")
        return 1
    print(path)
    return 0
