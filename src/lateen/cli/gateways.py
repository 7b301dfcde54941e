"""The addresses at which a gateway can be reached."""

from __future__ import annotations

import asyncio

from lateen.api import kinds
from lateen.kit.jsons import dig
from lateen.kube.client import HttpClient

HOST_PORTS = "lateen.dev/host-ports"
"""Annotation of the embedded cluster: ``80=8080,443=8443``, the Service's port and the host's."""
_TRIES = 10


async def address(client: HttpClient, namespace: str, name: str) -> str:
    """``http://localhost:8080``; empty if the gateway has no address yet."""
    for _ in range(_TRIES):
        service = await client.get(kinds.SERVICE, namespace, name)
        said = dig(service, "metadata", "annotations", HOST_PORTS, default="")
        opened = dict(p.split("=") for p in said.split(",") if p)
        if opened:
            http = opened.get("80")
            if http is not None:
                return f"http://localhost{'' if http == '80' else f':{http}'}"
            return ", ".join(f"localhost:{host} (port {port})" for port, host in opened.items())
        given = dig(service, "status", "loadBalancer", "ingress", 0, default={})
        if at := given.get("hostname") or given.get("ip"):
            return f"http://{at}"
        if dig(service, "spec", "type", default="LoadBalancer") != "LoadBalancer":
            return f"{dig(service, 'spec', 'clusterIP', default='')} (only inside the cluster)"
        await asyncio.sleep(0.2)
    return ""
