"""Gateway: https://istio.io/latest/docs/reference/config/networking/gateway/"""

from __future__ import annotations

from lateen.api.config import Config
from lateen.api.networking.server_tls import ServerTLS


class ServerPort(Config):
    number: int
    protocol: str
    name: str
    target_port: int | None = None


class Server(Config):
    port: ServerPort
    hosts: tuple[str, ...]
    bind: str = ""
    tls: ServerTLS | None = None
    default_endpoint: str = ""
    name: str = ""


class Gateway(Config):
    servers: tuple[Server, ...] = ()
    selector: dict[str, str] = {}
