"""Types that several kinds share."""

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
    """The selector of the older networking kinds, with ``labels`` instead of ``matchLabels``."""

    labels: dict[str, str] = {}


class PolicyTargetReference(Config):
    kind: str
    name: str
    group: str = ""
    namespace: str = ""
