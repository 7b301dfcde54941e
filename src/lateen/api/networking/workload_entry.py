"""WorkloadEntry: https://istio.io/latest/docs/reference/config/networking/workload-entry/"""

from __future__ import annotations

from lateen.api.config import Config


class WorkloadEntry(Config):
    address: str = ""
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    network: str = ""
    locality: str = ""
    weight: int | None = None
    service_account: str = ""
