"""The agent's settings: arguments, environment, and its pod's labels and annotations. Read once."""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lateen.agent import capture, interfaces
from lateen.agent.statistics import PLAIN, Statistics, statistics
from lateen.api.domain import CLUSTER_DOMAIN, TRUST_DOMAIN, service_suffix
from lateen.kit import duration
from lateen.kit.digits import digits
from lateen.wire import connections, labels, ports, requests
from lateen.wire.node import IPV6_REDIRECTED, ISTIO_VERSION, NodeId

PODINFO = Path("/etc/istio/pod")
STATUS_PORT = "status.sidecar.istio.io/port"
LABELS = "ISTIO_METAJSON_LABELS"
"""The variable with a machine's labels: it has no downward API."""
INTERCEPTION = "ISTIO_META_INTERCEPTION_MODE"
_FLAGS = {
    "--domain": "the DNS domain of the pod's namespace",
    "--concurrency": "Envoy's worker threads; 0 for one per core",
    "--proxyLogLevel": "Envoy's log level",
    "--proxyComponentLogLevel": "log levels of Envoy's components, as in misc:error",
    "--log_output_level": "the agent's log level: default:info, or scope:level separated by commas",
    "--log_as_json": "write the log as JSON",
    "--outlierLogPath": "the file to which Envoy writes outlier detection events",
}
_BARE = ("--log_as_json",)
_KINDS = ("sidecar", "router")


class UsageError(ValueError):
    """Arguments that ``pilot-agent proxy`` does not accept."""


def usage() -> str:
    flags = "\n".join(f"  {name:26} {what}" for name, what in _FLAGS.items())
    return f"usage: pilot-agent proxy sidecar|router [flags]\n\nRuns Envoy and serves its agent.\n\n{flags}\n"


