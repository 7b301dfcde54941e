"""The command tree. Each command's code is imported when it runs: ``--help`` must be instant."""

from __future__ import annotations

import os
import sys

import click

from lateen import __version__
from lateen.cli.base import Entry, Group
from lateen.cli.output import USAGE, CliError, fail

COMMANDS: dict[str, Entry] = {
    "addons": ("lateen.cli.addons:addons", "Manage the add-ons: the console and the metrics collector."),
    "admin": ("lateen.cli.support:admin", "Show and change istiod's log levels."),
    "bug-report": ("lateen.cli.support:bug_report", "Collect diagnostics for a bug report (no secrets)."),
    "check": ("lateen.cli.check:check", "Check the mesh's health and suggest fixes."),
    "completion": ("lateen.cli.support:completion", "Print a completion script for bash, zsh or fish."),
    "experimental": (
        "lateen.cli.experimental:experimental",
        "Run experimental commands, as in istioctl: describe, metrics, check-inject… (x).",
    ),
    "options": ("lateen.cli.support:options", "List the options that most commands have."),
    "profile": ("lateen.cli.manifest:profile", "List, print and compare installation profiles."),
    "tag": ("lateen.cli.tag:tag", "Manage revision tags."),
    "upgrade": ("lateen.cli.install:upgrade", "Upgrade a control plane and keep its settings."),
    "verify-install": ("lateen.cli.manifest:verify_install", "Verify that an installation is complete and ready."),
    "analyze": ("lateen.cli.analyze:analyze", "Analyze configuration in files or in a cluster and report problems."),
    "validate": ("lateen.cli.validate:validate", "Validate configuration files."),
    "cluster": ("lateen.cli.cluster:cluster", "Start, stop and inspect the embedded cluster."),
    "create-remote-secret": (
        "lateen.cli.remote:create_remote_secret",
        "Print a Secret that lets another cluster's istiod read this cluster.",
    ),
    "dashboard": ("lateen.cli.dashboard:dashboard", "Open a web page of the mesh: kiali, prometheus, envoy…"),
    "demo": ("lateen.cli.demo:demo", "Start a cluster with the mesh and Bookinfo in one step."),
    "image": ("lateen.cli.image:image", "Manage the images that the embedded cluster can run."),
    "install": ("lateen.cli.install:install", "Install the mesh into a cluster."),
    "kube-inject": ("lateen.cli.kube_inject:kube_inject", "Inject sidecars into manifests."),
    "kubectl": ("lateen.cli.kubectl:kubectl", "Run kubectl, or its most used verbs where it is not installed."),
    "kubeconfig": ("lateen.cli.cluster:kubeconfig", "Print the path of the embedded cluster's kubeconfig."),
    "logs": ("lateen.cli.live.logs:logs", "Show a workload's logs, the proxy's merged with the application's."),
    "manifest": ("lateen.cli.manifest:manifest", "Print and compare the objects of an installation."),
    "proxy-config": (
        "lateen.cli.proxy_config:proxy_config",
        "Show a proxy's configuration: clusters, listeners, routes…",
    ),
    "proxy-status": ("lateen.cli.mesh:proxy_status", "Show which proxies are connected and in sync."),
    "remote-clusters": ("lateen.cli.remote:remote_clusters", "List the clusters that each istiod knows."),
    "samples": ("lateen.cli.addons:samples", "List or locate sample applications and rules."),
    "uninstall": ("lateen.cli.install:uninstall", "Remove control planes from a cluster."),
    "version": ("lateen.cli.version:version", "Print the versions of client, control plane and proxies."),
}


ALIASES = {
    "ps": "proxy-status",
    "pc": "proxy-config",
    "x": "experimental",
    "exp": "experimental",
    "d": "dashboard",
    "dash": "dashboard",
    "apply": "install",
    "istiod": "admin",
    "v": "validate",
}


@click.group(cls=Group, entries=COMMANDS, aliases=ALIASES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="client version: %(version)s")
def cli() -> None:
    """Lateen: a service mesh with Istio's API on the real Envoy, with or without a Kubernetes cluster."""


def run() -> None:
    """The entry point: every failure becomes one sentence and an exit code, never a traceback."""
    try:
        code = cli.main(prog_name="lateen", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except CliError as e:
        fail(str(e))
        sys.exit(e.code)
    except click.exceptions.Abort:
        fail("interrupted")
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
    except Exception as e:  # a bug: still one sentence; the traceback only on request
        if os.environ.get("LATEEN_DEBUG"):
            raise
        fail(f"internal error: {type(e).__name__}: {e}; run it again with LATEEN_DEBUG=1 for the details")
        sys.exit(1)
