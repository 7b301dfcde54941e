"""``lateen kubectl``: runs the real kubectl if it is installed, otherwise built-in versions of its everyday verbs,
with the same flags and output."""

from __future__ import annotations

import os
import shutil
import sys

import click

from lateen.cli.base import Group
from lateen.cli.connect import paths_of

ENTRIES = {
    "apply": ("lateen.cli.kubectl.apply:apply_", "Create or update objects from files."),
    "delete": ("lateen.cli.kubectl.delete:delete_", "Delete objects."),
    "describe": ("lateen.cli.kubectl.describe:describe_", "Describe a pod; print other objects as YAML."),
    "exec": ("lateen.cli.kubectl.pods:exec_", "Run a command in a container."),
    "get": ("lateen.cli.kubectl.get:get_", "List objects."),
    "label": ("lateen.cli.kubectl.label:label_", "Set and remove labels."),
    "logs": ("lateen.cli.kubectl.pods:logs_", "Print a container's log."),
    "rollout": ("lateen.cli.kubectl.wait:rollout_", "Wait for a rollout or restart a deployment."),
    "wait": ("lateen.cli.kubectl.wait:wait_", "Wait for a condition."),
}


def _verb_first(args: list[str]) -> list[str]:
    """Move options that precede the verb behind it."""
    at = 0
    while at < len(args) and args[at].startswith("-") and args[at] not in ("-h", "--help"):
        at += 1 if "=" in args[at] else 2
    return [*args[at : at + 1], *args[:at], *args[at + 1 :]]


def _warned(args: list[str]) -> None:
    """Print warnings before the real kubectl runs: the webhook, whose warnings kubectl shows, does not know the
    callers."""
    if args[:1] == ["apply"]:
        from lateen.cli.kubectl.strict import before

        before(args)


class _Kubectl(Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        real = shutil.which("kubectl")
        if real and not os.environ.get("LATEEN_KUBECTL_BUILT_IN"):
            environment = os.environ | {
                "KUBECONFIG": os.environ.get("KUBECONFIG") or os.pathsep.join(map(str, paths_of(None)))
            }
            _warned(_verb_first(args))
            sys.stdout.flush()
            os.execve(real, ["kubectl", *args], environment)
        return super().parse_args(ctx, _verb_first(args))


@click.group(cls=_Kubectl, entries=ENTRIES, context_settings={"help_option_names": ["-h", "--help"]})
def kubectl() -> None:
    """kubectl, or its everyday verbs where it is not installed."""
