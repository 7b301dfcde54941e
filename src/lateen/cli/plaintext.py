"""lateen x authz plaintext: callers that use plaintext and would be rejected by a STRICT PeerAuthentication."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from lateen.cli.base import command
from lateen.cli.collected import ranged
from lateen.cli.connect import Target, target_options
from lateen.cli.output import BAD_DATA, USAGE, CliError, say
from lateen.console import plaintext
from lateen.console.plaintext import Place, Seen, is_strict
from lateen.kit import duration, yamldoc
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient


def told(found: dict[Place, Seen], names: dict[str, str], now: float, step_s: float, more: bool = False) -> list[str]:
    """One or more lines for each service; the parameters are those of ``console.plaintext.Found``."""
    out = []
    for (namespace, name), seen in sorted(found.items()):
        ago = max(now - seen.last, 0.0)
        out.append(
            f"{name}.{namespace}: about {max(seen.times, 1):,.0f} calls in plaintext, the last one less than "
            f"{_ago(ago + step_s)} ago"
        )
        for (address, port), last in sorted(seen.callers.items(), key=lambda item: item[1], reverse=True):
            out.append(f"  {names.get(address, address)} at port {port}, last seen {last or 'at an unknown time'}")
        if seen.unread:
            remedy = f"; lateen x authz plaintext -n {namespace} --logs {plaintext.ALL_PODS} reads more" if more else ""
            out.append(f"  there may be more: the logs of {seen.unread} of its pods were not read{remedy}")
    return out


def _ago(seconds: float) -> str:
    minutes = int(seconds // 60) + 1
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"


async def look(
    client: HttpClient,
    root: str,
    seconds: int,
    namespace: str,
    policies: Sequence[Json] | None = None,
    logs: int = plaintext.PODS,
) -> list[str]:
    """Lines with the results of ``console.plaintext``. Raises CliError, KubeError, Unreachable."""

    async def ask(query: str, seconds: int, step: int) -> list[Json]:
        return await ranged(client, root, query, seconds, step)

    found = await plaintext.look(client, ask, root, seconds, namespace, policies, logs)
    return told(found.services, found.names, time.time(), found.step_s, found.more)


@command("plaintext")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Services of all namespaces.")
@click.option("-f", "--filename", "name", default="", help="A file with PeerAuthentications; - for standard input.")
@click.option("--since", default="1h", help="How far back to look; the collector keeps 24 hours.")
@click.option(
    "--logs",
    type=click.IntRange(0, plaintext.ALL_PODS),
    default=plaintext.PODS,
    show_default=True,
    help="The number of pods whose access logs are read.",
)
@target_options
def authz_plaintext(target: Target, everywhere: bool, name: str, since: str, logs: int) -> None:
    """List callers that still use plaintext, before you apply STRICT: callers of a namespace's services, or of the
    services that the PeerAuthentications in a file select. Nothing is changed."""
    try:
        seconds = round(duration.seconds(since))
    except ValueError as e:
        raise CliError(f"--since: {e}", USAGE) from None
    policies = _policies(name, target.namespace) if name else None
    namespace = "" if everywhere else target.namespace
    lines = target.run(lambda client: look(client, target.istio_namespace, seconds, namespace, policies, logs))
    if not lines:
        say(f"no calls in plaintext were seen in {since}")
    for line in lines:
        click.echo(line)


def _policies(name: str, namespace: str) -> list[Json]:
    try:
        found = list(yamldoc.objects(sys.stdin.read() if name == "-" else Path(name).read_text()))
    except (OSError, ValueError) as e:
        raise CliError(f"{name}: {e}", BAD_DATA) from None
    out = [o for o in found if is_strict(o)]
    if not out:
        raise CliError(f"{name} has no PeerAuthentication with the mode STRICT", BAD_DATA)
    for one in out:
        one["metadata"].setdefault("namespace", namespace)
    return out
