"""What several kinds share."""

from __future__ import annotations

from lateen.api.config import Config


class PortSelector(Config):
    number: int = 0


class Destination(Config):
    host: str
    subset: str = ""
    port: PortSelector | None = None


class WorkloadSelector(Config):
    match_labels: dict[str, str] = {}


class LabelSelector(Config):
    """The selector of networking's older kinds: ``labels`` instead of ``matchLabels``."""

    labels: dict[str, str] = {}


class PolicyTargetReference(Config):
    kind: str
    name: str
    group: str = ""
    namespace: str = ""
