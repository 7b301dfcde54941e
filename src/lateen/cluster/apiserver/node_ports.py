"""Which node ports the ports of a Service get. Follows k8s.io/kubernetes, pkg/registry/core/service/storage (alloc.go,
``patchAllocatedValues``)."""

from __future__ import annotations

from collections.abc import Callable

from lateen.kit.jsons import Json

TYPES = ("NodePort", "LoadBalancer")
"""Of Services that have node ports."""


def assign(spec: Json, was: Json | None, free: Callable[[], int]) -> None:
    """Fill in what is missing, in place. ``was``: the spec before, None of a new Service; ``free``: a port that nobody
    has."""
    ports = spec.get("ports") or []
    if spec.get("type") not in TYPES:
        return
    if was is not None and was.get("type") in TYPES:
        _keep(ports, was.get("ports") or [])
    if spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
        return
    shared = {p["port"]: p["nodePort"] for p in ports if p.get("nodePort")} if was is None else {}
    for p in ports:
        if not p.get("nodePort"):
            p["nodePort"] = shared.get(p.get("port")) or free()
            if was is None:  # TCP and UDP of one port have one node port
                shared[p.get("port")] = p["nodePort"]


def _keep(ports: list[Json], before: list[Json]) -> None:
    """A port keeps its node port, whatever else of it has changed but its name."""
    had = {p.get("name"): p.get("nodePort") for p in before}
    used = {p.get("nodePort") for p in ports} & set(had.values())
    for p in ports:
        if not p.get("nodePort") and (kept := had.get(p.get("name"))) and kept not in used:
            p["nodePort"] = kept
