"""lateen x authz suggest: AuthorizationPolicies that allow exactly the observed callers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import click

from lateen.api import kinds
from lateen.cli.base import command
from lateen.cli.collected import ranged, total
from lateen.cli.connect import Target, target_options
from lateen.cli.output import USAGE, CliError, say
from lateen.console import calls
from lateen.console.plaintext import SCHEME, services
from lateen.kit import duration, yamldoc
from lateen.kit.jsons import Json
from lateen.kube.client import HttpClient

REQUESTS, CONNECTIONS = "istio_requests_total", "istio_tcp_connections_opened_total"
BY = "source_principal, destination_workload_namespace, destination_canonical_service"


@dataclass
class Seen:
    """The callers of a service."""

    principals: set[str] = field(default_factory=set)
    """``trust-domain/ns/NAMESPACE/sa/ACCOUNT``"""
    nameless: float = 0
    """The number of requests and connections without an identity: in plaintext, or from outside of the mesh."""


def callers(series: Iterable[Json]) -> dict[tuple[str, str], Seen]:
    """(namespace, service) -> its callers, from series of calls (``console.calls``) in the format of Prometheus'
    API."""
    out: dict[tuple[str, str], Seen] = {}
    for one in series:
        labels, value = one["metric"], total(one)
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
    """Print AuthorizationPolicies that allow exactly the observed callers of a namespace's services.

    Nothing is applied: lateen x authz suggest | kubectl apply --dry-run=server -f -"""
    try:
        seconds = round(duration.seconds(since))
    except ValueError as e:
        raise CliError(f"--since: {e}", USAGE) from None

    async def work(client: HttpClient) -> tuple[list[Json], list[Json]]:
        series = [s for found in (await called(client, target.istio_namespace, seconds, BY)).values() for s in found]
        pods, _ = await client.list(kinds.POD, "" if everywhere else target.namespace)
        return series, pods

    series, pods = target.run(work)
    known, seen = services(pods), callers(series)
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
        raise CliError(f"no calls between workloads of the mesh were seen in {since}; send some, or increase --since")
    click.echo("---\n".join(yamldoc.dump(p) for p in made).rstrip())


async def called(client: HttpClient, namespace: str, seconds: int, by: str) -> dict[str, list[Json]]:
    """The collector's series of requests (REQUESTS) and of connections (CONNECTIONS), by the labels ``by``."""
    return {
        metric: await ranged(client, namespace, calls.counted(metric, by, seconds), seconds, calls.step(seconds))
        for metric in (REQUESTS, CONNECTIONS)
    }
