"""The environment variables by which containers find Services: ``{NAME}_SERVICE_HOST`` and ``{NAME}_SERVICE_PORT``, and
those of Docker's links, as the kubelet makes them (Kubernetes' documentation of Services, "Discovering services").
"""

from __future__ import annotations

from collections.abc import Iterable

from lateen.cluster.network import plan
from lateen.kit.jsons import Json

API: Json = {
    "metadata": {"name": "kubernetes"},
    "spec": {"clusterIP": plan.API_IP, "ports": [{"name": "https", "port": 443}]},
}
"""The API server's Service, which pods of every namespace are told of."""


def variables(services: Iterable[Json]) -> dict[str, str]:
    """Of Services without an address of their own (headless, ExternalName) there are none."""
    out: dict[str, str] = {}
    for service in services:
        address, ports = service["spec"].get("clusterIP") or "None", service["spec"].get("ports") or []
        if address != "None" and ports:
            out |= _of(_named(str(service["metadata"]["name"])), str(address), ports)
    return out


def _of(name: str, address: str, ports: list[Json]) -> dict[str, str]:
    out = {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(ports[0]["port"])}
    out |= {f"{name}_SERVICE_PORT_{_named(str(p['name']))}": str(p["port"]) for p in ports if p.get("name")}
    out[f"{name}_PORT"] = _url(address, ports[0])
    for p in ports:
        protocol, port = _protocol(p), str(p["port"])
        link = f"{name}_PORT_{port}_{protocol}"
        out |= {
            link: _url(address, p),
            f"{link}_PROTO": protocol.lower(),
            f"{link}_PORT": port,
            f"{link}_ADDR": address,
        }
    return out


def _named(name: str) -> str:
    return name.upper().replace("-", "_")


def _protocol(port: Json) -> str:
    return str(port.get("protocol") or "TCP")


def _url(address: str, port: Json) -> str:
    return f"{_protocol(port).lower()}://{address}:{port['port']}"
