"""Commands and options of istioctl that are not supported: each is rejected with a sentence about the alternative.

Source: ``istioctl --help`` of every command (https://istio.io/latest/docs/reference/commands/istioctl/).
"""

from __future__ import annotations

_AMBIENT = "belongs to ambient mode, which Lateen does not have: it uses sidecars"
_THROUGH_KUBERNETES = "istiod is reached only through the Kubernetes API; leave it out"
_CHARTS = "the manifests are built into this command; it reads no charts"
_PAGE = "a page is served at the port that --port names; leave it out"
_REPORT = "the report has everything except Secrets; it has --include, --output-dir, --tail and --timeout"

COMMANDS = {
    "authz": 'is an experimental command: "lateen x authz check"',
    "waypoint": _AMBIENT,
    "ztunnel-config": _AMBIENT,
    "translate": "is not implemented: write the values for the Helm charts (docs/reference-installation.md) yourself",
}
"""Command -> what it is, or the alternative."""

OPTIONS = {
    "--as": "impersonation is kubectl's; name a kubeconfig of that user with --kubeconfig",
    "--as-group": "impersonation is kubectl's; name a kubeconfig of that user with --kubeconfig",
    "--as-uid": "impersonation is kubectl's; name a kubeconfig of that user with --kubeconfig",
    "--kubeclient-timeout": "the time limits of requests are fixed; leave it out",
    "--vklog": "set LATEEN_DEBUG=1 for the details of internal errors",
    **dict.fromkeys(
        (
            "--authority",
            "--cert-dir",
            "--insecure",
            "--plaintext",
            "--xds-address",
            "--xds-label",
            "--xds-port",
        ),
        _THROUGH_KUBERNETES,
    ),
    "--with-headers": "tables always have headers; leave it out",
    "--istio-namespace": "name it with --istioNamespace (-i)",
    "--proxy-admin-port": "the port of the proxies' administration is fixed (15000); leave it out",
    "--verbose": "everything that is found is printed; leave it out",
    "--verbosity": "everything that is found is printed; leave it out",
    "--manifests": _CHARTS,
    "--charts": _CHARTS,
    "--force": "nothing is skipped by force; correct what is reported",
    "--verify": 'run "lateen verify-install" afterwards',
    "--cluster-specific": "manifests do not depend on the cluster; leave it out",
    "--ui-port": _PAGE,
    "--ctrlz_port": "the port of ControlZ is fixed (9876); leave it out",
    "--stack-trace-level": "log lines have no stack traces; leave it out",
    "--stack-trace-reset": "log lines have no stack traces; leave it out",
    "--selector": "name the pod, or its workload as in deploy/NAME",
    "--from-version": "the current installation is compared with this version; leave it out",
    "--skip-controlplane": "only the cluster is checked; leave it out",
    "--output-threshold": "every finding is printed; leave it out",
    "--ignoreUnmeshed": "pods without a sidecar are described as such; leave it out",
    "--auto-inject-namespaces": "label the namespaces: kubectl label namespace NAME istio.io/rev=TAG",
    "--webhook-name": "the webhook of a tag is named after it: istio-revision-tag-TAG",
    "--meshConfigMapName": "name a file with --meshConfigFile",
    "--operatorFileName": "name values with --valuesFile",
    "--webhookConfig": "name a revision with --revision",
    "--externalIP": "the address of a machine is the one that it connects from; set it in its WorkloadEntry",
    "--internalIP": "the address of a machine is the one that it connects from; set it in its WorkloadEntry",
    "--ingressService": "name the address at which the machine reaches istiod with --ingressIP",
    "--weight": "set spec.template.weight in the output",
    "--locality": "set spec.template.locality in the output",
    "--network": "set spec.template.network in the output",
}
"""Option -> the alternative."""

_SHORT = {
    ("precheck", "-r"): "--revision",
    ("uninstall", "-f"): "--filename",
    ("uninstall", "-s"): "--set",
}
_OF_REPORT = (
    "--critical-errs",
    "--dry-run",
    "--duration",
    "--end-time",
    "--exclude",
    "--filename",
    "--full-secrets",
    "--ignore-errs",
    "--rq-concurrency",
    "--skip-analyze",
    "--skip-cluster-dump",
    "--skip-coredumps",
    "--skip-netstat",
    "--skip-proxy-debug",
    "--start-time",
)
OWN = ("addons", "demo", "edges", "logs", "routes", "samples", "stat", "tap", "top")
"""Commands that istioctl does not have; so neither are their options istioctl's."""


_LIMITS = OPTIONS["--kubeclient-timeout"]
_ONLY = {
    "bug-report": dict.fromkeys(_OF_REPORT, _REPORT),
    "precheck": {"--revision": "the cluster is checked, whatever its revisions; leave it out"},
    "uninstall": {
        "--filename": "the settings of an installation are recorded in the cluster; name its revision with --revision",
        "--set": "the settings of an installation are recorded in the cluster; name its revision with --revision",
    },
    **{c: {"--timeout": _LIMITS} for c in ("internal-debug", "kube-inject", "proxy-status", "ps", "version")},
}
"""Command -> option -> the alternative, for options that other commands have."""


def of(command: str, option: str) -> str | None:
    """The alternative to an option (in its long or short form) that istioctl's command has; None if it has no such
    option."""
    if command in OWN:
        return None
    return OPTIONS.get(option) or _ONLY.get(command, {}).get(_SHORT.get((command, option), option))
