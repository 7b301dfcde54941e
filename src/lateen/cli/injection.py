"""lateen x check-inject, lateen x injector list, lateen tag: who gets a sidecar, from whom."""

from __future__ import annotations

import asyncio
import difflib
from typing import Any

import click

from lateen.api import kinds
from lateen.api.reading import PROXY, has_proxy
from lateen.cli import pods
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, complete, target_options
from lateen.cli.output import USAGE, CliError, wide_table
from lateen.kit import jsons, selectors, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.apply import apply
from lateen.kube.client import HttpClient

INJECTOR = "sidecar-injector.istio.io"
TAG = "istio.io/tag"
REVISION = "istio.io/rev"


async def hooks(client: HttpClient) -> list[tuple[Json, Json]]:
    """(configuration, webhook) of every sidecar injector."""
    found, _ = await client.list(kinds.MUTATING_WEBHOOK)
    return [(c, h) for c in found for h in c.get("webhooks") or [] if str(h.get("name", "")).endswith(INJECTOR)]


def revision_of(config: Json) -> str:
    return str(dig(config, "metadata", "labels", REVISION, default="default"))


def _why(hook: Json, namespace: Json, labels: Json) -> tuple[bool, str]:
    of = dig(namespace, "metadata", "labels", default={})
    if str(labels.get("sidecar.istio.io/inject", "")).lower() == "false":
        return False, "Pod label sidecar.istio.io/inject=false"
    if not selectors.matches(hook.get("namespaceSelector") or {}, of):
        if of.get("istio-injection") == "disabled":
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
@click.option("-l", "--labels", default="", help="Labels of a pod that is not there yet: a=b,c=d")
@target_options
def check_inject(target: Target, name: str | None, labels: str) -> None:
    """Whether a pod would get a sidecar, and why: lateen x check-inject deploy/productpage-v1"""
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


@click.group(
    cls=Group, entries={"list": ("lateen.cli.injection:injector_list", "Namespaces and pods with their injectors.")}
)
def injector() -> None:
    """The sidecar injectors."""


@command("list")
@target_options
def injector_list(target: Target) -> None:
    """Namespaces and pods with their injectors."""

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
                    key = str(dig(p, "metadata", "labels", REVISION, default="default"))
                    counts[key] = counts.get(key, 0) + 1
            shown = ", ".join(f"{k}: {n}" for k, n in sorted(counts.items())) or "<no-istio-sidecars>"
            upper.append([name, revision_of(chosen[0][0]), shown])
            for c, _ in chosen:
                lower.setdefault(c["metadata"]["name"], []).append(name)
        down = [["NAMESPACES", "INJECTOR-HOOK", "ISTIO-REVISION", "SIDECAR-IMAGE"]]
        image = next(
            (c["image"] for p in every for c in dig(p, "spec", "containers", default=[]) if c["name"] == PROXY),
            "<unknown>",
        )
        for config in {c["metadata"]["name"]: c for c, _ in found}.values():
            names = ",".join(sorted(set(lower.get(config["metadata"]["name"], [])))) or "DOES NOT AUTOINJECT"
            down.append([names, config["metadata"]["name"], revision_of(config), image])
        return upper, down

    upper, down = target.run(work)
    click.echo(wide_table(upper) + "\n\n" + wide_table(down))


# --- tags --------------------------------------------------------------------------------------------------------


@click.group(
    cls=Group,
    entries={
        "generate": ("lateen.cli.injection:tag_generate", "Print what a tag consists of."),
        "list": ("lateen.cli.injection:tag_list", "The tags, their revisions and namespaces."),
        "remove": ("lateen.cli.injection:tag_remove", "Remove a tag."),
        "set": ("lateen.cli.injection:tag_set", "Make a tag, or point it to another revision."),
    },
)
def tag() -> None:
    """Names for control plane revisions, which namespaces choose with the label istio.io/rev."""


def _tag_config(name: str, revision: str, base: Json) -> Json:
    """An injector for namespaces and pods that choose the tag; built like the revision's own."""
    chosen = {"key": REVISION, "operator": "In", "values": [name]}
    not_off = {"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}
    unset = {"key": REVISION, "operator": "DoesNotExist"}
    common = {k: v for k, v in base["webhooks"][0].items() if k not in ("name", "namespaceSelector", "objectSelector")}
    no_label = {"key": "istio-injection", "operator": "DoesNotExist"}
    webhooks = [
        {
            **common,
            "name": f"rev.namespace.{INJECTOR}",
            "namespaceSelector": {"matchExpressions": [chosen, no_label]},
            "objectSelector": {"matchExpressions": [not_off]},
        },
        {
            **common,
            "name": f"rev.object.{INJECTOR}",
            "namespaceSelector": {"matchExpressions": [unset, no_label]},
            "objectSelector": {"matchExpressions": [not_off, chosen]},
        },
    ]
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": f"istio-revision-tag-{name}",
            "labels": {"app": "sidecar-injector", TAG: name, REVISION: revision},
        },
        "webhooks": webhooks,
    }


