"""lateen x authz suggest: AuthorizationPolicies that let in whoever has been seen to call, and nobody else."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass, field

import click

from lateen.api import kinds
from lateen.cli.base import command
from lateen.cli.connect import Target, target_options
from lateen.cli.output import USAGE, CliError, say
from lateen.kit import duration, jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient
from lateen.wire import ports

LABELS = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
"""The labels that name a service's workloads, in Istio's order."""
SCHEME = "spiffe://"
_SEEN = ("istio_requests_total", "istio_tcp_connections_opened_total")
_BY = "source_principal, destination_workload_namespace, destination_canonical_service"


@dataclass
class Seen:
    """Who has called a service."""

    principals: set[str] = field(default_factory=set)
    """``trust-domain/ns/NAMESPACE/sa/ACCOUNT``"""
    nameless: float = 0
    """Requests and connections without an identity: in plaintext, or from outside of the mesh."""


def callers(samples: Iterable[Json]) -> dict[tuple[str, str], Seen]:
    """(namespace, service) -> its callers, from samples of Prometheus' API."""
    out: dict[tuple[str, str], Seen] = {}
    for sample in samples:
        labels, value = sample["metric"], float(sample["value"][1])
        if value <= 0:
            continue
        place = (labels.get("destination_workload_namespace", ""), labels.get("destination_canonical_service", ""))
        seen = out.setdefault(place, Seen())
        principal = labels.get("source_principal", "")
        if principal.startswith(SCHEME):
            seen.principals.add(principal.removeprefix(SCHEME))
        else:
            seen.nameless += value
    return out


def services(pods: Iterable[Json]) -> dict[tuple[str, str], Json]:
    """(namespace, service) -> the label that selects its pods with a sidecar."""
    out = {}
    for pod in pods:
        containers = [*dig(pod, "spec", "containers", default=[]), *dig(pod, "spec", "initContainers", default=[])]
        if not any(c["name"] == "istio-proxy" for c in containers):
            continue
        labels = pod["metadata"].get("labels") or {}
        label = next((name for name in LABELS if labels.get(name)), None)
        if label is not None:
            out[(pod["metadata"]["namespace"], labels[label])] = {label: labels[label]}
    return out


def policy(place: tuple[str, str], selector: Json, seen: Seen) -> Json:
    namespace, name = place
    return {
        "apiVersion": kinds.AUTHORIZATION_POLICY.api_version,
        "kind": kinds.AUTHORIZATION_POLICY.kind,
        "metadata": {"name": f"{name}-callers", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": selector},
            "action": "ALLOW",
            "rules": [{"from": [{"source": {"principals": sorted(seen.principals)}}]}],
        },
    }


@command("suggest")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Services of all namespaces.")
@click.option("--since", default="1h", help="How far back to look; the collector keeps 24 hours.")
@target_options
def authz_suggest(target: Target, everywhere: bool, since: str) -> None:
    """Write AuthorizationPolicies that admit the callers of a namespace's services that have been seen, and nobody
    else. Nothing is applied: lateen x authz suggest | kubectl apply --dry-run=server -f -"""
    try:
        seconds = round(duration.seconds(since))
    except ValueError as e:
        raise CliError(f"--since: {e}", USAGE) from None

    async def work(client: HttpClient) -> tuple[list[Json], list[Json]]:
        samples = await calls(client, target.istio_namespace, seconds)
        pods, _ = await client.list(kinds.POD, "" if everywhere else target.namespace)
        return samples, pods

    samples, pods = target.run(work)
    known, seen = services(pods), callers(samples)
    made = []
    for place, selector in sorted(known.items()):
        found = seen.get(place, Seen())
        shown = f"{place[1]}.{place[0]}"
        if found.nameless:
            say(
                f"{shown}: about {found.nameless:.0f} requests came without an identity (in plaintext, or from outside"
                " of the mesh), and would be denied"
            )
        if found.principals:
            made.append(policy(place, selector, found))
        else:
            say(f"{shown}: no caller with an identity was seen in {since}, so there is no policy")
    if not made:
        raise CliError(f"no calls between workloads of the mesh were seen in {since}; send some, or look further back")
    click.echo("---\n".join(yamldoc.dump(p) for p in made).rstrip())


async def calls(client: HttpClient, namespace: str, seconds: int) -> list[Json]:
    """How many requests and connections the collector has seen, by caller and service, as samples of Prometheus'
    API."""
    out = []
    for metric in _SEEN:
        query = f'sum by ({_BY}) (increase({metric}{{reporter="destination"}}[{seconds}s]))'
        out += await _asked(client, namespace, query)
    return out


async def _asked(client: HttpClient, namespace: str, query: str) -> list[Json]:
    """The samples of an instant query to the collector."""
    from lateen.cli.workloads import collector, through

    path = f"/api/v1/query?query={urllib.parse.quote(query)}"
    answer = jsons.loads(await through(client, await collector(client, namespace), ports.COLLECTOR, path))
    if answer.get("status") != "success":
        raise CliError(f"the collector cannot answer: {answer.get('error', answer)}")
    found: list[Json] = answer["data"]["result"]
    return found
