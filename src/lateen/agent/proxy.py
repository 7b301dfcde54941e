"""One proxy: certificate first, then Envoy, then health, metrics, renewal and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from lateen.agent import bootstrap
from lateen.kit import certs, http, tasks, times
from lateen.kit.files import write_atomic
from lateen.wire import ports
from lateen.wire.node import ISTIO_VERSION, PEER_FALLBACK, PEER_HEADERS, NodeId, own_variable, peer_variable

log = logging.getLogger("lateen.agent")

DIRECTORY = Path(bootstrap.DIRECTORY)
ROOT = Path("/var/run/secrets/istio/root-cert.pem")
TOKEN = Path("/var/run/secrets/tokens/istio-token")
PODINFO = Path("/etc/istio/pod")
RENEW_AT = 0.5
SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)
"""Where systems keep the authorities that they trust."""
DRAIN_S, TERMINATION_S = 45.0, 5.0
"""Istio's defaults of ``drainDuration`` and ``terminationDrainDuration``, for when istiod does not say any."""
NAMES_S = 30.0
"""istiod answers a question for names after this long at most, also where nothing is new."""
METRIC = re.compile(rb"^(# (?:TYPE|HELP) )?envoy_istio_", re.MULTILINE)
ABSENT = re.compile(rb'(?<!response_flags)(?<!grpc_response_status)="-?"(?=[,}])')
"""A request that reached no endpoint has no destination: Istio says unknown, Envoy leaves it empty."""


