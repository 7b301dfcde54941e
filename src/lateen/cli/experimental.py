"""lateen experimental (x): the experimental commands of istioctl."""

from __future__ import annotations

import click

from lateen.cli.base import Group

ENTRIES = {
    "authz": ("lateen.cli.workloads:authz", "Show the authorization policies of a pod's proxy."),
    "ca": ("lateen.cli.authority:ca", "Show and rotate the mesh's certificate authority."),
    "check-inject": ("lateen.cli.injection:check_inject", "Show whether a pod would be injected, and why."),
    "config": ("lateen.cli.machine:config", "Show the defaults of this command's options."),
    "describe": ("lateen.cli.describe:describe", "Describe a pod's or a service's mesh configuration."),
    "edges": ("lateen.cli.live.counters:edges", "Show who calls whom, and which calls are secured."),
    "envoy-stats": ("lateen.cli.workloads:envoy_stats", "Show a proxy's statistics."),
    "injector": ("lateen.cli.injection:injector", "List sidecar injectors."),
    "internal-debug": ("lateen.cli.support:internal_debug", "Show istiod's debug pages."),
    "metrics": ("lateen.cli.workloads:metrics", "Show rates and latencies of workloads."),
    "precheck": ("lateen.cli.precheck:precheck", "Check whether the mesh can be installed or upgraded."),
    "proxy-status": ("lateen.cli.mesh:proxy_status", "Show which proxies are connected and in sync."),
    "routes": ("lateen.cli.live.requests:routes", "Show success, rate and latency by route."),
    "stat": ("lateen.cli.live.counters:stat", "Show success, rate and latency of workloads."),
    "tap": ("lateen.cli.live.tap:tap", "Show requests as they happen."),
    "top": ("lateen.cli.live.requests:top", "Show the busiest calls as they happen."),
    "version": ("lateen.cli.version:version", "Print the versions of client, control plane and proxies."),
    "wait": ("lateen.cli.workloads:wait", "Wait until proxies have a configuration."),
    "workload": ("lateen.cli.machine:workload", "Configure workloads outside of Kubernetes."),
}
ALIASES = {"ps": "proxy-status", "des": "describe", "m": "metrics", "es": "envoy-stats"}


@click.group(cls=Group, entries=ENTRIES, aliases=ALIASES)
def experimental() -> None:
    """Commands that istioctl has under "experimental" (x)."""
