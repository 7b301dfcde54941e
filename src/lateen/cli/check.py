"""lateen check: the mesh's health, with a remedy for each problem."""

from __future__ import annotations

import asyncio
import sys
import time

import click

from lateen.cli import checking, checks
from lateen.cli.base import command
from lateen.cli.connect import Target, paths_of, target_options
from lateen.cli.output import CliError, colored, colors
from lateen.cluster.home import Home
from lateen.kit import jsons
from lateen.kube.kubeconfig import ConfigError, from_files

MARKS = {
    checking.OK: ("√", "32"),
    checking.WARNING: ("‼", "33"),
    checking.FAILED: ("×", "31"),
    checking.SKIPPED: ("-", "2"),
}


@command("check")
@click.option("--pre", is_flag=True, help="Only check whether the mesh can be installed.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.option("-w", "--watch", is_flag=True, help="Repeat every 5 seconds.")
@click.option("--wait", default=0.0, help="Seconds to wait until nothing is broken.")
@target_options
def check(target: Target, pre: bool, output: str, watch: bool, wait: float) -> None:
    """Check the machine, the cluster, the control plane, certificates, webhooks, proxies and configuration.

    Exit code: 0 all is well, 1 something is broken, 2 there are only warnings.
    """
    groups = checks.PRE if pre else checks.GROUPS
    deadline = time.monotonic() + wait
    while True:
        quiet = output == "json" or (wait and time.monotonic() < deadline)
        printer = _Printer(quiet=bool(quiet))
        results = asyncio.run(_run(target, groups, printer))
        code = checking.worst(results)
        if watch:
            click.echo(f"\n{printer.last(code)}\n")
            time.sleep(5)
            continue
        if code == 1 and time.monotonic() < deadline:
            time.sleep(0.5)
            continue
        break
    if output == "json":
        click.echo(jsons.pretty({"exitCode": code, "checks": [r.json() for r in results]}))
    else:
        printer = _Printer(quiet=False)
        for r in results if quiet else ():
            printer.line(r)
        click.echo(f"\n{printer.last(code)}")
    raise click.exceptions.Exit(code)


class _Printer:
    def __init__(self, quiet: bool) -> None:
        self._quiet, self._group, self._color = quiet, "", colors(sys.stdout)

    def __call__(self, result: checking.Result) -> None:
        if not self._quiet:
            self.line(result)

    def line(self, r: checking.Result) -> None:
        if r.group != self._group:
            click.echo(f"{'' if not self._group else chr(10)}{r.group}\n{'-' * len(r.group)}")
            self._group = r.group
        mark, code = MARKS[r.status]
        shown = colored(code, mark, self._color)
        if r.status == checking.OK:
            click.echo(f"{shown} {r.check}{f' ({r.says})' if r.says else ''}")
        elif r.status == checking.SKIPPED:
            click.echo(f"{shown} {r.check}: skipped, {r.says}")
        else:
            click.echo(f"{shown} {r.check}\n    {r.says}\n    remedy: {r.remedy}")

    def last(self, code: int) -> str:
        mark, color = MARKS[{0: checking.OK, 1: checking.FAILED, 2: checking.WARNING}[code]]
        return f"Status check results are {colored(color, mark, self._color)}"


async def _run(
    target: Target, groups: dict[str, list[tuple[str, checking.Check]]], seen: _Printer
) -> list[checking.Result]:
    try:
        paths = paths_of(target.kubeconfig)
        client = from_files(paths, target.context)
    except (CliError, ConfigError) as e:
        return await checking.run(groups, checking.Context(None, target.istio_namespace, False, str(e)), seen)
    async with client:
        embedded = Home.default().kubeconfig in paths
        context = checking.Context(client, target.istio_namespace, embedded, only=target.given_namespace)
        return await checking.run(groups, context, seen)
