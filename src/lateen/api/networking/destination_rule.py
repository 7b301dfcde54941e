"""DestinationRule: https://istio.io/latest/docs/reference/config/networking/destination-rule/"""

from __future__ import annotations

from lateen.api.config import Config
from lateen.api.networking.common import WorkloadSelector
from lateen.api.networking.traffic_policy import TrafficPolicy


class Subset(Config):
    name: str
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRule(Config):
    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()
    workload_selector: WorkloadSelector | None = None