async def _base(client: HttpClient, revision: str) -> Json:
    found, _ = await client.list(kinds.MUTATING_WEBHOOK, labels="app=sidecar-injector")
    own = {revision_of(c): c for c in found if not dig(c, "metadata", "labels", TAG)}
    if revision not in own:
        near = difflib.get_close_matches(revision, list(own), 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise CliError(f'there is no control plane of revision "{revision}"{hint}')
    return own[revision]


revision_option = click.option("-r", "--revision", default="default", help="The revision that the tag stands for.")


@command("generate")
@click.argument("name")
@revision_option
@target_options
def tag_generate(target: Target, name: str, revision: str) -> None:
    """Print what a tag consists of, for kubectl apply."""

    async def work(client: HttpClient) -> Json:
        return _tag_config(name, revision, await _base(client, revision))

    click.echo(yamldoc.dump(target.run(work)), nl=False)


@command("set")
@click.argument("name")
@revision_option
@click.option("--overwrite", is_flag=True, help="Also where the tag stands for another revision.")
@click.option("-y", "--skip-confirmation", is_flag=True)
@target_options
def tag_set(target: Target, name: str, revision: str, overwrite: bool, skip_confirmation: bool) -> None:  # noqa: ARG001
    """Make a tag, or point it to another revision."""

    async def work(client: HttpClient) -> None:
        before = await client.get(kinds.MUTATING_WEBHOOK, "", f"istio-revision-tag-{name}")
        if before is not None and revision_of(before) != revision and not overwrite:
            raise CliError(
                f'tag "{name}" stands for revision {revision_of(before)}; to change that, add --overwrite', USAGE
            )
        await apply(client, _tag_config(name, revision, await _base(client, revision)))

    target.run(work)
    click.echo(
        f'Revision tag "{name}" created, referencing control plane revision "{revision}". To enable injection using '
        f"this\nrevision tag, use 'kubectl label namespace <NAMESPACE> istio.io/rev={name}'"
    )


@command("remove")
@click.argument("name")
@click.option("-y", "--skip-confirmation", "yes", is_flag=True)
@target_options
def tag_remove(target: Target, name: str, yes: bool) -> None:
    """Remove a tag."""

    async def work(client: HttpClient) -> None:
        spaces, _ = await client.list(kinds.NAMESPACE, labels=f"{REVISION}={name}")
        used = [n["metadata"]["name"] for n in spaces]
        if used and not yes:
            raise CliError(
                f'tag "{name}" is used by {", ".join(used)}; their new pods would get no sidecars. To remove it, add -y'
            )
        if not await client.delete(kinds.MUTATING_WEBHOOK, "", f"istio-revision-tag-{name}"):
            raise CliError(f'there is no tag "{name}"; lateen tag list shows them')

    target.run(work)
    click.echo(f"Revision tag {name} removed")


@command("list")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@target_options
def tag_list(target: Target, output: str) -> None:
    """The tags, their revisions and namespaces."""

    async def work(client: HttpClient) -> list[dict[str, Any]]:
        (found, _), (spaces, _) = await asyncio.gather(
            client.list(kinds.MUTATING_WEBHOOK, labels="app=sidecar-injector"), client.list(kinds.NAMESPACE)
        )
        out = []
        for c in found:
            if name := dig(c, "metadata", "labels", TAG):
                using = [n["metadata"]["name"] for n in spaces if dig(n, "metadata", "labels", REVISION) == name]
                out.append({"tag": name, "revision": revision_of(c), "namespaces": using})
        return sorted(out, key=lambda t: str(t["tag"]))

    found = target.run(work)
    if output == "json":
        click.echo(jsons.pretty(found))
    elif not found:
        click.echo("No Istio revision tag MutatingWebhookConfigurations to list", err=True)
    else:
        rows = [
            ["TAG", "REVISION", "NAMESPACES"],
            *([t["tag"], t["revision"], ",".join(t["namespaces"])] for t in found),
        ]
        click.echo(wide_table(rows))
