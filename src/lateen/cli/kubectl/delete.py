"""``kubectl delete``."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from lateen.cli.base import command
from lateen.cli.kubectl.common import failed, kinds_of, not_found, options, qualified, target_of, wanted
from lateen.cli.kubectl.files import file_option, read
from lateen.cli.output import USAGE, CliError
from lateen.kube.client import HttpClient, KubeError


@command("delete")
@click.argument("what", nargs=-1)
@file_option
@click.option("--ignore-not-found", is_flag=True)
@click.option("-l", "--selector", default="")
@click.option("--wait/--no-wait", default=True)
@options
def delete_(what: tuple[str, ...], files: tuple[str, ...], **given: Any) -> None:
    """Delete objects: delete -f FILE, delete namespace NAME"""
    target, objects = target_of(given), read(files)

    async def work(client: HttpClient) -> None:
        known = await kinds_of(client)
        doomed = [
            (known.of(o), o["metadata"].get("namespace") or target.namespace, o["metadata"]["name"]) for _, o in objects
        ]
        for kind, name in wanted(what, known) if what else ():
            if name:
                doomed.append((kind, target.namespace, name))
            elif given["selector"]:
                found, _ = await client.list(kind, target.namespace, given["selector"])
                doomed += [(kind, target.namespace, o["metadata"]["name"]) for o in found]
            else:
                raise CliError("resource(s) were provided, but no name was specified", USAGE)
        gone = []
        for kind, namespace, name in doomed:
            try:
                there = await client.delete(kind, namespace if kind.namespaced else "", name)
            except KubeError as e:
                if e.code != 404:
                    raise failed(e) from e
                there = False
            if there:
                click.echo(f'{qualified(kind)} "{name}" deleted')
                gone.append((kind, namespace, name))
            elif not given["ignore_not_found"]:
                raise not_found(kind, name)
        for kind, namespace, name in gone if given["wait"] else ():
            async with asyncio.timeout(120):
                while await client.get(kind, namespace if kind.namespaced else "", name) is not None:
                    await asyncio.sleep(0.2)

    target.run(work)