class Agent:
    def __init__(self, kind: str, concurrency: int, mark: int | None) -> None:
        env = os.environ
        self.namespace, self.pod = env.get("POD_NAMESPACE", "default"), env.get("POD_NAME", socket.gethostname())
        self.account = env.get("SERVICE_ACCOUNT", "default")
        self.control_plane = (env.get("CA_ADDR") or "istiod.istio-system.svc:15012").rpartition(":")[0]
        self.trust_domain = env.get("TRUST_DOMAIN", "cluster.local")
        self.node = NodeId(
            kind, env.get("INSTANCE_IP", "127.0.0.1"), self.pod, self.namespace, f"{self.namespace}.svc.cluster.local"
        )
        self._concurrency, self._mark = concurrency, mark
        self._envoy: asyncio.subprocess.Process | None = None
        self._draining = False
        self._stop = asyncio.Event()
        self._labels = self._read_labels()
        self._configured = False
        self._drain_s, self._termination_s = DRAIN_S, TERMINATION_S
        self._root = ""
        self._started = time.monotonic()
        self._restarts = 0

    # --- certificate -----------------------------------------------------------------------------------------

    async def _istiod(self, path: str, body: dict[str, Any], timeout: float = 10) -> dict[str, Any]:
        """Ask istiod with the pod's own token. Raises OSError, TimeoutError, ValueError."""
        root = await asyncio.to_thread(ROOT.read_text)
        answer = await http.fetch(
            self.control_plane,
            ports.CA,
            path,
            method="POST",
            body=json.dumps(body).encode(),
            ssl=ssl.create_default_context(cadata=root),
            server_hostname=self.control_plane,
            timeout=timeout,
            sock=await self._connect(ports.CA),
            headers={"authorization": f"Bearer {TOKEN.read_text().strip()}", "content-type": "application/json"},
        )
        if answer.status != 200:
            raise OSError(f"istiod refused {path}: {answer.body.decode(errors='replace')[:300]}")
        found: dict[str, Any] = json.loads(answer.body)
        return found

    async def certificate(self) -> float:
        """Get a new certificate and write it where Envoy watches; the seconds until its renewal."""
        key = certs.new_key()
        found = await self._istiod("/certificates", {"csr": certs.request(key)})
        self._root = found["root"]
        write_secrets(DIRECTORY, found["certificate"], certs.key_pem(key), found["root"])
        _, end = certs.validity(found["certificate"])
        log.info("certificate for %s until %s", found["identity"], end.isoformat())
        # At half of its life, not all proxies at once.
        return max(1.0, (end - times.now()).total_seconds() * random.uniform(RENEW_AT - 0.01, RENEW_AT + 0.01))

    async def _connect(self, port: int) -> socket.socket:
        """To istiod, marked as the proxy's own where that is how it is known."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.control_plane, port, type=socket.SOCK_STREAM, family=socket.AF_INET)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if self._mark is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
            async with asyncio.timeout(5):
                await loop.sock_connect(sock, found[0][4])
        except BaseException:
            sock.close()
            raise
        return sock

    async def first_certificate(self) -> float:
        wait = 0.1
        while True:
            try:
                return await self.certificate()
            except (OSError, TimeoutError, ValueError, KeyError) as e:
                log.warning("no certificate yet: %s (again in %.1f s)", str(e) or "timeout", wait)
                await asyncio.sleep(wait)
                wait = min(wait * 1.6, 5.0)

    async def renew(self, wait: float) -> None:
        while True:
            await asyncio.sleep(wait)
            wait = await self.first_certificate()

    # --- Envoy -----------------------------------------------------------------------------------------------

    def _read_labels(self) -> dict[str, str]:
        out = {}
        with contextlib.suppress(OSError):
            for line in (PODINFO / "labels").read_text().splitlines():
                key, _, value = line.partition("=")
                out[key] = json.loads(value) if value.startswith('"') else value
        return out

    def _metadata(self) -> dict[str, object]:
        env = os.environ
        out: dict[str, object] = {
            k.removeprefix("ISTIO_META_"): v for k, v in env.items() if k.startswith("ISTIO_META_")
        }
        return out | {
            "LABELS": self._labels,
            "NAMESPACE": self.namespace,
            "NAME": self.pod,
            "SERVICE_ACCOUNT": self.account,
            "INSTANCE_IPS": self.node.address,
            "ISTIO_VERSION": ISTIO_VERSION,
        }

    def environment(self) -> dict[str, str]:
        """What Envoy says of itself in metrics and to its peers."""
        labels, env = self._labels, os.environ
        workload = env.get("ISTIO_META_WORKLOAD_NAME", self.pod)
        app = labels.get("app") or labels.get("app.kubernetes.io/name") or ""
        values = {
            "workload": workload,
            "namespace": self.namespace,
            "app": app or "unknown",
            "version": labels.get("version") or "unknown",
            "service": labels.get("service.istio.io/canonical-name") or app or workload,
            "revision": labels.get("service.istio.io/canonical-revision") or labels.get("version") or "latest",
            "principal": f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.account}",
        }
        peer = {k: "" if v == values.get(PEER_FALLBACK.get(k, "")) else v for k, v in values.items()}
        return (
            {own_variable(k): v for k, v in values.items()}
            | {peer_variable(k): peer[k] for k, _ in PEER_HEADERS}
            | {"PATH": env.get("PATH", "")}
        )

    async def dns(self) -> None:
        """Answer the pod's DNS, with the table as istiod has it. Never returns."""
        from lateen.agent import dns  # only where it is wanted: the agent stays small

        server = dns.Server(dns.own_servers(), self._mark)
        await server.start()
        version, wait = "", 0.1
        while True:
            try:
                found = await self._istiod("/names", {"version": version}, timeout=NAMES_S + 15)
                version, wait = found["version"], 0.1
                server.table = {k: tuple(v) for k, v in found["names"].items()}
            except (OSError, TimeoutError, ValueError, KeyError) as e:
                log.warning("no table of names from istiod: %s (again in %.1f s)", str(e) or "timeout", wait)
                await asyncio.sleep(wait)
                wait = min(wait * 1.6, 10.0)

    async def health(self, group: str) -> None:
        """A machine tells istiod how its application is, where its WorkloadGroup asks. Never returns."""
        from lateen.agent import health

        me = {"node": str(self.node), "group": group}

        async def report(healthy: bool, says: str) -> None:
            await self._istiod("/health", {**me, "healthy": healthy, "says": says})

        wait = 0.5
        while True:
            try:
                probe = (await self._istiod("/probe", me))["probe"]
                if probe:
                    await health.watch(probe, report)
                return
            except (OSError, TimeoutError, ValueError, KeyError) as e:
                log.warning("no probe from istiod: %s (again in %.1f s)", str(e) or "timeout", wait)
                await asyncio.sleep(wait)
                wait = min(wait * 1.6, 10.0)

    async def _bootstrap(self) -> dict[str, Any]:
        """With the patches that EnvoyFilters have for it; without them where istiod does not answer."""
        plain = bootstrap.bootstrap(
            bootstrap.Proxy(
                self.node, self._metadata(), self.control_plane, concurrency=self._concurrency, mark=self._mark
            )
        )
        try:
            found = await self._istiod("/bootstrap", {"node": str(self.node), "bootstrap": plain})
            patched: dict[str, Any] = found["bootstrap"] or plain
            self._drain_s, self._termination_s = map(float, found["drain"])
            return patched
        except (OSError, TimeoutError, ValueError, KeyError) as e:
            log.warning("the bootstrap is used without patches: %s", str(e) or "timeout")
            return plain

    async def envoy(self) -> None:
        """Run Envoy; start it again when it dies, with a pause that grows."""
        config = await self._bootstrap()
        path = DIRECTORY / "envoy-rev.json"
        write_atomic(path, json.dumps(config), 0o600)
        wait = 0.1
        while not self._stop.is_set():
            started = time.monotonic()
            self._configured = False
            self._envoy = await asyncio.create_subprocess_exec(
                shutil.which("envoy") or "envoy",
                "-c",
                str(path),
                "--concurrency",
                str(self._concurrency),
                "--log-level",
                "warning",
                "--component-log-level",
                "misc:error,config:error",
                "--disable-hot-restart",
                "--drain-time-s",
                str(round(self._drain_s)),
                "--drain-strategy",
                "immediate",
                "--file-flush-interval-msec",
                "1000",
                "--log-format",
                "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n\t%v",
                env=self.environment(),
            )
            code = await self._envoy.wait()
            if self._stop.is_set():
                return
            self._restarts += 1
            wait = 0.1 if time.monotonic() - started > 30 else min(wait * 2, 10.0)
            log.error("Envoy ended with %s; starting it again in %.1f s", code, wait)
            await asyncio.sleep(wait)

    async def ready(self) -> str | None:
        """None where Envoy serves with configuration from istiod, else what is missing."""
        if self._draining:
            return "draining"
        try:
            answer = await http.fetch("127.0.0.1", ports.ADMIN, "/ready", timeout=2)
            if answer.status != 200:
                return f"Envoy is {answer.body.decode(errors='replace').strip() or answer.status}"
        except (OSError, TimeoutError):
            return "Envoy's admin interface does not answer"
        if not self._configured:
            self._configured = await accepted_listeners()
        return None if self._configured else "Envoy has not accepted listeners from istiod yet"

    # --- the agent's port ------------------------------------------------------------------------------------

    async def handle(self, request: http.Request) -> http.Response:
        path = request.path.partition("?")[0]
        match (request.method, path):
            case (_, "/healthz/ready"):
                missing = await self.ready()
                return http.Response(503, missing.encode()) if missing else http.Response(200)
            case ("GET", "/stats/prometheus" | "/metrics"):
                body = await self.istio_metrics() if "only=istio" in request.path else await self.metrics()
                return http.Response(200, body, {"content-type": "text/plain; version=0.0.4"})
            case ("POST", "/drain"):
                await self.drain()
                return http.Response(200)
            case ("POST", "/quitquitquit"):
                self._stop.set()
                return http.Response(200)
        return http.Response(404)

    async def metrics(self) -> bytes:
        """Envoy's metrics with Istio's names, the agent's own, and the application's where it has some."""
        parts = []
        with contextlib.suppress(OSError, TimeoutError):
            answer = await http.fetch("127.0.0.1", ports.ADMIN, "/stats/prometheus", timeout=5)
            parts.append(istio_names(answer.body))
        parts.append(
            b"# TYPE istio_agent_uptime_seconds gauge\nistio_agent_uptime_seconds %.1f\n"
            b"# TYPE istio_agent_envoy_restarts_total counter\nistio_agent_envoy_restarts_total %d\n"
            % (time.monotonic() - self._started, self._restarts)
        )
        if given := os.environ.get("ISTIO_PROMETHEUS_ANNOTATIONS"):
            place = json.loads(given)
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                answer = await http.fetch("127.0.0.1", int(place["port"]), place["path"], timeout=5)
                parts.append(answer.body)
        return b"\n".join(p.rstrip(b"\n") for p in parts) + b"\n"

    async def istio_metrics(self) -> bytes:
        """Only what edges of the graph are made of: cheap enough for a look every second."""
        wanted = "/stats/prometheus?usedonly&filter=%5Eistio%5C.%28requests_total%7Ctcp_%7Crequest_duration%29"
        with contextlib.suppress(OSError, TimeoutError):
            return istio_names((await http.fetch("127.0.0.1", ports.ADMIN, wanted, timeout=5)).body)
        return b""

    async def drain(self) -> None:
        """Tell clients to go elsewhere, and give requests in flight their time."""
        if self._draining:
            return
        self._draining = True
        with contextlib.suppress(OSError, TimeoutError):
            await http.fetch("127.0.0.1", ports.ADMIN, "/drain_listeners?graceful&skip_exit", method="POST", timeout=5)
        await asyncio.sleep(float(os.environ.get("TERMINATION_DRAIN_DURATION_SECONDS", self._termination_s)))

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        server = await http.serve(self.handle, "0.0.0.0", ports.MERGED_METRICS)
        if os.environ.get("ISTIO_META_DNS_CAPTURE") == "true":
            # Before anything asks for a name: where user ids cannot be told apart, our own questions come here too.
            tasks.spawn(self.dns(), "dns")
        first = tasks.spawn(self.first_certificate(), "first certificate")
        stopped = tasks.spawn(self._stop.wait(), "stop")
        await asyncio.wait((first, stopped), return_when=asyncio.FIRST_COMPLETED)
        if self._stop.is_set():
            return 0
        if group := os.environ.get("ISTIO_META_AUTO_REGISTER_GROUP"):
            tasks.spawn(self.health(group), "health")
        envoy = tasks.spawn(self.envoy(), "envoy")
        renewal = tasks.spawn(self.renew(first.result()), "renewal")
        await stopped
        await self.drain()
        if self._envoy and self._envoy.returncode is None:
            self._envoy.terminate()
            try:
                async with asyncio.timeout(5):
                    await self._envoy.wait()
            except TimeoutError:
                self._envoy.kill()
        server.close()
        await tasks.cancel(envoy, renewal)
        return 0


