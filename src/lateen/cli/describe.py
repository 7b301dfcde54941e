"""lateen x describe, x authz, x metrics, x envoy-stats, x wait: what the mesh does for one workload."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.parse
from typing import Any

import click

from lateen.api import kinds
from lateen.cli import pods
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, complete, target_options
from lateen.cli.mesh import ask_istiods
from lateen.cli.output import USAGE, CliError, say, wide_table
from lateen.dump import ConfigDump
from lateen.kit import duration, jsons, selectors, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient

LINE = "--------------------"
_POLICY = re.compile(r"(?:istio-ext-authz-.*-)?ns\[(.*?)\]-policy\[(.*?)\]")


@click.group(
    cls=Group,
    entries={
        "pod": ("lateen.cli.describe:describe_pod", "Services, rules, policies of a pod."),
        "service": ("lateen.cli.describe:describe_service", "Rules and policies of a service."),
    },
    aliases={"po": "pod", "pods": "pod", "svc": "service"},
)
def describe() -> None:
    """What the mesh does for a pod or a service."""


async def _objects(client: HttpClient) -> dict[str, list[Json]]:
    wanted = (kinds.SERVICE, kinds.VIRTUAL_SERVICE, kinds.DESTINATION_RULE, kinds.PEER_AUTHENTICATION, kinds.GATEWAY)
    lists = await asyncio.gather(*(client.list(k) for k in wanted))
    return {k.kind: found for k, (found, _) in zip(wanted, lists, strict=True)}


def _full(host: str, namespace: str) -> str:
    return host if "." in host else f"{host}.{namespace}.svc.cluster.local"


def _host(service: Json) -> str:
    return f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"


@command("pod")
@click.argument("name", shell_complete=complete(kinds.POD))
@target_options
def describe_pod(target: Target, name: str) -> None:
    """Services, rules and policies of a pod: lateen x describe pod productpage-v1-…"""

    async def work(client: HttpClient) -> list[str]:
        pod = await pods.find(client, name, target.namespace)
        found = await _objects(client)
        return [*_pod(pod), *_services_of(pod, found, target.istio_namespace)]

    click.echo("\n".join(target.run(work)))


@command("service")
@click.argument("name", shell_complete=complete(kinds.SERVICE))
@target_options
def describe_service(target: Target, name: str) -> None:
    """Rules and policies of a service: lateen x describe service reviews"""

    async def work(client: HttpClient) -> list[str]:
        plain, _, other = name.partition(".")
        service = await client.get(kinds.SERVICE, other or target.namespace, plain)
        if service is None:
            raise CliError(f'service "{plain}" not found in namespace {other or target.namespace}')
        found = await _objects(client)
        every, _ = await client.list(kinds.POD, service["metadata"]["namespace"])
        selector = dig(service, "spec", "selector", default={})
        mine = [p for p in every if selector and selectors.subset(selector, dig(p, "metadata", "labels", default={}))]
        return _service(service, mine[0] if mine else None, found, target.istio_namespace)

    click.echo("\n".join(target.run(work)))


def _pod(pod: Json) -> list[str]:
    meta = pod["metadata"]
    labels = meta.get("labels") or {}
    listed = [
        f"{p['containerPort']} ({c['name']})"
        for c in dig(pod, "spec", "containers", default=[])
        for p in c.get("ports") or []
    ]
    out = [f"Pod: {meta['name']}{'' if meta['namespace'] == 'default' else '.' + meta['namespace']}"]
    if pods.has_proxy(pod):
        out.append(f"   Pod Revision: {labels.get('istio.io/rev', 'default')}")
    else:
        out.append("   WARNING: the pod is not part of the mesh: it has no istio-proxy container")
    out.append(f"   Pod Ports: {', '.join(listed) or '<none>'}")
    missing = [k for k in ("app", "version") if k not in labels]
    if missing:
        out.append(f"Suggestion: add {' and '.join(repr(m) for m in missing)} label to pod for Istio telemetry.")
    return out


def _services_of(pod: Json, found: dict[str, list[Json]], root: str) -> list[str]:
    labels, namespace = dig(pod, "metadata", "labels", default={}), pod["metadata"]["namespace"]
    mine = [
        s
        for s in found["Service"]
        if s["metadata"]["namespace"] == namespace
        and dig(s, "spec", "selector")
        and selectors.subset(s["spec"]["selector"], labels)
    ]
    if not mine:
        return [LINE, "   WARNING: no service selects this pod; nothing is routed to it by name"]
    out: list[str] = []
    for service in mine:
        out += [LINE, *_service(service, pod, found, root)]
    return out


def _service(service: Json, pod: Json | None, found: dict[str, list[Json]], root: str) -> list[str]:
    from lateen.api.reading import names_protocol

    meta = service["metadata"]
    out = [f"Service: {meta['name']}{'' if meta['namespace'] == 'default' else '.' + meta['namespace']}"]
    for port in dig(service, "spec", "ports", default=[]):
        protocol = str(port.get("appProtocol") or str(port.get("name") or "").partition("-")[0] or "auto")
        protocol = protocol.upper() if names_protocol(port) else "auto-detect"
        shown = f"{port.get('name') or '<unnamed>'} {port['port']}/{protocol}"
        out.append(f"   Port: {shown} targets pod port {port.get('targetPort', port['port'])}")
    host = _host(service)
    out += _rules(host, pod, found)
    out += _virtual_services(host, found, "mesh")
    out += [
        LINE,
        "Effective PeerAuthentication:",
        f"   Workload mTLS mode: {_mtls(pod, meta['namespace'], found, root)}",
    ]
    out += _exposed(host, found)
    return out


def _rules(host: str, pod: Json | None, found: dict[str, list[Json]]) -> list[str]:
    out = []
    labels = dig(pod, "metadata", "labels", default={}) if pod else {}
    for dr in found["DestinationRule"]:
        if _full(str(dig(dr, "spec", "host", default="")), dr["metadata"]["namespace"]) != host:
            continue
        out.append(f'DestinationRule: {dr["metadata"]["name"]} for "{dig(dr, "spec", "host")}"')
        subsets = dig(dr, "spec", "subsets", default=[])
        yes = [str(s.get("name")) for s in subsets if selectors.subset(s.get("labels") or {}, labels)]
        other = [str(s.get("name")) for s in subsets if s.get("name") not in yes]
        if subsets:
            out.append(f"   Matching subsets: {','.join(yes) or '<none>'}")
            if other:
                out.append(f"      (Non-matching subsets {','.join(other)})")
        policy = dig(dr, "spec", "trafficPolicy", default={})
        out.append(f"   Traffic Policy: {', '.join(policy)}" if policy else "   No Traffic Policy")
    return out


def _virtual_services(host: str, found: dict[str, list[Json]], gateway: str) -> list[str]:
    out = []
    for vs in found["VirtualService"]:
        namespace = vs["metadata"]["namespace"]
        gateways = dig(vs, "spec", "gateways", default=["mesh"])
        hosts = [_full(h, namespace) for h in dig(vs, "spec", "hosts", default=[])]
        if gateway in gateways and host in hosts:
            count = len(dig(vs, "spec", "http", default=[]))
            out += [f"VirtualService: {vs['metadata']['name']}", f"   {count} HTTP route(s)"]
    return out


def _mtls(pod: Json | None, namespace: str, found: dict[str, list[Json]], root: str) -> str:
    """The workload's own policy, the namespace's, the mesh's; PERMISSIVE where none says anything."""
    labels = dig(pod, "metadata", "labels", default={}) if pod else {}
    for where, selected in ((namespace, True), (namespace, False), (root, False)):
        for p in found["PeerAuthentication"]:
            wanted = dig(p, "spec", "selector", "matchLabels", default={})
            if p["metadata"]["namespace"] != where or bool(wanted) != selected or not selectors.subset(wanted, labels):
                continue
            mode = str(dig(p, "spec", "mtls", "mode", default="UNSET"))
            if mode != "UNSET":
                return mode
    return "PERMISSIVE"


