"""lateen tag: names for revisions of the control plane.

https://istio.io/latest/docs/setup/upgrade/canary/#stable-revision-labels
"""

from __future__ import annotations

import asyncio
import difflib
from typing import Any

import click

from lateen.api import kinds
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, target_options
from lateen.cli.output import BAD_DATA, USAGE, CliError, say, wide_table
from lateen.install import webhooks
from lateen.install.objects import NAMESPACE
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.apply import apply
from lateen.kube.client import HttpClient
from lateen.wire.revision import DEFAULT, LABEL, TAG_LABEL, Revision


@click.group(
    cls=Group,
    entries={
        "generate": ("lateen.cli.tag:tag_generate", "Print the webhook configurations of a tag."),
        "list": ("lateen.cli.tag:tag_list", "List tags with their revisions and namespaces."),
        "remove": ("lateen.cli.tag:tag_remove", "Remove a tag."),
        "set": ("lateen.cli.tag:tag_set", "Create a tag, or point it to another revision."),
    },
    aliases={"show": "list", "delete": "remove"},
)
def tag() -> None:
    """Manage revision tags, which namespaces select with the label istio.io/rev."""


async def _injectors(client: HttpClient) -> list[Json]:
    found, _ = await client.list(kinds.MUTATING_WEBHOOK, labels="app=sidecar-injector")
    return found


def _label(config: Json, label: str) -> str:
    return str(dig(config, "metadata", "labels", label, default=""))


async def _installed(client: HttpClient) -> set[str]:
    found, _ = await client.list(kinds.DEPLOYMENT, NAMESPACE, "app=istiod")
    return {_label(d, LABEL) or DEFAULT for d in found}


