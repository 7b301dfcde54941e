"""Badges of the graph's nodes for configuration: a timeout, a fault, a circuit breaker, a missing sidecar. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast, get_args

from lateen.api import kinds
from lateen.api.canonical import LATEST
from lateen.console import routes, shapes
from lateen.console.inventory import Inventory
from lateen.kit.jsons import Json, dig

ORDER = get_args(shapes.Badge)
UNKNOWN = "unknown"


class Nodes:
    """Badges by node; the identities are those of ``console.graph``."""

    def __init__(self) -> None:
        self._found: dict[str, set[str]] = {}

    def add(self, nodes: Iterable[str], badges: Iterable[str]) -> None:
        for node in nodes:
            self._found.setdefault(node, set()).update(badges)

    def json(self) -> dict[str, list[shapes.Badge]]:
        found = ((node, sorted(badges, key=ORDER.index)) for node, badges in sorted(self._found.items()) if badges)
        return {node: cast("list[shapes.Badge]", badges) for node, badges in found}


def badges(inventory: Inventory) -> shapes.Badges:
    nodes = Nodes()
    for w in inventory.workloads():
        if w["bare"]:
            nodes.add(_workload(w), ["no-sidecar"])
    exposed = _behind_gateways(inventory) | inventory.routed_from_gateways()
    for row in inventory.services():
        if row["origin"] != "Service":
            continue
        namespace, name = row["namespace"], row["name"]
        here = [f"service/{namespace}/{name}"]
        if row["host"] in exposed:
            nodes.add(here, ["gateway"])
        for ref in inventory.rules(namespace, name):
            obj = inventory.find(kinds.find(ref.group, ref.kind), ref.namespace, ref.name) or {}
            if ref.kind == kinds.VIRTUAL_SERVICE.kind:
                nodes.add(here, of_rule(obj))
            elif ref.kind != kinds.DESTINATION_RULE.kind:
                nodes.add(here, routes.badges(obj))
            else:
                nodes.add(here, _of_policy(dig(obj, "spec", "trafficPolicy", default={})))
                _subsets(nodes, inventory, namespace, name, dig(obj, "spec", "subsets", default=[]))
    return {"nodes": nodes.json()}


def of_rule(rule: Json) -> set[str]:
    """The badges of a VirtualService."""
    out = {"virtual-service"}
    for http in dig(rule, "spec", "http", default=[]):
        out |= {field for field in ("fault", "timeout", "mirror") if http.get(field)}
        if http.get("mirrors"):
            out.add("mirror")
        if dig(http, "retries", "attempts"):
            out.add("retries")
        if len([d for d in http.get("route") or [] if d.get("weight")]) > 1:
            out.add("shift")
    if any(len(t.get("route") or []) > 1 for kind in ("tcp", "tls") for t in dig(rule, "spec", kind, default=[])):
        out.add("shift")
    return out


def _of_policy(policy: Json) -> set[str]:
    """The badges of a DestinationRule's traffic policy, or of one of its ports'."""
    parts = [policy, *(policy.get("portLevelSettings") or [])]
    breaking = any(p.get("connectionPool") or p.get("outlierDetection") for p in parts)
    return {"circuit-breaker"} if breaking else set()


def _subsets(nodes: Nodes, inventory: Inventory, namespace: str, name: str, subsets: list[Json]) -> None:
    page = inventory.service(namespace, name)
    for row in page["behind"] if page else []:
        labels = inventory.labels(row["namespace"], row["kind"], row["name"])
        for subset in subsets:
            if (subset.get("labels") or {}).items() <= labels.items():
                nodes.add(_workload(row), _of_policy(subset.get("trafficPolicy") or {}))


def _workload(row: shapes.WorkloadRow) -> list[str]:
    """A workload's nodes in all kinds of graph."""
    namespace, app = row["namespace"], row["app"]
    version = "" if row["version"] == LATEST else row["version"]
    return [f"workload/{namespace}/{row['name']}", f"app/{namespace}/{app}", f"app/{namespace}/{app}/{version}"]


def _behind_gateways(inventory: Inventory) -> set[str]:
    """The hosts that VirtualServices at gateways send requests to."""
    known = {
        alias: row["host"] for row in inventory.services() for alias in inventory.hosts(row["namespace"], row["name"])
    }
    out: set[str] = set()
    for rule in inventory.objects(kinds.VIRTUAL_SERVICE):
        if not set(dig(rule, "spec", "gateways", default=[])) - {"mesh"}:
            continue
        namespace = rule["metadata"].get("namespace", "")
        for kind in ("http", "tcp", "tls"):
            for route in dig(rule, "spec", kind, default=[]):
                for destination in route.get("route") or []:
                    host = str(dig(destination, "destination", "host", default=""))
                    out.add(known.get(host if "." in host else f"{host}.{namespace}", host))
    return out
