"""``kubectl label``."""

from __future__ import annotations

from typing import Any

import click

from lateen.cli.base import command
from lateen.cli.kubectl.common import called, kinds_of, not_found, options, target_of, wanted
from lateen.cli.output import CliError
from lateen.kit.jsons import dig
from lateen.kube.client import HttpClient


@command("label")
@click.argument("what", nargs=-1, required=True)
@click.option("--overwrite", is_flag=True)
@options
def label_(what: tuple[str, ...], overwrite: bool, **given: Any) -> None:
    """Set and remove labels: label namespace default istio-injection=enabled"""
    target = target_of(given)
    names = [w for w in what if "=" not in w and not w.endswith("-")]
    changes: dict[str, str | None] = {}
    for w in what:
        if "=" in w:
            key, _, value = w.partition("=")
            changes[key] = value
        elif w.endswith("-"):
            changes[w[:-1]] = None

    async def work(client: HttpClient) -> None:
        known = await kinds_of(client)
        for kind, name in wanted(tuple(names), known):
            namespace = target.namespace if kind.namespaced else ""
            found = await client.get(kind, namespace, name)
            if found is None:
                raise not_found(kind, name)
            has = dig(found, "metadata", "labels", default={})
            for key, value in changes.items():
                if value is not None and key in has and has[key] != value and not overwrite:
                    raise CliError(f"'{key}' already has a value ({has[key]}), and --overwrite is false")
            await client.patch(kind, namespace, name, {"metadata": {"labels": changes}})
            gone = all(v is None for v in changes.values())
            click.echo(f"{called(kind, name)} {'unlabeled' if gone else 'labeled'}")

    target.run(work)
