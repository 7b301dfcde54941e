"""``kubectl exec`` and ``kubectl logs``."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click

from lateen.cli import pods
from lateen.cli.base import command
from lateen.cli.kubectl.common import options, target_of
from lateen.cli.output import USAGE, CliError
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient


def _default_container(pod: Json) -> str:
    named = dig(pod, "metadata", "annotations", "kubectl.kubernetes.io/default-container")
    return str(named or pod["spec"]["containers"][0]["name"])


@command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-c", "--container", default="")
@click.option("-i", "--stdin", is_flag=True)
@click.option("-t", "--tty", is_flag=True)
@options
@click.argument("name")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
def exec_(name: str, rest: tuple[str, ...], container: str, stdin: bool, tty: bool, **given: Any) -> None:
    """Run a command in a container: exec POD -c CONTAINER -- COMMAND"""
    if tty:
        raise CliError("a terminal needs the real kubectl: apt-get install kubernetes-client")
    words = list(rest)
    while words and words[0] != "--":  # options may also follow the pod's name
        if words[0] in ("-c", "--container") and len(words) > 1:
            container, words = words[1], words[2:]
        elif words[0] in ("-n", "--namespace") and len(words) > 1:
            given["namespace"], words = words[1], words[2:]
        elif words[0] in ("-i", "--stdin"):
            stdin, words = True, words[1:]
        else:
            break
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise CliError("you must specify at least one command for the container", USAGE)
    target = target_of(given)

    async def work(client: HttpClient) -> tuple[bytes, bytes, int]:
        pod = await pods.find(client, name, target.namespace)
        chosen = container or _default_container(pod)
        data = sys.stdin.buffer.read() if stdin else b""
        meta = pod["metadata"]
        return await client.run(meta["namespace"], meta["name"], chosen, words, data, timeout=3600)

    out, err, code = target.run(work)
    sys.stdout.buffer.write(out)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(err)
    sys.stderr.buffer.flush()
    if code:
        click.echo(f"command terminated with exit code {code}", err=True)
        raise click.exceptions.Exit(code)


@command("logs")
@click.argument("name")
@click.argument("second", required=False)
@click.option("-c", "--container", default="")
@click.option("-f", "--follow", is_flag=True)
@click.option("--tail", default=-1)
@options
def logs_(name: str, second: str | None, container: str, follow: bool, tail: int, **given: Any) -> None:
    """Print a container's log: logs POD -c istio-proxy -f"""
    target = target_of(given)

    async def work(client: HttpClient) -> None:
        pod = await pods.find(client, name, target.namespace)
        chosen = container or second or _default_container(pod)
        meta = pod["metadata"]
        lines = client.logs(meta["namespace"], meta["name"], chosen, tail if tail >= 0 else 1 << 30, follow)
        async with contextlib.aclosing(lines):
            async for line in lines:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()

    try:
        target.run(work)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
