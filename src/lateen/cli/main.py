"""The command tree. Each command's code is imported when it runs: ``--help`` must be instant."""

from __future__ import annotations

import os
import sys

import click

from lateen.cli.base import Entry, Group
from lateen.cli.output import USAGE, CliError, fail

COMMANDS: dict[str, Entry] = {
    "addons": ("lateen.cli.addons:addons", "The console and the collector of metrics."),
    "admin": ("lateen.cli.support:admin", "The control plane: log levels."),
    "bug-report": ("lateen.cli.support:bug_report", "Collect diagnostics for a bug report, without secrets."),
    "check": ("lateen.cli.check:check", "Check the health of the mesh and suggest fixes."),
    "completion": ("lateen.cli.support:completion", "Completion of words for bash, zsh and fish."),
    "experimental": ("lateen.cli.experimental:experimental", "describe, metrics, check-inject and more (x)."),
    "options": ("lateen.cli.support:options", "The options that most commands have."),
    "profile": ("lateen.cli.manifest:profile", "Configuration profiles."),
    "tag": ("lateen.cli.tag:tag", "Names for control plane revisions."),
    "upgrade": ("lateen.cli.install:upgrade", "Bring an installation to this version."),
    "verify-install": ("lateen.cli.manifest:verify_install", "Whether everything of an installation is there."),
    "analyze": ("lateen.cli.analyze:analyze", "Find mistakes in the mesh's configuration, in files or in a cluster."),
    "validate": ("lateen.cli.analyze:validate", "Check that files would be accepted."),
    "cluster": ("lateen.cli.cluster:cluster", "Start, stop and inspect the embedded cluster."),
    "dashboard": ("lateen.cli.dashboard:dashboard", "Open a page of the mesh: kiali, prometheus, envoy…"),
    "demo": ("lateen.cli.demo:demo", "From nothing to Bookinfo in the mesh, by one command."),
    "image": ("lateen.cli.cluster:image", "The catalogue of images that the embedded cluster can run."),
    "install": ("lateen.cli.install:install", "Install the mesh into a cluster."),
    "kube-inject": ("lateen.cli.kube_inject:kube_inject", "Add sidecars to manifests."),
    "kubectl": ("lateen.cli.kubectl:kubectl", "kubectl; where it is not installed, its everyday verbs."),
    "kubeconfig": ("lateen.cli.cluster:kubeconfig", "Print the path of the embedded cluster's kubeconfig."),
    "manifest": ("lateen.cli.manifest:manifest", "Print what an installation consists of."),
    "proxy-config": ("lateen.cli.proxy_config:proxy_config", "What a proxy really has: clusters, listeners, routes…"),
    "proxy-status": ("lateen.cli.mesh:proxy_status", "Which proxies are connected and up to date."),
    "samples": ("lateen.cli.addons:samples", "Applications and rules to try the mesh with."),
    "uninstall": ("lateen.cli.install:uninstall", "Remove the mesh from a cluster."),
    "version": ("lateen.cli.version:version", "Versions of client, control plane and proxies."),
}


ALIASES = {
    "ps": "proxy-status",
    "pc": "proxy-config",
    "x": "experimental",
    "exp": "experimental",
    "d": "dashboard",
    "dash": "dashboard",
}


@click.group(cls=Group, entries=COMMANDS, aliases=ALIASES, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Lateen: a service mesh with Istio's API on the real Envoy, with or without a Kubernetes cluster."""


def run() -> None:
    """The entry point: every failure is one sentence and an exit code, never a traceback."""
    try:
        code = cli.main(prog_name="lateen", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except CliError as e:
        fail(str(e))
        sys.exit(e.code)
    except click.exceptions.Abort:
        fail("interrupted; run the same command again to go on")
        sys.exit(130)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.format_message())
        sys.exit(0)
    except click.ClickException as e:
        fail(e.format_message())
        sys.exit(USAGE)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as e:
        fail(str(e))
        sys.exit(1)
    except Exception as e:  # a mistake of ours: still one sentence; the details where somebody asks for them
        if os.environ.get("LATEEN_DEBUG"):
            raise
        fail(f"internal error: {type(e).__name__}: {e}; run it again with LATEEN_DEBUG=1 for the details")
        sys.exit(1)
