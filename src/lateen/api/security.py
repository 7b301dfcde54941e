"""security.istio.io: PeerAuthentication."""

from __future__ import annotations

from typing import Literal

from lateen.api.config import Config
from lateen.api.networking import WorkloadSelector

Mode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]


class MutualTLS(Config):
    mode: Mode = "UNSET"


class PeerAuthentication(Config):
    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[str, MutualTLS] = {}
