"""WorkloadEntry: https://istio.io/latest/docs/reference/config/networking/workload-entry/"""

from __future__ import annotations

from typing import Annotated

from lateen.api.config import CelRule, Config, Limits, rules
from lateen.api.networking.common import Named

Text = Annotated[str, Limits(max_length=2048)]


class WorkloadEntry(Config):
    RULES = rules(
        CelRule(
            '!(has(self.address) ? self.address : "").startsWith("unix://") || !has(self.ports)',
            "UDS may not include ports",
        ),
    )

    address: str = ""
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    network: Text = ""
    locality: Text = ""
    weight: int | None = None
    service_account: Named = ""