def _exposed(host: str, found: dict[str, list[Json]]) -> list[str]:
    """The gateways' rules that lead to the service."""
    out: list[str] = []
    for vs in found["VirtualService"]:
        namespace = vs["metadata"]["namespace"]
        gateways = [g for g in dig(vs, "spec", "gateways", default=[]) if g != "mesh"]
        routes = [
            http
            for http in dig(vs, "spec", "http", default=[])
            if any(
                _full(str(dig(r, "destination", "host", default="")), namespace) == host
                for r in http.get("route") or []
            )
        ]
        if not gateways or not routes:
            continue
        address = _address(found)
        if not out:
            out += [LINE, f"Exposed on Ingress Gateway {address}"]
        matches = [_match(m) for http in routes for m in http.get("match") or [{}]]
        out += [f"VirtualService: {vs['metadata']['name']}", f"   Route(s): {', '.join(matches)}"]
    return out


def _match(match: Json) -> str:
    uri = match.get("uri") or {}
    if "exact" in uri:
        return str(uri["exact"])
    if "prefix" in uri:
        return f"{uri['prefix']}*"
    return f"regex {uri['regex']}" if "regex" in uri else "/*"


def _address(found: dict[str, list[Json]]) -> str:
    for s in found["Service"]:
        if dig(s, "spec", "selector", "istio") == "ingressgateway":
            first = dig(s, "status", "loadBalancer", "ingress", 0, default={})
            if name := first.get("hostname") or first.get("ip"):
                given = dig(s, "metadata", "annotations", "lateen.dev/host-ports", default="")
                port = dict(p.split("=") for p in given.split(",") if "=" in p).get("80", "80")
                return f"http://{name}{'' if port == '80' else ':' + port}"
    return "(it has no address outside the cluster)"


