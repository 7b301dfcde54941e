"""The addresses at which a gateway can be reached."""

from __future__ import annotations

import asyncio

from lateen.api import kinds
from lateen.api.reading import outside
from lateen.kit.jsons import dig
from lateen.kube.client import HttpClient

TRIES = 10
"""How often a Service is looked at, five times a second: whoever gives it an address takes a moment."""


async def address(client: HttpClient, namespace: str, name: str) -> str:
    """``http://localhost:8080``; empty if the gateway has no address yet."""
    for again in range(TRIES):
        if again:
            await asyncio.sleep(0.2)
        service = await client.get(kinds.SERVICE, namespace, name)
        if found := outside(service or {}):
            if http := found.get("80"):
                return f"http://{http.removesuffix(':80')}"
            return ", ".join(f"{at} (port {port})" for port, at in found.items())
        if dig(service, "spec", "type", default="LoadBalancer") != "LoadBalancer":
            return f"{dig(service, 'spec', 'clusterIP', default='')} (only inside the cluster)"
    return ""
