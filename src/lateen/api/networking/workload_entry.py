"""WorkloadEntry: https://istio.io/latest/docs/reference/config/networking/workload-entry/"""

from __future__ import annotations

from typing import Annotated

from lateen.api.config import Config, Limits
from lateen.api.networking.common import Named

Text = Annotated[str, Limits(max_length=2048)]


class WorkloadEntry(Config):
    address: str = ""
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    network: Text = ""
    locality: Text = ""
    weight: int | None = None
    service_account: Named = ""