async def accepted_listeners() -> bool:
    """Whether Envoy has taken clusters and listeners once: before that nothing goes through it, though it runs."""
    wanted = "/stats?filter=%5E(cluster_manager%5C.cds%7Clistener_manager%5C.lds)%5C.update_success%24"
    try:
        answer = await http.fetch("127.0.0.1", ports.ADMIN, wanted, timeout=2)
    except (OSError, TimeoutError):
        return False
    counts = [line.rpartition(b":")[2].strip() for line in answer.body.splitlines() if line.strip()]
    return len(counts) == 2 and all(c != b"0" for c in counts)


def write_secrets(directory: Path, certificate: str, key: str, root: str) -> None:
    """Certificate, key and root as file SDS; the key is readable by the proxy's user alone."""

    def secret(name: str, body: dict[str, object]) -> str:
        return json.dumps(
            {
                "resources": [
                    {
                        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                        "name": name,
                        **body,
                    }
                ]
            }
        )

    system = next((p for p in SYSTEM_ROOTS if Path(p).exists()), None)
    trusted = {"filename": system} if system else {"inline_string": root}  # none: then nobody outside is trusted
    write_atomic(
        directory / "sds-system.json", secret("system", {"validation_context": {"trusted_ca": trusted}}), 0o644
    )
    write_atomic(directory / "cert-chain.pem", certificate, 0o644)
    write_atomic(directory / "key.pem", key, 0o600)
    write_atomic(directory / "root-cert.pem", root, 0o644)
    write_atomic(
        directory / "sds-default.json",
        secret(
            "default",
            {
                "tls_certificate": {
                    "certificate_chain": {"inline_string": certificate},
                    "private_key": {"inline_string": key},
                }
            },
        ),
        0o600,
    )
    write_atomic(
        directory / "sds-rootca.json",
        secret("ROOTCA", {"validation_context": {"trusted_ca": {"inline_string": root}}}),
        0o600,
    )


