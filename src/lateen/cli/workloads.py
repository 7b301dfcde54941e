"""lateen x authz, x metrics, x envoy-stats, x wait: the policies, statistics and configuration of workloads'
proxies."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.parse
from collections.abc import Iterator
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
from lateen.wire import names, ports

CUSTOM_PREFIX = "istio-ext-authz-"
"""The prefix of the names of CUSTOM policies"""
_ORDER = ("CUSTOM", "AUDIT", "DENY", "ALLOW")
_POLICY = re.compile(r"(?:istio-ext-authz-.*-)?ns\[(.*?)\]-policy\[(.*?)\]")


# --- authz -------------------------------------------------------------------------------------------------------


@click.group(
    cls=Group,
    entries={
        "check": ("lateen.cli.workloads:authz_check", "Show the policies that a proxy has."),
        "test": ("lateen.cli.trial:authz_test", "Show which observed calls a policy would deny."),
        "plaintext": ("lateen.cli.plaintext:authz_plaintext", "List callers that still use plaintext."),
        "suggest": ("lateen.cli.suggest:authz_suggest", "Generate policies that allow the observed callers."),
    },
)
def authz() -> None:
    """Authorization policies."""


@command("check")
@click.argument("pod", required=False, shell_complete=complete(kinds.POD))
@click.option("-f", "--file", "file", default="", help="A saved config dump.")
@target_options
def authz_check(target: Target, pod: str | None, file: str) -> None:
    """Show the authorization policies that a proxy has: lateen x authz check deploy/productpage-v1"""
    from lateen.cli.proxy_config import load

    dump = ConfigDump(load(target, pod, file))
    rows = _policies(dump)
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
    say("no AuthorizationPolicy applies to this pod: all callers are allowed")


def _policies(dump: ConfigDump) -> list[list[str]]:
    """One row for each policy, with the number of its rules, in the order in which they are evaluated."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for f in _filters(dump):
        if not str(dig(f, "typed_config", "@type", default="")).endswith(".RBAC"):
            continue
        audits = dig(f, "typed_config", "rules", "action", default="") == "LOG"  # shadow rules are only counted
        for field in ("rules",) if audits else ("rules", "shadow_rules"):
            rules = dig(f, "typed_config", field, default={})
            for name in rules.get("policies") or {}:
                if name in names.BUILT_IN:
                    continue  # not from an object
                named = _POLICY.match(name)
                plain = f"{named[2]}.{named[1]}" if named else name
                action = "AUDIT" if audits else str(rules.get("action", "ALLOW"))
                if field == "shadow_rules":
                    action = "CUSTOM" if name.startswith(CUSTOM_PREFIX) else f"{action} (dry run)"
                found.setdefault((action, plain), {})[name] = None
    order = sorted(found, key=lambda row: (_ORDER.index(row[0].partition(" ")[0]), row))
    return [[*row, str(len(found[row]))] for row in order]


def _filters(dump: ConfigDump) -> Iterator[Json]:
    """Authorization filters in listeners, and those whose configuration is delivered separately (ECDS)."""
    yield from dump.extensions()
    for listener in dump.listeners():
        for chain in listener.get("filter_chains") or []:
            for f in chain.get("filters") or []:
                yield f
                yield from dig(f, "typed_config", "http_filters", default=[])


# --- statistics --------------------------------------------------------------------------------------------------


@command("envoy-stats")
@click.argument("pod", shell_complete=complete(kinds.POD))
@click.option("-t", "--type", "kind", type=click.Choice(["server", "clusters"]), default="server")
@click.option("-o", "--output", type=click.Choice(["short", "prom", "prom-merged", "json", "yaml"]), default="short")
@target_options
def envoy_stats(target: Target, pod: str, kind: str, output: str) -> None:
    """Show a proxy's statistics: lateen x envoy-stats deploy/productpage-v1"""
    path = "clusters" if kind == "clusters" else "stats"
    if output in ("json", "yaml"):
        path += "?format=json"

    async def work(client: HttpClient) -> bytes:
        found = await pods.find(client, pod, target.namespace)
        if output == "prom-merged":
            return await pods.ask(client, found, "GET", "/stats/prometheus", ports.MERGED_METRICS)
        if output == "prom":
            return await pods.ask(client, found, "GET", "/stats/prometheus", ports.ENVOY_METRICS)
        return await pods.ask(client, found, "GET", path)

    text = target.run(work).decode(errors="replace")
    click.echo(yamldoc.dump(jsons.loads(text)).rstrip() if output == "yaml" else text.rstrip())


@command("metrics")
@click.argument("workloads", nargs=-1, required=True)
@click.option("-d", "--duration", "span", default="1m", help="The time to average over.")
@target_options
def metrics(target: Target, workloads: tuple[str, ...], span: str) -> None:
    """Show rates and latencies of workloads, as measured by their callers: lateen x metrics productpage-v1"""
    try:
        seconds = duration.seconds(span)
    except ValueError as e:
        raise CliError(f"--duration: {e}", USAGE) from None

    async def work(client: HttpClient) -> Any:
        path = f"/api/graph?kind=workload&window={seconds}"
        return jsons.loads(
            await through(client, await collector(client, target.istio_namespace), ports.COLLECTOR, path)
        )

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


async def collector(client: HttpClient, namespace: str) -> Json:
    """The pod of the metrics collector. Raises CliError."""
    found, _ = await client.list(
        kinds.POD, namespace, "app.kubernetes.io/name=prometheus,app.kubernetes.io/instance=prometheus"
    )
    pod = next((p for p in found if dig(p, "status", "phase") == "Running"), None)
    if pod is None:
        raise CliError("there is no metrics collector; install it with: lateen addons apply")
    return pod


async def through(client: HttpClient, pod: Json, port: int, path: str) -> bytes:
    """GET from a port of a pod, over a port-forward. Raises CliError."""
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
@click.option("--threshold", type=float, default=1.0, help="The share of proxies that suffices.")
@click.option("--timeout", default="30s")
@target_options
def wait(target: Target, kind: str, name: str, what: str, threshold: float, timeout: str) -> None:  # noqa: ARG001
    """Wait until proxies have a configuration: lateen x wait virtualservice reviews"""
    chosen = next((k for k in kinds.owned() if kind.lower() in (k.kind.lower(), k.plural)), None)
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
            # a status for this generation is written only after the push that contains it
            if dig(found, "status", "observedGeneration") == found["metadata"].get("generation"):
                have, concerned = await _distribution(client, str(chosen.ref(other or target.namespace, plain)))
                says = f"{have}/{concerned} proxies"
                if not concerned and chosen is kinds.GATEWAY:
                    says = "no connected proxy uses it"
                elif have >= threshold * concerned:
                    return says
            await asyncio.sleep(0.2)
        raise CliError(f"{chosen.kind} {plain} has not reached every proxy after {timeout}: {says}")

    click.echo(f"Resource {chosen.kind} {plain} present on {target.run(work)}")


async def _distribution(client: HttpClient, ref: str) -> tuple[int, int]:
    """(proxies that have an object, proxies that should have it), summed over all istiods."""
    answers = await ask_istiods(client, f"/debug/distribution?object={urllib.parse.quote(ref)}")
    return sum(a["have"] for a in answers.values()), sum(a["concerned"] for a in answers.values())
