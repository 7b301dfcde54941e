"""A warning about plaintext callers before a STRICT PeerAuthentication is applied."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress

import click

from lateen.cli.connect import Target
from lateen.cli.kubectl.common import options, target_of
from lateen.cli.kubectl.files import file_option, read
from lateen.cli.output import CliError, say
from lateen.cli.plaintext import look
from lateen.console.plaintext import is_strict
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient, KubeError

SEEN_S = 3600
"""How far to look back for plaintext callers, in seconds"""


async def warn(client: HttpClient, objects: Iterable[Json], target: Target) -> None:
    """Print the observed callers that the policies among these objects would reject."""
    strict = [{**o, "metadata": {"namespace": target.namespace, **o["metadata"]}} for o in objects if is_strict(o)]
    if not strict:
        return
    try:
        lines = await look(client, target.istio_namespace, SEEN_S, "", strict)
    except (CliError, KubeError, OSError, ValueError, TypeError, AttributeError):
        lines = []  # without a collector there are no observations; invalid policies are reported by validation
    if lines:
        say(f"Warning: STRICT refuses these callers in plaintext, seen in the last {SEEN_S // 60} minutes:")
        for line in lines:
            say(f"  {line}")


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
@file_option
@click.option("-R", "--recursive", is_flag=True)
@options
def _apply(files: tuple[str, ...], recursive: bool, namespace: str, kubeconfig: str | None, context: str) -> None:
    if "-" in files:
        _keep_input()
    try:
        objects = [obj for _, obj in read(files, recursive)] if files else []
    finally:
        if "-" in files:
            os.lseek(0, 0, os.SEEK_SET)
    if any(map(is_strict, objects)):
        target = target_of({"namespace": namespace, "kubeconfig": kubeconfig, "context": context})
        target.run(lambda client: warn(client, objects, target))


def _keep_input() -> None:
    """Buffer standard input, so that it can be read twice."""
    with tempfile.TemporaryFile() as kept:
        while data := sys.stdin.buffer.read(1 << 20):
            kept.write(data)
        kept.seek(0)
        os.dup2(kept.fileno(), 0)


def before(args: Sequence[str]) -> None:
    """Warn before the real kubectl runs ``apply`` with these arguments. Errors in the arguments or files are reported
    by kubectl; nothing here may keep it from running."""
    with suppress(Exception):
        _apply.main(list(args[1:]), standalone_mode=False)