def istio_names(raw: bytes) -> bytes:
    """``envoy_istio_requests_total`` -> ``istio_requests_total``; labels without a value are ``unknown``."""
    return ABSENT.sub(b'="unknown"', METRIC.sub(lambda m: (m[1] or b"") + b"istio_", raw))


async def run(kind: str, arguments: list[str], mark: int | None) -> int:
    concurrency = 2
    for i, a in enumerate(arguments):
        if a == "--concurrency" and i + 1 < len(arguments):
            concurrency = int(arguments[i + 1]) or os.cpu_count() or 2  # 0: a thread for each core
    return await Agent(kind, concurrency, mark).run()


async def grpc_bootstrap(mark: int | None) -> int:
    """For gRPC clients without a proxy: a certificate, and the file that GRPC_XDS_BOOTSTRAP names."""
    agent = Agent("sidecar", 1, mark)
    await agent.certificate()
    files = {
        "certificate_file": str(DIRECTORY / "cert-chain.pem"),
        "private_key_file": str(DIRECTORY / "key.pem"),
        "ca_certificate_file": str(DIRECTORY / "root-cert.pem"),
    }
    server = {
        "server_uri": f"{agent.control_plane}:{ports.XDS}",
        "channel_creds": [{"type": "tls", "config": files}],
        "server_features": ["xds_v3"],
    }
    node = {"id": str(agent.node), "cluster": agent.namespace, "metadata": {"GENERATOR": "grpc"}}
    path = DIRECTORY / "grpc-bootstrap.json"
    write_atomic(path, json.dumps({"xds_servers": [server], "node": node}))
    print(path)
    return 0