# --- authz -------------------------------------------------------------------------------------------------------


@click.group(cls=Group, entries={"check": ("lateen.cli.describe:authz_check", "The policies that a proxy has.")})
def authz() -> None:
    """Authorization policies."""


@command("check")
@click.argument("pod", required=False, shell_complete=complete(kinds.POD))
@click.option("-f", "--file", "file", default="", help="A saved config dump.")
@target_options
def authz_check(target: Target, pod: str | None, file: str) -> None:
    """The authorization policies that a proxy has: lateen x authz check deploy/productpage-v1"""
    from lateen.cli.proxy_config import load

    dump = ConfigDump(load(target, pod, file))
    rows = list(_policies(dump))
    click.echo(wide_table([["ACTION", "AuthorizationPolicy", "RULES"], *rows]))
    if rows or not pod:
        return

    async def work(client: HttpClient) -> int:
        found = await pods.find(client, pod, target.namespace)
        labels = dig(found, "metadata", "labels", default={})
        policies, _ = await client.list(kinds.AUTHORIZATION_POLICY)
        return sum(
            p["metadata"]["namespace"] in (found["metadata"]["namespace"], target.istio_namespace)
            and selectors.subset(dig(p, "spec", "selector", "matchLabels", default={}), labels)
            for p in policies
        )

    missing = target.run(work)
    if missing:
        raise CliError(f"{missing} AuthorizationPolicies select this pod, but its proxy enforces none of them")


def _policies(dump: ConfigDump) -> Any:
    seen = set()
    for listener in dump.listeners():
        for chain in listener.get("filter_chains") or []:
            for f in chain.get("filters") or []:
                inner = dig(f, "typed_config", "http_filters", default=[])
                for g in (f, *inner):
                    rules = dig(g, "typed_config", "rules", default={})
                    for name, policy in (rules.get("policies") or {}).items():
                        named = _POLICY.match(name)
                        plain = f"{named[2]}.{named[1]}" if named else name
                        row = (str(rules.get("action", "ALLOW")), plain, str(len(policy.get("permissions") or [])))
                        if row not in seen:
                            seen.add(row)
                            yield list(row)


# --- statistics --------------------------------------------------------------------------------------------------


@command("envoy-stats")
@click.argument("pod", shell_complete=complete(kinds.POD))
@click.option("-t", "--type", "kind", type=click.Choice(["server", "clusters"]), default="server")
@click.option("-o", "--output", type=click.Choice(["short", "prom", "prom-merged", "json", "yaml"]), default="short")
@target_options
def envoy_stats(target: Target, pod: str, kind: str, output: str) -> None:
    """A proxy's statistics: lateen x envoy-stats deploy/productpage-v1"""
    path = "clusters" if kind == "clusters" else "stats"
    if output in ("json", "yaml"):
        path += "?format=json"
    elif output == "prom":
        path = "stats/prometheus"

    async def work(client: HttpClient) -> bytes:
        found = await pods.find(client, pod, target.namespace)
        if output == "prom-merged":
            return await pods.ask(client, found, "GET", "/stats/prometheus", 15020)
        return await pods.ask(client, found, "GET", path)

    text = target.run(work).decode(errors="replace")
    click.echo(yamldoc.dump(jsons.loads(text)).rstrip() if output == "yaml" else text.rstrip())


