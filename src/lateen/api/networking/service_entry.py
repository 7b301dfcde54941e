"""ServiceEntry: https://istio.io/latest/docs/reference/config/networking/service-entry/"""

from __future__ import annotations

from typing import Annotated, Literal

from lateen.api.config import CelRule, Config, Limits, one_of, rules
from lateen.api.networking.common import LabelSelector
from lateen.api.networking.workload_entry import WorkloadEntry


class ServicePort(Config):
    number: int
    name: str
    protocol: str = ""
    target_port: Annotated[int, Limits(minimum=1)] | None = None


class ServiceEntry(Config):
    RULES = rules(
        one_of("only one of WorkloadSelector or Endpoints can be set", "workloadSelector", "endpoints"),
        CelRule(
            '(has(self.resolution) ? self.resolution : "NONE") != "NONE" || !has(self.endpoints)',
            "NONE mode cannot set endpoints",
        ),
    )

    hosts: Annotated[tuple[str, ...], Limits(max_items=256)]
    addresses: Annotated[tuple[str, ...], Limits(max_items=256)] = ()
    ports: tuple[ServicePort, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    endpoints: Annotated[tuple[WorkloadEntry, ...], Limits(max_items=4096)] = ()
    workload_selector: LabelSelector | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
