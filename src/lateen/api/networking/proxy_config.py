"""ProxyConfig: https://istio.io/latest/docs/reference/config/networking/proxy-config/"""

from __future__ import annotations

from lateen.api.config import Config
from lateen.api.networking.common import WorkloadSelector


class ProxyImage(Config):
    image_type: str = ""


class ProxyConfig(Config):
    selector: WorkloadSelector | None = None
    concurrency: int | None = None
    environment_variables: dict[str, str] = {}
    image: ProxyImage | None = None
