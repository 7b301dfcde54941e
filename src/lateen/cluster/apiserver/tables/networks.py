"""Rows of services, their endpoints, ingresses and network policies."""

from __future__ import annotations

from typing import Any

from lateen.cluster.apiserver.tables.cells import NONE, SHOWN, Printer, age, first, labels, name, selector
from lateen.kit.jsons import Json, dig


def _service(o: Json) -> list[Any]:
    spec = o["spec"]
    ports = ",".join(
        f"{p['port']}:{p['nodePort']}/{p['protocol']}" if p.get("nodePort") else f"{p['port']}/{p['protocol']}"
        for p in spec.get("ports") or []
    )
    return [
        name(o),
        spec["type"],
        spec.get("clusterIP") or NONE,
        _external(o),
        ports or NONE,
        age(o),
        labels(spec.get("selector")),
    ]


def _external(o: Json) -> str:
    spec = o["spec"]
    given = ",".join(spec.get("externalIPs") or [])
    if spec["type"] == "LoadBalancer":
        return ",".join(part for part in (_balancer(o), given) if part) or "<pending>"
    return str(spec.get("externalName", "")) if spec["type"] == "ExternalName" else given or NONE


def _balancer(o: Json) -> str:
    found = dig(o, "status", "loadBalancer", "ingress", default=[])
    return ",".join(str(i.get("ip") or i.get("hostname") or "") for i in found)


def _ingress(o: Json) -> list[Any]:
    rules = dig(o, "spec", "rules", default=[])
    hosts = [str(r["host"]) for r in rules if r.get("host")]
    more = f" + {len(rules) - SHOWN} more..." if len(hosts) > SHOWN else ""
    noted = dig(o, "metadata", "annotations", "kubernetes.io/ingress.class")
    return [
        name(o),
        dig(o, "spec", "ingressClassName") or noted or NONE,
        ",".join(hosts[:SHOWN]) + more or "*",
        _balancer(o),
        "80, 443" if dig(o, "spec", "tls") else "80",
        age(o),
    ]


def _ingress_class(o: Json) -> list[Any]:
    parameters = dig(o, "spec", "parameters")
    shown = NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        shown = f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"
    return [name(o), dig(o, "spec", "controller", default=""), shown, age(o)]


def _endpoints(o: Json) -> list[Any]:
    found = [
        f"{a['ip']}:{p['port']}" if p else str(a["ip"])
        for s in o.get("subsets") or []
        for p in s.get("ports") or [None]
        for a in s.get("addresses") or []
    ]
    return [name(o), first(found), age(o)]


def _slice(o: Json) -> list[Any]:
    ports = (str(p["port"]) if p.get("port") is not None else "*" for p in o.get("ports") or [])
    found = (a for e in o.get("endpoints") or [] for a in e.get("addresses") or [])
    return [name(o), o.get("addressType"), first(ports, "<unset>"), first(found, "<unset>"), age(o)]


def _policy(o: Json) -> list[Any]:
    return [name(o), selector(dig(o, "spec", "podSelector")), age(o)]


PRINTERS = {
    "Service": Printer(("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "+Selector"), _service),
    "Ingress": Printer(("Name", "Class", "Hosts", "Address", "Ports", "Age"), _ingress),
    "IngressClass": Printer(("Name", "Controller", "Parameters", "Age"), _ingress_class),
    "NetworkPolicy": Printer(("Name", "Pod-Selector", "Age"), _policy),
    "Endpoints": Printer(("Name", "Endpoints", "Age"), _endpoints),
    "EndpointSlice": Printer(("Name", "AddressType", "Ports", "Endpoints", "Age"), _slice),
}