@command("metrics")
@click.argument("workloads", nargs=-1, required=True)
@click.option("-d", "--duration", "span", default="1m", help="Over how much time.")
@target_options
def metrics(target: Target, workloads: tuple[str, ...], span: str) -> None:
    """Rates and latencies of workloads, as their callers saw them: lateen x metrics productpage-v1"""
    try:
        seconds = duration.seconds(span)
    except ValueError as e:
        raise CliError(f"--duration: {e}", USAGE) from None

    async def work(client: HttpClient) -> Any:
        found, _ = await client.list(kinds.POD, target.istio_namespace, "app=prometheus")
        pod = next((p for p in found if dig(p, "status", "phase") == "Running"), None)
        if pod is None:
            raise CliError("there is no collector of metrics; install it with: lateen addons apply")
        path = f"/api/graph?kind=workload&window={seconds}"
        return jsons.loads(await _through(client, pod, 9090, path))

    graph = target.run(work)
    rows = [["WORKLOAD", "TOTAL RPS", "ERROR RPS", "P50 LATENCY", "P90 LATENCY", "P99 LATENCY"]]
    for name in workloads:
        plain, _, other = name.partition(".")
        node = f"workload/{other or target.namespace}/{plain}"
        edges = [e for e in graph["edges"] if e["target"] == node]
        if not edges:
            say(f"no requests to {plain} in the last {span}")
        rate = sum(e["rate"] for e in edges)
        errors = sum(e["rate"] * e["errorRate"] for e in edges)
        slowest = {k: max((e[k] for e in edges if e[k] is not None), default=0.0) for k in ("p50", "p90", "p99")}
        shown = [f"{round(slowest[k])}ms" for k in ("p50", "p90", "p99")]
        rows.append([plain, f"{rate:.3f}", f"{errors:.3f}", *shown])
    click.echo(wide_table(rows))


async def _through(client: HttpClient, pod: Json, port: int, path: str) -> bytes:
    """GET from a port of a pod."""
    meta = pod["metadata"]
    async with asyncio.timeout(20), client.forwarding(meta["namespace"], meta["name"]) as session:
        head = {"port": str(port), "requestid": "0"}
        error = await session.open({"streamtype": "error", **head})
        await error.close()
        data = await session.open({"streamtype": "data", **head})
        await data.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while chunk := await data.incoming.get():
            answer += chunk
        _, _, body = answer.partition(b"\r\n\r\n")
        return body


# --- waiting -----------------------------------------------------------------------------------------------------


@command("wait")
@click.argument("kind")
@click.argument("name")
@click.option("--for", "what", type=click.Choice(["distribution"]), default="distribution")
@click.option("--threshold", type=float, default=1.0, help="The share of proxies that is enough.")
@click.option("--timeout", default="30s")
@target_options
def wait(target: Target, kind: str, name: str, what: str, threshold: float, timeout: str) -> None:  # noqa: ARG001
    """Until the proxies have a configuration: lateen x wait virtualservice reviews"""
    chosen = next((k for k in kinds.MESH if kind.lower() in (k.kind.lower(), k.plural)), None)
    if chosen is None:
        raise CliError(f'"{kind}" is not a kind of the mesh', USAGE)
    plain, _, other = name.partition(".")
    limit = duration.seconds(timeout)

    async def work(client: HttpClient) -> str:
        deadline = time.monotonic() + limit
        says = "it has no status yet"
        while time.monotonic() < deadline:
            found = await client.get(chosen, other or target.namespace, plain)
            if found is None:
                raise CliError(f'{chosen.kind} "{plain}" not found in namespace {other or target.namespace}')
            # A status of this generation is written only after the push that brings the object to proxies.
            if dig(found, "status", "observedGeneration") == found["metadata"].get("generation"):
                have, concerned = await _distribution(client, f"{chosen.kind} {other or target.namespace}/{plain}")
                says = f"{have}/{concerned} proxies"
                if not concerned and chosen is kinds.GATEWAY:
                    says = "no connected proxy serves it"
                elif have >= threshold * concerned:
                    return says
            await asyncio.sleep(0.2)
        raise CliError(f"{chosen.kind} {plain} is not everywhere after {timeout}: {says}")

    click.echo(f"Resource {chosen.kind} {plain} present on {target.run(work)}")


async def _distribution(client: HttpClient, ref: str) -> tuple[int, int]:
    """(proxies that have an object, proxies that it concerns), of all istiods together."""
    answers = await ask_istiods(client, f"/debug/distribution?object={urllib.parse.quote(ref)}")
    return sum(a["have"] for a in answers), sum(a["concerned"] for a in answers)
