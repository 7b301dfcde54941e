"""lateen x check-inject, lateen x injector list: which pods are injected, and by which injector."""

from __future__ import annotations

import asyncio

import click

from lateen.api import kinds
from lateen.api.reading import INJECTION, has_proxy, opted
from lateen.cli import pods
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, complete, target_options
from lateen.cli.output import USAGE, CliError, wide_table
from lateen.kit import jsons, selectors
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient

INJECTOR = "sidecar-injector.istio.io"
REVISION = "istio.io/rev"


async def hooks(client: HttpClient) -> list[tuple[Json, Json]]:
    """(configuration, webhook) of every sidecar injector."""
    found, _ = await client.list(kinds.MUTATING_WEBHOOK)
    return [(c, h) for c in found for h in c.get("webhooks") or [] if str(h.get("name", "")).endswith(INJECTOR)]


def revision_of(config: Json) -> str:
    return str(dig(config, "metadata", "labels", REVISION, default="default"))


def _why(hook: Json, namespace: Json, labels: Json) -> tuple[bool, str]:
    of = dig(namespace, "metadata", "labels", default={})
    if opted(labels, {}) is False:
        return False, "Pod label sidecar.istio.io/inject=false"
    if not selectors.matches(hook.get("namespaceSelector") or {}, of):
        if of.get(INJECTION) == "disabled":
            return False, "Namespace label istio-injection=disabled"
        return False, "No matching namespace labels"
    if not selectors.matches(hook.get("objectSelector") or {}, labels):
        return False, "No matching pod labels"
    for selector, where, of_ in (("namespaceSelector", "Namespace", of), ("objectSelector", "Pod", labels)):
        for e in dig(hook, selector, "matchExpressions", default=[]):
            if e.get("operator") == "In":
                return True, f"{where} label {e['key']}={of_.get(e['key'])} matches"
    return True, "Everything matches"


@command("check-inject")
@click.argument("name", required=False, shell_complete=complete(kinds.POD))
@click.option("-l", "--labels", default="", help="Labels of a hypothetical pod: a=b,c=d")
@target_options
def check_inject(target: Target, name: str | None, labels: str) -> None:
    """Show whether a pod would get a sidecar, and why: lateen x check-inject deploy/productpage-v1"""
    if bool(name) == bool(labels):
        raise CliError("name a pod (or deployment/NAME), or give labels with -l", USAGE)

    async def work(client: HttpClient) -> list[list[str]]:
        where, given = target.namespace, dict(p.split("=", 1) for p in labels.split(",") if "=" in p)
        if name:
            pod = await pods.find(client, name, where)
            where, given = pod["metadata"]["namespace"], dig(pod, "metadata", "labels", default={})
        namespace = await client.get(kinds.NAMESPACE, "", where)
        if namespace is None:
            raise CliError(f'namespace "{where}" not found')
        rows = [["WEBHOOK", "REVISION", "INJECTED", "REASON"]]
        for config, hook in await hooks(client):
            yes, why = _why(hook, namespace, given)
            rows.append([f"{config['metadata']['name']}/{hook['name']}", revision_of(config), "✔" if yes else "✘", why])
        if len(rows) == 1:
            raise CliError("there is no sidecar injector in this cluster; install the mesh with: lateen install")
        return rows

    click.echo(wide_table(target.run(work)))


async def _images(client: HttpClient) -> dict[str, str]:
    """Revision -> the proxy image that its injector uses."""
    found, _ = await client.list(kinds.CONFIG_MAP, labels="app=istio-sidecar-injector")
    out = {}
    for c in found:
        try:
            values = jsons.loads(dig(c, "data", "values", default="{}"))
        except ValueError:
            continue
        hub, tag = dig(values, "global", "hub"), dig(values, "global", "tag")
        image = str(dig(values, "global", "proxy", "image", default=""))
        out[revision_of(c)] = image if "/" in image else f"{hub}/{image}:{tag}"
    return out


def _injected_by(pod: Json) -> str:
    """The revision whose injector added the pod's proxy; gateways have a label for it."""
    meta = pod["metadata"]
    found = dig(meta, "annotations", REVISION) or dig(meta, "labels", REVISION)
    return str(found or "default")


@click.group(
    cls=Group,
    entries={"list": ("lateen.cli.injection:injector_list", "List namespaces and pods with their injectors.")},
)
def injector() -> None:
    """List sidecar injectors."""


@command("list")
@target_options
def injector_list(target: Target) -> None:
    """List namespaces and pods with their injectors."""

    async def work(client: HttpClient) -> tuple[list[list[str]], list[list[str]]]:
        (spaces, _), (every, _), found = await asyncio.gather(
            client.list(kinds.NAMESPACE), client.list(kinds.POD), hooks(client)
        )
        upper = [["NAMESPACE", "ISTIO-REVISION", "POD-REVISIONS"]]
        lower: dict[str, list[str]] = {}
        for ns in sorted(spaces, key=lambda n: str(n["metadata"]["name"])):
            name = ns["metadata"]["name"]
            chosen = [(c, h) for c, h in found if _why(h, ns, {})[0]]
            if not chosen:
                continue
            counts: dict[str, int] = {}
            for p in every:
                if p["metadata"]["namespace"] == name and has_proxy(p):
                    key = _injected_by(p)
                    counts[key] = counts.get(key, 0) + 1
            shown = ", ".join(f"{k}: {n}" for k, n in sorted(counts.items())) or "<no-istio-sidecars>"
            upper.append([name, revision_of(chosen[0][0]), shown])
            for c, _ in chosen:
                lower.setdefault(c["metadata"]["name"], []).append(name)
        down = [["NAMESPACES", "INJECTOR-HOOK", "ISTIO-REVISION", "SIDECAR-IMAGE"]]
        images = await _images(client)
        for config in {c["metadata"]["name"]: c for c, _ in found}.values():
            names = ",".join(sorted(set(lower.get(config["metadata"]["name"], [])))) or "DOES NOT AUTOINJECT"
            revision = revision_of(config)
            down.append([names, config["metadata"]["name"], revision, images.get(revision, "<unknown>")])
        return upper, down

    upper, down = target.run(work)
    click.echo(wide_table(upper) + "\n\n" + wide_table(down))