@dataclass(frozen=True)
class Options:
    kind: str = "sidecar"
    concurrency: int = 2
    domain: str = ""
    log_level: str = "warning"
    component_log_level: str = "misc:error,config:error"
    outlier_log: str = ""
    """The file of events of outlier detection; empty for none."""
    mark: int | None = None
    """The socket mark of the proxy's own connections; None if its user id identifies them."""
    status_port: int = ports.MERGED_METRICS
    """The port that the agent listens on; 0: the usual port, but only inside its pod."""
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    service_naming: str = "APP_LABEL_AND_NAMESPACE"
    """``tracingServiceName`` of the proxy's configuration."""
    statistics: Statistics = PLAIN
    runtime: Mapping[str, str] = field(default_factory=dict)
    """``runtimeValues`` of the proxy's configuration."""
    most_connections: int = 0
    """``connectionSettings.globalDownstreamConnectionLimit`` of the proxy's configuration; 0 for the default."""
    flush_s: float = 0.5
    """After how many seconds Envoy writes what it has gathered for files (``fileFlushInterval``)."""
    flush_kb: int = 0
    """Of how much it writes at once (``fileFlushMinSizeKb``); 0 for Envoy's default."""
    probe: Mapping[str, Any] = field(default_factory=dict)
    """``readinessProbe`` of the proxy's configuration: a machine's application is probed with it."""
    probers: Mapping[str, Any] = field(default_factory=dict)
    """Path -> probe of the application (``inject.probes``)."""
    scrape_targets: tuple[tuple[int, str], ...] = ()
    """(port, path) of the application's metrics."""
    found: tuple[str, ...] = ()
    """The addresses of its interfaces."""
    ipv6_redirected: bool = False

    @property
    def namespace(self) -> str:
        return self.env.get("POD_NAMESPACE", "default")

    @property
    def pod(self) -> str:
        return self.env.get("POD_NAME") or socket.gethostname()

    @property
    def account(self) -> str:
        return self.env.get("SERVICE_ACCOUNT", "default")

    @property
    def address(self) -> str:
        return self.env.get("INSTANCE_IP", "127.0.0.1")

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of its addresses, that of the pod first."""
        return tuple(dict.fromkeys((self.address, *self.found)))

    @property
    def ipv6(self) -> bool:
        """Whether others reach it by IPv6."""
        return any(":" in a for a in self.addresses)

    @property
    def families(self) -> str:
        """The families of addresses by which connections come to its proxy: ``4``, ``6``, ``46``, or empty."""
        v4 = any("." in a for a in self.addresses)
        return f"{'4' if v4 else ''}{'6' if self.ipv6 and self.ipv6_redirected else ''}"

    @property
    def trust_domain(self) -> str:
        return self.env.get("TRUST_DOMAIN", TRUST_DOMAIN)

    @property
    def identity(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.account}"

    @property
    def control_plane(self) -> str:
        return (self.env.get("CA_ADDR") or f"istiod.istio-system.svc:{ports.XDS}").rpartition(":")[0]

    @property
    def cluster(self) -> str:
        """The name of its cluster; empty if unknown."""
        return self.env.get("ISTIO_META_CLUSTER_ID", "")

    @property
    def proxyless(self) -> bool:
        """Whether the application speaks xDS itself and needs an agent but no Envoy."""
        return self.env.get("DISABLE_ENVOY") == "true"

    @property
    def dns_capture(self) -> bool:
        return self.env.get("ISTIO_META_DNS_CAPTURE") == "true"

    @property
    def probe_address(self) -> str:
        """The address at which the application is probed: the pod's, as the kubelet would, or localhost if inbound
        traffic goes there too."""
        local = self.env.get("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION") == "true"
        return "127.0.0.1" if local else self.address

    @property
    def node(self) -> NodeId:
        domain = self.domain or f"{self.namespace}{service_suffix(CLUSTER_DOMAIN)}"
        return NodeId(self.kind, self.address, self.pod, self.namespace, domain)

    @property
    def service_cluster(self) -> str:
        """The workload's name in Envoy's own spans and statistics, as in ``mesh.reporting``."""
        labels, workload = self.labels, self.env.get("ISTIO_META_WORKLOAD_NAME") or "istio-proxy"
        name = labels.get("app") or workload
        if self.service_naming.startswith("CANONICAL"):
            name = labels.get("service.istio.io/canonical-name") or workload
        return name if self.service_naming == "CANONICAL_NAME_ONLY" else f"{name}.{self.namespace}"

    @property
    def metadata(self) -> dict[str, object]:
        """The node metadata for istiod."""
        out: dict[str, object] = {
            k.removeprefix("ISTIO_META_"): v for k, v in self.env.items() if k.startswith("ISTIO_META_")
        }
        return out | {
            "LABELS": dict(self.labels),
            "NAMESPACE": self.namespace,
            "NAME": self.pod,
            "SERVICE_ACCOUNT": self.account,
            "INSTANCE_IPS": ",".join(self.addresses),
            "ISTIO_VERSION": ISTIO_VERSION,
            **({IPV6_REDIRECTED: "true"} if self.ipv6_redirected else {}),
            connections.METADATA: "true",
            labels.METADATA: "true",
            **({requests.METADATA: "true"} if self.flush_s <= requests.LATEST_S else {}),
            requests.MESSAGES_METADATA: "true",
        }


@dataclass(frozen=True)
class Log:
    levels: str = "default:info"
    as_json: bool = False


def read(arguments: list[str], mark: int | None) -> tuple[Options, Log]:
    """The options of ``pilot-agent proxy`` in this process's environment. Raises UsageError, and ValueError for
    variables that cannot be parsed."""
    kind, flags = _parse(arguments)
    env = dict(os.environ)
    config = _object(env.get("PROXY_CONFIG"), "PROXY_CONFIG")
    annotations = _podinfo("annotations")
    if env.get(INTERCEPTION) == "TPROXY" and not capture.transparent():
        env[INTERCEPTION] = "REDIRECT"  # the effective interception mode, which istiod must know
    port = annotations.get(STATUS_PORT) or config.get("statusPort") or ports.MERGED_METRICS
    options = Options(
        kind=kind,
        concurrency=_concurrency(flags.get("--concurrency", config.get("concurrency")), env),
        domain=(flags.get("--domain") or "").replace("$(POD_NAMESPACE)", env.get("POD_NAMESPACE", "default")),
        log_level=flags.get("--proxyLogLevel") or "warning",
        component_log_level=flags.get("--proxyComponentLogLevel") or "misc:error,config:error",
        outlier_log=flags.get("--outlierLogPath") or "",
        mark=mark,
        status_port=int(port),
        env=env,
        labels=_podinfo("labels") or _object(env.get(LABELS), LABELS),
        service_naming=config.get("tracingServiceName") or Options.service_naming,
        statistics=statistics(config, annotations, env.get("INSTANCE_IP", "")),
        runtime=config.get("runtimeValues") or {},
        most_connections=int((config.get("connectionSettings") or {}).get("globalDownstreamConnectionLimit") or 0),
        flush_s=duration.seconds(config["fileFlushInterval"]) if config.get("fileFlushInterval") else Options.flush_s,
        flush_kb=int(config.get("fileFlushMinSizeKb") or 0),
        probe=config.get("readinessProbe") or {},
        probers=_object(env.get("ISTIO_KUBE_APP_PROBERS"), "ISTIO_KUBE_APP_PROBERS"),
        scrape_targets=_targets(_object(env.get("ISTIO_PROMETHEUS_ANNOTATIONS"), "ISTIO_PROMETHEUS_ANNOTATIONS")),
        found=tuple(interfaces.addresses()),
        ipv6_redirected=interfaces.redirected(),
    )
    return options, Log(flags.get("--log_output_level") or "default:info", "--log_as_json" in flags)


def _parse(arguments: list[str]) -> tuple[str, dict[str, str]]:
    rest, kind, flags = list(arguments), "sidecar", dict[str, str]()
    if rest and not rest[0].startswith("-"):
        kind = rest.pop(0)
        if kind not in _KINDS:
            raise UsageError(f'"{kind}" is not a kind of proxy; there are: {", ".join(_KINDS)}')
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in _FLAGS:
            raise UsageError(f"unknown flag {name}; --help lists all")
        if not equals and name not in _BARE:
            if not rest:
                raise UsageError(f"{name} needs a value")
            value = rest.pop(0)
        flags[name] = value
    return kind, flags


def _object(text: str | None, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text and text.strip() else {}
    except ValueError as e:
        raise ValueError(f"the variable {name} is not JSON: {e}") from e
    if not isinstance(found, dict):
        raise ValueError(f"the variable {name} is not a JSON object")
    return found


def _podinfo(name: str) -> dict[str, str]:
    """Parse the downward API's file: ``key="value"`` with escapes, one per line."""
    out = {}
    try:
        lines = (PODINFO / name).read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        key, _, value = line.partition("=")
        try:
            out[key] = str(json.loads(value)) if value.startswith('"') else value
        except ValueError:
            out[key] = value.strip('"')
    return out


def _concurrency(given: Any, env: Mapping[str, str]) -> int:
    """The number given, or else the CPU limit, rounded up; 0: one thread per core."""
    text = given if given is not None else env.get("ISTIO_CPU_LIMIT") or 2
    try:
        number = math.ceil(float(text))
    except ValueError:
        raise ValueError(f'"{text}" is not a number of threads') from None
    cores = os.cpu_count() or 2
    return (min(number, cores) if given is None else number) or cores


def _targets(given: Mapping[str, Any]) -> tuple[tuple[int, str], ...]:
    """Several targets, or else the one of the annotations ``prometheus.io/port`` and ``path``, with Prometheus'
    defaults: port 80, path /metrics."""
    one = [given] if any(given.get(k) for k in ("scrape", "port", "path")) else []
    found = [(str(t.get("port") or "80"), str(t.get("path") or "/metrics")) for t in given.get("targets") or one]
    return tuple((int(port), path) for port, path in found if digits(port))
