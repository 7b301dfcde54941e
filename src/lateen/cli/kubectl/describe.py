"""``kubectl describe``."""

from __future__ import annotations

from typing import Any

import click

from lateen.api.kinds import EVENT, POD
from lateen.cli.base import command
from lateen.cli.kubectl.common import kinds_of, not_found, options, target_of, wanted
from lateen.kit import yamldoc
from lateen.kit.jsons import dig
from lateen.kube.client import HttpClient


@command("describe")
@click.argument("what", nargs=-1, required=True)
@click.option("-l", "--selector", default="")
@options
def describe_(what: tuple[str, ...], selector: str, **given: Any) -> None:
    """Describe a pod, or print another object as YAML: describe pod NAME"""
    from lateen.cli.describing import pod as describe_pod

    target = target_of(given)

    async def work(client: HttpClient) -> list[str]:
        known = await kinds_of(client)
        out = []
        for kind, name in wanted(what, known):
            namespace = target.namespace if kind.namespaced else ""
            found = (
                [await client.get(kind, namespace, name)] if name else (await client.list(kind, namespace, selector))[0]
            )
            for obj in found:
                if obj is None:
                    raise not_found(kind, name)
                if kind.kind == POD.kind:
                    events, _ = await client.list(EVENT, namespace)
                    mine = [e for e in events if dig(e, "involvedObject", "uid") == obj["metadata"].get("uid")]
                    out.append(describe_pod(obj, mine))
                else:
                    out.append(yamldoc.dump({"kind": kind.kind, **obj}))
        return out

    click.echo("\n\n".join(target.run(work)))
