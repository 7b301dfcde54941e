"""lateen experimental: what istioctl has under x."""

from __future__ import annotations

import click

from lateen.cli.base import Group

ENTRIES = {
    "authz": ("lateen.cli.workloads:authz", "Which authorization policies a pod's proxy has."),
    "check-inject": ("lateen.cli.injection:check_inject", "Whether a pod would get a sidecar, and why."),
    "config": ("lateen.cli.machine:config", "The defaults of this command's options."),
    "describe": ("lateen.cli.describe:describe", "What the mesh does for a pod or a service."),
    "envoy-stats": ("lateen.cli.workloads:envoy_stats", "A proxy's statistics."),
    "injector": ("lateen.cli.injection:injector", "The sidecar injectors."),
    "metrics": ("lateen.cli.workloads:metrics", "Rates and latencies of workloads."),
    "precheck": ("lateen.cli.precheck:precheck", "Whether the mesh can be installed or upgraded here."),
    "wait": ("lateen.cli.workloads:wait", "Until the proxies have a configuration."),
    "workload": ("lateen.cli.machine:workload", "Workloads outside of Kubernetes."),
}
ALIASES = {"des": "describe", "m": "metrics", "es": "envoy-stats"}


@click.group(cls=Group, entries=ENTRIES, aliases=ALIASES)
def experimental() -> None:
    """Commands that istioctl has under "experimental" (x)."""
