"""lateen proxy-config log."""

from __future__ import annotations

import difflib
from typing import Any

import click

from lateen.api import kinds
from lateen.cli import pods
from lateen.cli.base import command
from lateen.cli.connect import Target, complete, target_options
from lateen.cli.output import USAGE, CliError
from lateen.kit import jsons


@command("log")
@click.argument("names", nargs=-1, required=True, shell_complete=complete(kinds.POD))
@click.option("--level", "levels", multiple=True, help="LEVEL, or LOGGER:LEVEL,…; as in --level http:debug")
@click.option("-r", "--reset", is_flag=True, help="Reset to the installation's level (warning).")
@click.option("-o", "--output", type=click.Choice(["short", "json"]), default="short")
@target_options
def log_(target: Target, names: tuple[str, ...], levels: tuple[str, ...], reset: bool, output: str) -> None:
    """Show or change the proxy's log levels."""
    settings = _levels(levels) if levels else {"": "warning"} if reset else {}

    async def work(client: Any) -> list[tuple[str, str]]:
        out = []
        for name in names:
            pod = await pods.find(client, name, target.namespace)
            answer = await pods.ask(client, pod, "POST", "logging")
            _there(settings, dict(_parsed(answer.decode(errors="replace"))))
            for logger, level in settings.items():
                answer = await pods.ask(client, pod, "POST", f"logging?{logger or 'level'}={level}")
            out.append((f"{pod['metadata']['name']}.{pod['metadata']['namespace']}", answer.decode(errors="replace")))
        return out

    found = target.run(work)
    if output == "json":
        click.echo(jsons.pretty({name: dict(_parsed(text)) for name, text in found}))
        return
    for name, text in found:
        click.echo(f"{name}:\n{text.rstrip()}")


def _levels(given: tuple[str, ...]) -> dict[str, str]:
    known = ("trace", "debug", "info", "warning", "error", "critical", "off")
    out: dict[str, str] = {}
    for part in ",".join(given).split(","):
        logger, colon, level = part.replace("=", ":").rpartition(":")
        if level not in known:
            raise CliError(f'--level {part}: "{level}" is not one of {", ".join(known)}', USAGE)
        out[logger if colon else ""] = level
    return out


def _there(settings: dict[str, str], known: dict[str, str]) -> None:
    """Raises CliError for a logger that Envoy does not have, before anything is changed."""
    for logger in settings:
        if logger and logger not in known:
            near = difflib.get_close_matches(logger, known, 1)
            hint = f'did you mean "{near[0]}"?' if near else "without --level, they are listed"
            raise CliError(f"--level {logger}: the proxy has no such logger; {hint}", USAGE)


def _parsed(text: str) -> list[tuple[str, str]]:
    pairs = (line.strip().partition(": ") for line in text.splitlines() if ": " in line)
    return [(name, level) for name, _, level in pairs]
