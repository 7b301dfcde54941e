"""The selection of pods for a command, and requests to their agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import click

from lateen.api import kinds
from lateen.api.decoding import owner
from lateen.api.reading import has_proxy
from lateen.cli.connect import complete, target_options
from lateen.cli.output import USAGE, CliError, warn
from lateen.dump.requests import Pods
from lateen.kit import selectors
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient
from lateen.kube.errors import KubeError
from lateen.wire import ports

KINDS = {
    **dict.fromkeys(("pod", "pods", "po"), "pod"),
    **dict.fromkeys(("svc", "service", "services"), "svc"),
    **dict.fromkeys(("ns", "namespace", "namespaces"), "ns"),
    **dict.fromkeys(
        ("deploy", "deployment", "deployments", "rs", "replicaset", "sts", "statefulset", "ds", "daemonset", "job"),
        "workload",
    ),
}
CONNECT_S = 20


def selection(function: Callable[..., Any]) -> Callable[..., Any]:
    """RESOURCE… and -A, passed on as ``resources`` and ``everywhere``."""
    function = click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")(function)
    function = click.argument("resources", nargs=-1, metavar="[RESOURCE]...", shell_complete=complete(kinds.POD))(
        function
    )
    return target_options(function)


async def select(
    client: HttpClient, resources: tuple[str, ...], namespace: str, everywhere: bool = False, meshed: bool = True
) -> list[Json]:
    """Running pods, with ``meshed`` those with a proxy: the ones of ``deploy/x``, ``svc/x``, ``pod/x``, ``ns/x``, or of
    a workload or pod called ``x``, each optionally with ``.namespace``; all of the namespace without any. Raises
    CliError."""
    if everywhere:
        found, _ = await client.list(kinds.POD)
        return _running(found, meshed, "in the cluster")
    if not resources:
        found, _ = await client.list(kinds.POD, namespace)
        return _running(found, meshed, f"in namespace {namespace}; choose another one with -n, or -A for all")
    out: dict[str, Json] = {}
    for text in resources:
        for pod in await _of(client, text, namespace, meshed):
            out[str(pod["metadata"].get("uid"))] = pod
    return list(out.values())


async def _of(client: HttpClient, text: str, namespace: str, meshed: bool) -> list[Json]:
    kind, slash, name = text.rpartition("/")
    if slash and kind not in KINDS:
        raise CliError(f'"{text}": use deploy/NAME, svc/NAME, pod/NAME, ns/NAME or the name of a workload', USAGE)
    kind = KINDS[kind] if slash else ""
    if kind == "ns":
        found, _ = await client.list(kinds.POD, name)
        return _running(found, meshed, f"in namespace {name}")
    plain, dot, other = name.partition(".")
    for where, called in ((namespace, name), *([(other, plain)] if dot else [])):
        listed, _ = await client.list(kinds.POD, where)
        matching = [p for p in listed if await _is(client, p, kind, called, where)]
        if matching:
            return _running(matching, meshed, f"among the pods of {text}")
    raise CliError(f'nothing named "{text}" has pods in namespace {namespace}')


async def _is(client: HttpClient, pod: Json, kind: str, name: str, namespace: str) -> bool:
    if kind == "svc":
        service = await client.get(kinds.SERVICE, namespace, name)
        wanted: Json = dig(service or {}, "spec", "selector", default={})
        return bool(wanted) and selectors.subset(wanted, dig(pod, "metadata", "labels", default={}))
    called = pod["metadata"]["name"] == name
    return (called and kind != "workload") or (kind != "pod" and owner(pod) == name)


def _running(pods: list[Json], meshed: bool, where: str) -> list[Json]:
    found = [p for p in pods if (has_proxy(p) or not meshed) and dig(p, "status", "phase") == "Running"]
    if not found:
        raise CliError(f"there is no running pod{' with a proxy' if meshed else ''} {where}")
    return found


async def known_pods(client: HttpClient, fallback: list[Json]) -> Pods:
    """All pods of the cluster; if they may not be listed, only the selected ones have names."""
    try:
        found, _ = await client.list(kinds.POD)
    except KubeError as e:
        if e.code != 403:
            raise
        warn("pods of other namespaces may not be listed, so their addresses are shown")
        found = fallback
    return Pods(found)


async def lines(client: HttpClient, pod: Json, path: str) -> AsyncGenerator[bytes]:
    """The lines of the response of a pod's agent to a GET, over a port-forward. Raises CliError."""
    meta = pod["metadata"]
    async with client.forwarding(meta["namespace"], meta["name"]) as session:
        head = {"port": str(ports.MERGED_METRICS), "requestid": "0"}
        error = await session.open({"streamtype": "error", **head})
        await error.close()
        data = await session.open({"streamtype": "data", **head})
        await data.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        rest = b""
        async with asyncio.timeout(CONNECT_S):
            while b"\r\n\r\n" not in rest:
                chunk = await data.incoming.get()
                if not chunk:
                    raise CliError(f"the agent of pod {meta['name']} does not answer on port {ports.MERGED_METRICS}")
                rest += chunk
        top, _, rest = rest.partition(b"\r\n\r\n")
        status = top.split(b" ", 2)[1].decode()
        if status == "404":
            raise CliError(f"the proxy of pod {meta['name']} has a version without {path.partition('?')[0]}")
        if status != "200":
            raise CliError(f"the agent of pod {meta['name']}: HTTP {status} {rest.decode(errors='replace').strip()}")
        while True:
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line
            chunk = await data.incoming.get()
            if not chunk:
                if rest:
                    yield rest
                return
            rest += chunk
