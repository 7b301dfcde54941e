"""``kubectl wait`` and ``kubectl rollout``."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from lateen.api.kinds import Kind
from lateen.cli.base import command
from lateen.cli.kubectl.common import called, kinds_of, not_found, options, target_of, wanted
from lateen.cli.output import USAGE, CliError
from lateen.kit import duration, times
from lateen.kit.jsons import dig
from lateen.kube.client import HttpClient


@command("wait")
@click.argument("what", nargs=-1, required=True)
@click.option("--for", "condition", required=True)
@click.option("--all", "every", is_flag=True)
@click.option("-l", "--selector", default="")
@click.option("--timeout", default="30s")
@options
def wait_(what: tuple[str, ...], condition: str, every: bool, selector: str, timeout: str, **given: Any) -> None:
    """Wait for a condition: wait --for=condition=Ready pod --all"""
    target = target_of(given)
    form, _, rest = condition.partition("=")
    kind_name, _, value = rest.partition("=")
    if form not in ("condition", "delete"):
        raise CliError(f'unrecognized condition: "{condition}"; use condition=NAME or delete', USAGE)

    async def work(client: HttpClient) -> None:
        known = await kinds_of(client)
        limit = duration.seconds(timeout)
        for kind, name in wanted(what, known):
            names = [name]
            if not name and (every or selector):
                found, _ = await client.list(kind, target.namespace, selector)
                names = [o["metadata"]["name"] for o in found]
            for one in names:
                try:
                    async with asyncio.timeout(limit):
                        while not await _met(client, kind, target.namespace, one, form, kind_name, value or "True"):
                            await asyncio.sleep(0.2)
                except TimeoutError:
                    raise CliError(f"timed out waiting for the condition on {called(kind, one)}") from None
                click.echo(f"{called(kind, one)} {'condition met' if form == 'condition' else 'deleted'}")

    target.run(work)


async def _met(
    client: HttpClient, kind: Kind, namespace: str, name: str, form: str, condition: str, value: str
) -> bool:
    found = await client.get(kind, namespace if kind.namespaced else "", name)
    if form == "delete":
        return found is None
    if found is None:
        raise not_found(kind, name)
    return any(
        str(c.get("type")).lower() == condition.lower() and str(c.get("status")).lower() == value.lower()
        for c in dig(found, "status", "conditions", default=[])
    )


@command("rollout")
@click.argument("verb", type=click.Choice(["status", "restart"]))
@click.argument("name")
@click.option("--timeout", default="120s")
@options
def rollout_(verb: str, name: str, timeout: str, **given: Any) -> None:
    """Wait for a rollout or restart a deployment: rollout status deployment/NAME"""
    target = target_of(given)
    plain = name.rpartition("/")[2]

    async def work(client: HttpClient) -> None:
        kind = (await kinds_of(client)).named("deployments.apps")
        if verb == "restart":
            at = {"kubectl.kubernetes.io/restartedAt": times.stamp()}
            change = {"spec": {"template": {"metadata": {"annotations": at}}}}
            await client.patch(kind, target.namespace, plain, change)
            click.echo(f"deployment.apps/{plain} restarted")
            return
        async with asyncio.timeout(duration.seconds(timeout)):
            while True:
                found = await client.get(kind, target.namespace, plain)
                if found is None:
                    raise not_found(kind, plain)
                status, replicas = found.get("status") or {}, dig(found, "spec", "replicas", default=1)
                seen = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
                if seen and all(status.get(n, 0) >= replicas for n in ("updatedReplicas", "availableReplicas")):
                    click.echo(f'deployment "{plain}" successfully rolled out')
                    return
                await asyncio.sleep(0.2)

    target.run(work)
