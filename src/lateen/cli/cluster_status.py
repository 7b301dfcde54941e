"""The part of ``lateen cluster status`` that queries a running cluster."""

from __future__ import annotations

import click

from lateen.api import kinds
from lateen.api.reading import outside
from lateen.cli.connect import with_client
from lateen.cli.output import table
from lateen.cluster.home import Home
from lateen.cluster.kubelet.limits import CONDITION
from lateen.kit.jsons import dig
from lateen.kube.client import Client


def show(home: Home) -> None:
    """Print why resource limits are not enforced, if so, and where gateways listen."""
    if says := with_client(str(home.kubeconfig), _unlimited):
        click.echo(f"\n{says}")
    addresses = with_client(str(home.kubeconfig), _addresses)
    if addresses:
        click.echo()
        click.echo(table([["LOAD BALANCER", "PORT", "ADDRESS"], *addresses]))


async def _unlimited(client: Client) -> str:
    """Why containers' resource limits are not enforced; empty if they are."""
    nodes, _ = await client.list(kinds.NODE)
    found = (c for node in nodes for c in dig(node, "status", "conditions", default=[]))
    return next((str(c["message"]) for c in found if c["type"] == CONDITION and c["status"] == "False"), "")


async def _addresses(client: Client) -> list[list[str]]:
    """The host ports of LoadBalancer services, which differ from the services' own if another program uses those."""
    services, _ = await client.list(kinds.SERVICE)
    rows = []
    for service in services:
        meta = service["metadata"]
        if dig(service, "spec", "type") != "LoadBalancer":
            continue
        names = {str(p["port"]): str(p.get("name") or p["port"]) for p in dig(service, "spec", "ports", default=[])}
        for port, at in outside(service).items():
            where = "none: no port of this machine was free" if at.endswith(":0") else at
            rows.append([f"{meta['namespace']}/{meta['name']}", f"{names.get(port, port)} ({port})", where])
    return rows
