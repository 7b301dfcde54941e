"""ServiceEntry: https://istio.io/latest/docs/reference/config/networking/service-entry/"""

from __future__ import annotations

from typing import Annotated, Literal

from lateen.api.config import Config, Limits
from lateen.api.networking.common import LabelSelector
from lateen.api.networking.workload_entry import WorkloadEntry


class ServicePort(Config):
    number: int
    name: str
    protocol: str = ""
    target_port: Annotated[int, Limits(minimum=1)] | None = None


class ServiceEntry(Config):
    hosts: Annotated[tuple[str, ...], Limits(max_items=256)]
    addresses: Annotated[tuple[str, ...], Limits(max_items=256)] = ()
    ports: tuple[ServicePort, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    endpoints: tuple[WorkloadEntry, ...] = ()
    workload_selector: LabelSelector | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
