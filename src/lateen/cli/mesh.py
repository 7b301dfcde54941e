"""lateen proxy-status."""

from __future__ import annotations

import click

from lateen.api import kinds
from lateen.api.reading import is_terminating
from lateen.cli import pods as pods_of
from lateen.cli.base import command
from lateen.cli.connect import Target, complete, target_options
from lateen.cli.output import CliError, wide_table
from lateen.install.manifests import NAMESPACE
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient


async def sync_status(client: HttpClient) -> Json | None:
    """What all istiods together say of their proxies; None where none runs."""
    answers = await ask_istiods(client, "/debug/syncz")
    if not answers:
        return None
    proxies = sorted((p for a in answers for p in a["proxies"]), key=lambda p: str(p["proxy"]))
    return {**answers[0], "proxies": proxies}


async def ask_istiod(client: HttpClient, path: str) -> Json | None:
    """A debug path of one istiod; None where none runs."""
    return next(iter(await ask_istiods(client, path, 1)), None)


async def ask_istiods(client: HttpClient, path: str, limit: int = 16) -> list[Json]:
    """The answers of each running istiod to a debug path, asked from inside its own pod."""
    found, _ = await client.list(kinds.POD, NAMESPACE, "app=istiod")
    running = [p for p in found if dig(p, "status", "phase") == "Running" and not is_terminating(p)]
    return [await _ask(client, pod, path) for pod in running[:limit]]


async def _ask(client: HttpClient, pod: Json, path: str) -> Json:
    token = await client.request(
        kinds.SERVICE_ACCOUNT,
        NAMESPACE,
        "istiod",
        "token",
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": ["lateen-debug"], "expirationSeconds": 600},
        },
    )
    out, err = await client.execute(
        NAMESPACE,
        pod["metadata"]["name"],
        "discovery",
        ["pilot-discovery", "request", "GET", path],
        str(token["status"]["token"]).encode(),
    )
    try:
        status: Json = jsons.loads(out)
    except ValueError:
        raise CliError(f"istiod cannot be asked: {err.decode(errors='replace').strip() or 'no answer'}") from None
    if "error" in status:
        raise CliError(f"istiod answered: {status['error']}")
    return status


KINDS = ("CDS", "LDS", "EDS", "RDS", "ECDS")


@command("proxy-status")
@click.argument("pod", required=False, shell_complete=complete(kinds.POD))
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
@target_options
def proxy_status(target: Target, pod: str | None, output: str) -> None:
    """Which proxies are connected to istiod, and whether each is in sync.

    With a pod: what istiod has for its proxy against what the proxy has.
    """
    if pod:
        _compare(target, pod)
        return

    async def work(client: HttpClient) -> tuple[Json | None, str]:
        found, _ = await client.list(kinds.POD, NAMESPACE, "app=istiod")
        names = [p["metadata"]["name"] for p in found if dig(p, "status", "phase") == "Running"]
        return await sync_status(client), names[0] if names else ""

    found, istiod = target.run(work)
    if found is None:
        raise CliError(
            f'no running Istio pods in "{NAMESPACE}"; install the mesh with: lateen install --set profile=demo'
        )
    if output != "table":
        click.echo(jsons.pretty(found) if output == "json" else yamldoc.dump(found).rstrip())
        return
    rows = [["NAME", "CLUSTER", *KINDS, "ISTIOD", "VERSION"]]
    for p in found["proxies"]:
        states = [p["types"].get(k, "NOT SENT") for k in KINDS]
        rows.append([p["proxy"], "Kubernetes", *states, istiod, f"Envoy {p['version']}"])
    click.echo(wide_table(rows))
    for p in found["proxies"]:
        for kind, message in p["rejections"].items():
            click.echo(f"{p['proxy']} refused {kind}: {message}", err=True)


def _compare(target: Target, name: str) -> None:
    from lateen.dump import ConfigDump

    async def work(client: HttpClient) -> tuple[str, Json, ConfigDump]:
        pod = await pods_of.find(client, name, target.namespace)
        full = f"{pod['metadata']['name']}.{pod['metadata']['namespace']}"
        wanted = await ask_istiod(client, f"/debug/configz?proxy={full}")
        if wanted is None:
            raise CliError(f'no running Istio pods in "{NAMESPACE}"')
        return full, wanted, ConfigDump(await pods_of.ask_json(client, pod, "config_dump?include_eds"))

    full, wanted, dump = target.run(work)
    differs = False
    for title, short, have in (
        ("Clusters", "CDS", dump.versions("ClustersConfigDump", "dynamic_active_clusters", "cluster")),
        ("Listeners", "LDS", dump.versions("ListenersConfigDump", "dynamic_listeners", "active_state", "listener")),
    ):
        should = wanted["resources"].get(short, {})
        wrong = sorted(n for n in should.keys() | have.keys() if should.get(n) != have.get(n))
        differs = differs or bool(wrong)
        click.echo(f"{title} Don't Match: {', '.join(wrong)}" if wrong else f"{title} Match")
    routes = {str(r.get("name")) for r in dump.routes()}
    missing = sorted(set(wanted["subscribed"].get("RDS", [])) - routes)
    click.echo(f"Routes Don't Match: {', '.join(missing)}" if missing else "Routes Match")
    if differs or missing:
        raise CliError(f"{full} has not what istiod has for it; see: lateen proxy-status, lateen check")
