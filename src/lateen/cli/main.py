"""The command tree. Each command's code is imported when it runs: ``--help`` must be instant."""

from __future__ import annotations

import importlib
import sys

import click

from lateen.cli.output import USAGE, CliError, fail

COMMANDS = {
    "cluster": ("lateen.cli.cluster:cluster", "Start, stop and inspect the embedded cluster."),
    "demo": ("lateen.cli.demo:demo", "From nothing to Bookinfo in the mesh, by one command."),
    "image": ("lateen.cli.cluster:image", "The catalogue of images that the embedded cluster can run."),
    "install": ("lateen.cli.install:install", "Install the mesh into a cluster."),
    "kube-inject": ("lateen.cli.mesh:kube_inject", "Add sidecars to manifests."),
    "kubeconfig": ("lateen.cli.cluster:kubeconfig", "Print the path of the embedded cluster's kubeconfig."),
    "manifest": ("lateen.cli.install:manifest", "Print what an installation consists of."),
    "proxy-status": ("lateen.cli.mesh:proxy_status", "Which proxies are connected and up to date."),
    "uninstall": ("lateen.cli.install:uninstall", "Remove the mesh from a cluster."),
    "version": ("lateen.cli.version:version", "Versions of client, control plane and proxies."),
}


class Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = {"ps": "proxy-status"}.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f'; did you mean "{near[0]}"?' if near else "; see lateen --help"
            raise CliError(f'unknown command "{args[0]}"{hint}', USAGE)
        return super().resolve_command(ctx, args)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Lateen: a service mesh with Istio's API on the real Envoy, with or without a Kubernetes cluster."""


def run() -> None:
    """The entry point: every failure is one sentence and an exit code, never a traceback."""
    try:
        cli.main(standalone_mode=False)
    except CliError as e:
        fail(str(e))
        sys.exit(e.code)
    except click.exceptions.Abort:
        fail("interrupted; run the same command again to go on")
        sys.exit(130)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.ClickException as e:
        fail(e.format_message())
        sys.exit(USAGE)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as e:
        fail(str(e))
        sys.exit(1)
