"""lateen x precheck."""

from __future__ import annotations

import asyncio
import string

import click

from lateen.analysis import Snapshot, Source, analyze
from lateen.analysis.snapshot import Message, message
from lateen.api import kinds
from lateen.cli.analyze import as_json, line
from lateen.cli.base import command
from lateen.cli.connect import Target, target_options
from lateen.cli.output import FINDINGS, CliError
from lateen.install import manifests
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import dig
from lateen.kube.client import HttpClient, KubeError

MINIMUM = (1, 27)
"""The oldest version of Kubernetes, as the documentation says."""
NEEDED = (
    ("", "namespaces", ""),
    ("", "services", manifests.NAMESPACE),
    ("", "configmaps", manifests.NAMESPACE),
    ("", "secrets", manifests.NAMESPACE),
    ("", "serviceaccounts", manifests.NAMESPACE),
    ("apps", "deployments", manifests.NAMESPACE),
    ("rbac.authorization.k8s.io", "clusterroles", ""),
    ("rbac.authorization.k8s.io", "clusterrolebindings", ""),
    ("apiextensions.k8s.io", "customresourcedefinitions", ""),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", ""),
)

DEFINITIONS = (
    "k8sgateway.CRDVersionAnalyzer",
    "k8sgateway.NewerCRDAnalyzer",
    "k8sgateway.ChannelAnalyzer",
    "deprecation.DeprecationAnalyzer",
)
"""Analyzers of CRDs."""
GATEWAY_API = ("Gateway", "GatewayClass", "HTTPRoute", "ReferenceGrant")


async def version_findings(client: HttpClient) -> list[Message]:
    found = await client.call("GET", "/version")
    digits = [int("".join(c for c in str(found.get(k, "0")) if c in string.digits) or 0) for k in ("major", "minor")]
    if tuple(digits) >= MINIMUM:
        return []
    source = Source({"kind": "Kubernetes", "metadata": {"name": "version"}})
    return [message("IST0142", source, found.get("gitVersion"), ".".join(map(str, MINIMUM)))]


async def permission_findings(client: HttpClient) -> list[Message]:
    async def one(group: str, plural: str, namespace: str) -> Message | None:
        attributes = {"group": group, "resource": plural, "verb": "create", "namespace": namespace}
        review = await client.call(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
        )
        if dig(review, "status", "allowed"):
            return None
        source = Source({"kind": "Permission", "metadata": {"name": plural, "namespace": namespace}})
        return message("IST0141", source, plural, dig(review, "status", "reason", default="not allowed"))

    found = await asyncio.gather(*(one(*n) for n in NEEDED))
    return [m for m in found if m]


def gateway_api_findings(crds: list[Source]) -> list[Message]:
    """CRDs of the Gateway API that serve no usable version, now or soon."""
    out = []
    for crd in crds:
        if crd.spec.get("group") != kinds.GATEWAY_API:
            continue
        if dig(crd.spec, "names", "kind") not in GATEWAY_API:
            continue
        served = [str(v.get("name")) for v in crd.spec.get("versions") or [] if v.get("served", True)]
        if not {"v1", "v1beta1"} & set(served):
            out.append(message("IST0156", crd, ",".join(served) or "none", "v1beta1"))
        elif "v1" not in served and dig(crd.spec, "names", "kind") != "ReferenceGrant":
            out.append(message("IST0172", crd, ",".join(served), "v1"))
    return out


@command("precheck")
@click.option("-o", "--output", type=click.Choice(["log", "json", "yaml"]), default="log")
@target_options
def precheck(target: Target, output: str) -> None:
    """Check whether the mesh can be installed or upgraded."""

    async def work(client: HttpClient) -> list[Message]:
        try:
            crds, _ = await client.list(kinds.CRD)
        except KubeError as e:
            if e.code != 404:  # objects that may not be read cannot be checked
                raise
            crds = []
        sources = [Source({"kind": "CustomResourceDefinition", **c}) for c in crds]
        return [
            *await version_findings(client),
            *await permission_findings(client),
            *gateway_api_findings(sources),
            *analyze(Snapshot(sources), DEFINITIONS),
        ]

    found = target.run(work)
    plain = [as_json(m) for m in found]
    if output == "log":
        for m in found:
            click.echo(line(m, False))
    else:
        click.echo(jsons.pretty(plain) if output == "json" else yamldoc.dump(plain).rstrip())
    if any(m.kind.level == "Error" for m in found):
        raise CliError("Issues found when checking the cluster. Istio may not be safe to install or upgrade.", FINDINGS)
    if output != "log":
        return
    if not found:
        click.echo("✔ No issues found when checking the cluster. Istio is safe to install or upgrade!")
    click.echo("  To get started: lateen install --set profile=demo -y")
