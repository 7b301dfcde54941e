"""Types that several kinds share."""

from __future__ import annotations

from typing import Annotated

from lateen.api.config import Config, Limits

LabelValue = Annotated[str, Limits(max_length=63)]
Named = Annotated[str, Limits(max_length=253)]
"""The name of an object"""


class PortSelector(Config):
    number: int = 0


class Destination(Config):
    host: str
    subset: str = ""
    port: PortSelector | None = None


class WorkloadSelector(Config):
    match_labels: dict[str, LabelValue] = {}


class LabelSelector(Config):
    """The selector of the older networking kinds, with ``labels`` instead of ``matchLabels``."""

    labels: dict[str, LabelValue] = {}


class PolicyTargetReference(Config):
    kind: str
    name: Named
    group: str = ""
    namespace: str = ""
