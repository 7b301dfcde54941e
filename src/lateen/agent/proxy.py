"""Wires up one proxy's agent: the certificate first, then Envoy, then health, metrics, renewal, graceful shutdown."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from pathlib import Path

from lateen.agent import following, interfaces, proxyless
from lateen.agent.certificates import (
    Asks,
    Certificates,
    Source,
    Write,
    renewal,
    write_all,
    write_client,
    write_files,
    write_secrets,
)
from lateen.agent.connections import Connections
from lateen.agent.envoy import DIRECTORY, Envoy
from lateen.agent.istiod import CRL, FAILURES, ROOT, Istiod, until_answered
from lateen.agent.metrics import Metrics
from lateen.agent.options import Options
from lateen.agent.probing import Prober
from lateen.agent.requests import Requests
from lateen.agent.serving import Server
from lateen.agent.tap import Tap
from lateen.api import proxy_ports
from lateen.kit import http, tasks
from lateen.kit.files import write_atomic
from lateen.wire import ports

log = logging.getLogger("lateen.agent")

SOCKETS = Path("/var/run/secrets/workload-spiffe-uds")
SOCKET_FILE = "WORKLOAD_IDENTITY_SOCKET_FILE"
MOUNTED = Path("/var/run/secrets/workload-spiffe-credentials")
MOUNTED_FILES = ("cert-chain.pem", "key.pem", "root-cert.pem")
"""The directories of user-supplied certificates. Source: pkg/security/security.go, pkg/istio-agent/agent.go."""
KNOWN = "istiod"
"""The directory, next to externally provided certificates, of the one by which istiod knows the proxy."""
NAMES_S = 30.0
"""istiod holds a request for the name table for at most this many seconds, even if nothing changes."""


class Agent:
    def __init__(self, options: Options) -> None:
        self._options = options
        if says := proxy_ports.unfit_text(options.env):
            log.warning("the environment variable %s is ignored: %s", proxy_ports.VARIABLE, says)
        output = Path(options.env.get("OUTPUT_CERTS") or DIRECTORY)
        directory = output if options.proxyless else DIRECTORY
        group = options.env.get("ISTIO_META_AUTO_REGISTER_GROUP", "")
        given = self._given()
        known = directory / KNOWN if given else directory
        if given:
            known.mkdir(exist_ok=True)
        shows = known if group else None
        self._istiod = Istiod(options.control_plane, options.mark, shows=shows, cluster=options.cluster)
        connections, requests = Connections(), Requests(options.statistics.buckets)
        self._metrics = Metrics(options, connections, requests)
        self._envoy = Envoy(options, self._istiod, self._metrics, connections, requests, known)
        issued = Certificates(
            self._istiod,
            known,
            write_files if options.proxyless else write_client if given else write_all,
            renewal(options.env),
            asks=self._asks(group),
            identity=options.identity,
            signer=options.env.get("ISTIO_META_CERT_SIGNER", ""),
            group=group,
        )
        write = write_files if options.proxyless else write_secrets
        self._certificates = self._external(given, directory, write, issued) if given else issued
        self._metrics.own.certificates = self._certificates
        self._output, self._known = output, known
        self._stop = asyncio.Event()
        self._certified = False

    def _asks(self, group: str) -> Asks:
        """What to request from istiod; gRPC libraries do not support revocation lists."""
        if group:
            return "everything"
        return "nothing" if self._options.proxyless or (ROOT.parent / CRL).parent.is_dir() else "lists"

    def _given(self) -> Path | None:
        """Where the pod has an external source of certificates, of the places where Istio looks: a socket, or a
        directory. Raises ValueError."""
        name = self._options.env.get(SOCKET_FILE) or "socket"
        if "/" in name:
            raise ValueError(f"the environment variable {SOCKET_FILE}: {name} must be a file's name, not a path")
        path = SOCKETS / name
        if path.is_socket():
            return path
        if name != "socket":
            raise ValueError(f"there is no socket {path}, which {SOCKET_FILE} names")
        return MOUNTED if all((MOUNTED / f).is_file() for f in MOUNTED_FILES) else None

    def _external(self, given: Path, directory: Path, write: Write, istiod: Source) -> Source:
        from lateen.agent import workload_api  # imported only if needed: the agent has to stay small

        log.info("certificates come from %s", given)
        if given == MOUNTED:
            return workload_api.Mounted(given, directory, write, istiod)
        return workload_api.Socket(given, str(self._options.node), directory, write, istiod)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        server = await self._serve()
        if self._options.dns_capture:
            # start before any name is resolved: without distinct user ids, our own queries are redirected here, too
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
            running.append(tasks.spawn(following.follow(self._options, self._take), "addresses"))
        await stopped
        if not self._options.proxyless:
            await self._envoy.stop()
        server.close()
        await tasks.cancel(*running)
        return 0

    async def _take(self, options: Options) -> None:
        """Go on with other addresses."""
        self._options = options
        await self._envoy.restart(options)

    async def _serve(self) -> asyncio.Server:
        """Open the agent's port. With status port 0, which disables it, it listens only inside the pod, for Envoy and
        ``pilot-agent wait``."""
        o = self._options
        prober = Prober(o.probers, o.probe_address)
        server = Server(
            self._metrics, prober, Tap(gateway=o.kind == "router"), self.ready, self._envoy.drain, self._stop.set
        )
        everywhere = ["0.0.0.0", *(["::"] if o.ipv6 or "::1" in interfaces.loopback() else [])]
        hosts = everywhere if o.status_port else ["127.0.0.1"]
        return await http.serve(server.handle, hosts, o.status_port or ports.MERGED_METRICS)

    async def ready(self) -> str | None:
        """None if the pod is ready, otherwise what is missing."""
        if self._options.proxyless:
            return None if self._certified else "there is no certificate yet"
        return await self._envoy.ready()

    def _write_bootstrap(self) -> None:
        text = json.dumps(proxyless.bootstrap(self._options, self._output, self._known))
        write_atomic(DIRECTORY / "grpc-bootstrap.json", text)

    async def _dns(self) -> None:
        """Answer the pod's DNS queries from the table that istiod sends. A machine has no cluster's DNS, and gets the
        names of Services, too. Never returns."""
        from lateen.agent import dns  # imported only if enabled: the agent has to stay small

        server = dns.Server(dns.own_servers(), self._options.mark)
        for host in interfaces.loopback():
            await server.start(host)
        version, outside = "", bool(self._options.env.get("ISTIO_META_AUTO_REGISTER_GROUP"))

        async def step() -> str:
            families = self._options.families
            asked = {"version": version, "outside": outside, "families": families}
            found = await self._istiod.ask("/names", asked, timeout=NAMES_S + 15)
            server.table = dns.usable(found["names"], families)
            return str(found["version"])

        while True:
            version = await until_answered(step, "no table of names from istiod")

    async def _health(self, group: str) -> None:
        """Report the health of a machine's application to istiod, if its WorkloadGroup or its own configuration has a
        probe."""
        from lateen.agent import health

        me = {"node": str(self._options.node), "group": group}

        async def report(healthy: bool, says: str) -> None:
            await self._istiod.ask("/health", {**me, "healthy": healthy, "says": says})

        async def step() -> None:
            probe = (await self._istiod.ask("/probe", me))["probe"] or dict(self._options.probe)
            if probe:
                await health.watch(probe, report)

        await until_answered(step, "no probe from istiod", first=0.5)


async def grpc_bootstrap(options: Options, path: Path) -> int:
    """``pilot-agent grpc-bootstrap``: runs once, for applications that handle renewal themselves."""
    try:
        await proxyless.once(options, path)
    except FAILURES as e:
        log.error("no certificate from istiod: %s", str(e) or "timeout")
        return 1
    print(path)
    return 0