async def _revision(client: HttpClient, revision: str) -> Revision:
    """An installed revision. Raises CliError."""
    own = await _installed(client)
    if revision not in own:
        near = difflib.get_close_matches(revision, sorted(own), 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise CliError(f'there is no control plane of revision "{revision}"{hint}')
    return Revision(revision)


def _tag_name(name: str) -> str:
    try:
        return Revision(name).name
    except ValueError as e:
        raise CliError(f"tag {e}", BAD_DATA) from None


revision_option = click.option("-r", "--revision", required=True, help="The revision that the tag points to.")


overwrite_option = click.option("--overwrite", is_flag=True, help="Point an existing tag to another revision.")
skip_option = click.option(
    "-y",
    "--skip-confirmation",
    is_flag=True,
    help="Accepted for compatibility with istioctl; there is no confirmation.",
)


async def _free(client: HttpClient, tag: str, revision: str, overwrite: bool) -> bool:
    """Whether the tag exists. Raises CliError if it points to another revision and that is not to be changed."""
    before = await client.get(kinds.MUTATING_WEBHOOK, "", f"istio-revision-tag-{tag}")
    old = "" if before is None else _label(before, LABEL)
    if old and old != revision and not overwrite:
        raise CliError(f'tag "{tag}" points to revision {old}; to change that, add --overwrite', USAGE)
    return bool(old)


@command("generate")
@click.argument("name")
@revision_option
@overwrite_option
@skip_option
@target_options
def tag_generate(target: Target, name: str, revision: str, overwrite: bool, skip_confirmation: bool) -> None:  # noqa: ARG001
    """Print the webhook configurations of a tag, for kubectl apply."""
    wanted = _tag_name(name)

    async def work(client: HttpClient) -> list[Json]:
        await _free(client, wanted, revision, overwrite)
        return webhooks.tagged(wanted, await _revision(client, revision))

    click.echo("---\n".join(yamldoc.dump(o) for o in target.run(work)), nl=False)


@command("set")
@click.argument("name")
@revision_option
@overwrite_option
@skip_option
@target_options
def tag_set(target: Target, name: str, revision: str, overwrite: bool, skip_confirmation: bool) -> None:  # noqa: ARG001
    """Create a tag, or point it to another revision."""
    wanted = _tag_name(name)

    async def work(client: HttpClient) -> bool:
        existed = await _free(client, wanted, revision, overwrite)
        chosen = await _revision(client, revision)
        taken = await _installed(client)
        if wanted in taken and wanted != DEFAULT:
            raise CliError(f'"{wanted}" is the name of a revision; give the tag another name', USAGE)
        if wanted == DEFAULT and DEFAULT in taken:
            if chosen.is_default:
                raise CliError("the revision default is already the default; it needs no tag", USAGE)
            await _step_back(client)
        trusted = [dig(h, "clientConfig", "caBundle") for c in await _injectors(client) for h in c["webhooks"]]
        known = [bundle for bundle in trusted if bundle]
        for obj in webhooks.tagged(wanted, chosen):
            # istiod has one root, so the bundle is set here; waiting for istiod to set it would leave a gap
            if known:
                hooks = [{**h, "clientConfig": {**h["clientConfig"], "caBundle": known[0]}} for h in obj["webhooks"]]
                obj["webhooks"] = hooks
            await apply(client, obj)
        return existed

    changed = target.run(work)
    click.echo(
        f'Revision tag "{wanted}" {"updated" if changed else "created"}, referencing control plane revision '
        f'"{revision}". To enable injection using this\n'
        f"revision tag, use 'kubectl label namespace <NAMESPACE> istio.io/rev={wanted}'"
    )


async def _step_back(client: HttpClient) -> None:
    """The revision "default" hands namespaces without a revision over to the tag "default"; it keeps those that name
    it."""
    revision = Revision()
    for obj in webhooks.objects(revision):
        obj["webhooks"] = [h for h in obj["webhooks"] if h["name"].startswith(("rev.", "mesh-config."))]
        if kinds.of(obj) is kinds.MUTATING_WEBHOOK:
            # its own hooks would also select "istio.io/rev=default", which now belongs to the tag
            await client.delete(kinds.MUTATING_WEBHOOK, "", obj["metadata"]["name"])
        else:
            await apply(client, obj)
    say("Warning: the revision default no longer injects sidecars; to undo: lateen tag remove default, lateen install")


@command("remove")
@click.argument("name")
@click.option("-y", "--skip-confirmation", "yes", is_flag=True, help="Remove it even if namespaces use it.")
@target_options
def tag_remove(target: Target, name: str, yes: bool) -> None:
    """Remove a tag."""

    async def work(client: HttpClient) -> None:
        spaces, _ = await client.list(kinds.NAMESPACE, labels=f"{LABEL}={name}")
        used = [n["metadata"]["name"] for n in spaces]
        if used and not yes:
            raise CliError(
                f'tag "{name}" is used by {", ".join(used)}; their new pods would not be injected. Add -y to remove it'
            )
        if not await client.delete(kinds.MUTATING_WEBHOOK, "", f"istio-revision-tag-{name}"):
            raise CliError(f'there is no tag "{name}"; lateen tag list shows them')
        if name == DEFAULT:
            await client.delete(kinds.VALIDATING_WEBHOOK, "", webhooks.DEFAULT_VALIDATOR)

    target.run(work)
    click.echo(f"Revision tag {name} removed")


@command("list")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
@target_options
def tag_list(target: Target, output: str) -> None:
    """List tags with their revisions and namespaces."""

    async def work(client: HttpClient) -> list[dict[str, Any]]:
        found, (spaces, _) = await asyncio.gather(_injectors(client), client.list(kinds.NAMESPACE))
        out = []
        for c in found:
            if name := _label(c, TAG_LABEL):
                using = [n["metadata"]["name"] for n in spaces if _label(n, LABEL) == name]
                out.append({"tag": name, "revision": _label(c, LABEL) or DEFAULT, "namespaces": using})
        return sorted(out, key=lambda t: str(t["tag"]))

    found = target.run(work)
    if not found:
        click.echo("No Istio revision tag MutatingWebhookConfigurations to list", err=output != "table")
    if output != "table":
        click.echo(jsons.pretty(found) if output == "json" else yamldoc.dump(found).rstrip())
    elif found:
        rows = [["TAG", "REVISION", "NAMESPACES"]]
        rows += [[t["tag"], t["revision"], ",".join(t["namespaces"])] for t in found]
        click.echo(wide_table(rows))
