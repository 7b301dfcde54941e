"""Confirmation before something is changed."""

from __future__ import annotations

import sys

import click

from lateen.cli.output import USAGE, CliError, say

yes_option = click.option("-y", "--skip-confirmation", "yes", is_flag=True, help="Do not ask for confirmation.")


def confirm(question: str) -> None:
    """Returns if the answer is yes; "no" ends the command without an error; no input at all is an error."""
    click.echo(f"{question} (y/N) ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        say("")
        raise CliError("there is no input to read the confirmation from; add -y to proceed without it", USAGE)
    if answer.strip().lower() not in ("y", "yes"):
        say("Cancelled: nothing was changed.")
        raise click.exceptions.Exit(0)
