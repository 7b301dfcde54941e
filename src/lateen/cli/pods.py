"""Finds pods by istioctl's forms of names, and queries the agents and proxies in them."""

from __future__ import annotations

from typing import Any

from lateen.api import kinds
from lateen.api.reading import PROXY, has_proxy
from lateen.cli.output import CliError
from lateen.kit import jsons, selectors
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient

_WORKLOADS = {
    "deploy": kinds.DEPLOYMENT,
    "deployment": kinds.DEPLOYMENT,
    "deployments": kinds.DEPLOYMENT,
    "rs": kinds.REPLICA_SET,
    "replicaset": kinds.REPLICA_SET,
    "svc": kinds.SERVICE,
    "service": kinds.SERVICE,
    "services": kinds.SERVICE,
}


async def find(client: HttpClient, text: str, namespace: str) -> Json:
    """The pod of ``pod``, ``pod.namespace``, ``pod/x``, ``deploy/x[.namespace]``, ``svc/x``. Raises CliError."""
    kind, slash, name = text.rpartition("/")
    if slash and kind not in ("pod", "pods", "po"):
        if kind not in _WORKLOADS:
            raise CliError(f'"{text}": use pod, deployment/NAME or service/NAME')
        return await _of_workload(client, kind, name, namespace)
    for where, pod in _readings(name, namespace):
        found = await client.get(kinds.POD, where, pod)
        if found is not None:
            return found
    listed, _ = await client.list(kinds.POD, namespace)
    near = [p["metadata"]["name"] for p in listed if p["metadata"]["name"].startswith(name.partition("-")[0])]
    hint = f"; there is {', '.join(near[:3])}" if near else ""
    raise CliError(f'pods "{name}" not found in namespace {namespace}{hint}')


def _readings(name: str, namespace: str) -> list[tuple[str, str]]:
    pod, dot, other = name.partition(".")
    return [(namespace, name), *([(other, pod)] if dot else [])]


async def _of_workload(client: HttpClient, kind: str, name: str, namespace: str) -> Json:
    for where, plain in _readings(name, namespace):
        found = await client.get(_WORKLOADS[kind], where, plain)
        if found is None:
            continue
        selector: Any = dig(found, "spec", "selector", default={})
        wanted = selector if _WORKLOADS[kind] == kinds.SERVICE else selector.get("matchLabels") or {}
        pods, _ = await client.list(kinds.POD, where)
        for pod in pods:
            if wanted and selectors.subset(wanted, dig(pod, "metadata", "labels", default={})):
                return pod
        raise CliError(f"{kind}/{plain} in namespace {where} has no pods")
    raise CliError(f'{kind} "{name}" not found in namespace {namespace}')


async def ask(client: HttpClient, pod: Json, method: str, path: str, port: int | None = None) -> bytes:
    """Query Envoy's admin interface, or another port of the proxy's container. Raises CliError."""
    meta = pod["metadata"]
    if not has_proxy(pod):
        raise CliError(
            f"pod {meta['name']}.{meta['namespace']} has no proxy; is its namespace labelled "
            "istio-injection=enabled, and was the pod created after that?"
        )
    command = ["pilot-agent", "request", *([f"--debug-port={port}"] if port else []), method, path]
    out, err = await client.execute(meta["namespace"], meta["name"], PROXY, command, b"")
    if err.strip():
        raise CliError(f"{meta['name']}.{meta['namespace']}: {err.decode(errors='replace').strip()}")
    return out


async def ask_json(client: HttpClient, pod: Json, path: str) -> Any:
    out = await ask(client, pod, "GET", path)
    try:
        return jsons.loads(out)
    except ValueError:
        name = pod["metadata"]["name"]
        raise CliError(f"{name}: the proxy answered {path} with something that is not JSON") from None
