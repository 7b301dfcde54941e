"""WorkloadGroup: https://istio.io/latest/docs/reference/config/networking/workload-group/"""

from __future__ import annotations

from lateen.api.config import Config
from lateen.api.networking.workload_entry import WorkloadEntry


class WorkloadGroupMetadata(Config):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class HTTPHeader(Config):
    name: str = ""
    value: str = ""


class HTTPProbe(Config):
    port: int
    path: str = ""
    host: str = ""
    scheme: str = ""
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPProbe(Config):
    port: int
    host: str = ""


class ExecProbe(Config):
    command: tuple[str, ...]


class GRPCProbe(Config):
    port: int | None = None
    service: str = ""


class ReadinessProbe(Config):
    initial_delay_seconds: int | None = None
    timeout_seconds: int | None = None
    period_seconds: int | None = None
    success_threshold: int | None = None
    failure_threshold: int | None = None
    http_get: HTTPProbe | None = None
    tcp_socket: TCPProbe | None = None
    exec: ExecProbe | None = None
    grpc: GRPCProbe | None = None


class WorkloadGroup(Config):
    metadata: WorkloadGroupMetadata | None = None
    template: WorkloadEntry | None = None
    probe: ReadinessProbe | None = None
