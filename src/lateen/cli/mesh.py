"""lateen proxy-status."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from lateen.api import kinds
from lateen.api.reading import is_ready, is_terminating
from lateen.cli import pods as pods_of
from lateen.cli.base import command
from lateen.cli.connect import Target, complete, target_options
from lateen.cli.output import CliError, warn, wide_table
from lateen.install.objects import NAMESPACE
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient, KubeError, Unreachable
from lateen.wire.revision import DEFAULT, LABEL


async def sync_status(client: HttpClient, namespace: str = NAMESPACE, revision: str = "") -> Json | None:
    """The sync status of all istiods' proxies (of one revision, or of all), combined; None if no istiod is running."""
    answers = await ask_istiods(client, "/debug/statusz", namespace, revision)
    if not answers:
        return None
    proxies = [{**p, "istiod": name, "revision": a["revision"]} for name, a in answers.items() for p in a["proxies"]]
    return {**next(iter(answers.values())), "proxies": sorted(proxies, key=lambda p: str(p["proxy"]))}


async def istiods(client: HttpClient, namespace: str = NAMESPACE, revision: str = "") -> list[Json]:
    """The running istiod pods, of one revision or of all. Raises CliError for an unknown revision."""
    found, _ = await client.list(kinds.POD, namespace, "app=istiod")
    running = [p for p in found if dig(p, "status", "phase") == "Running" and not is_terminating(p)]
    chosen = [p for p in running if not revision or revision_of(p) == revision]
    if running and not chosen:
        known = ", ".join(sorted({revision_of(p) for p in running}))
        raise CliError(f'no istiod of revision "{revision}" is running in namespace {namespace}; there are: {known}')
    return chosen


def revision_of(pod: Json) -> str:
    return str(dig(pod, "metadata", "labels", LABEL, default=DEFAULT))


async def ask_istiods(
    client: HttpClient, path: str, namespace: str = NAMESPACE, revision: str = "", limit: int = 16
) -> dict[str, Any]:
    """The responses of running istiods to a debug path, by pod; each is queried from inside its own pod. One that does
    not answer (it starts, or its node is gone) is named in a warning if others do. Raises CliError."""
    asked = sorted(await istiods(client, namespace, revision), key=is_ready, reverse=True)[:limit]
    found = await asyncio.gather(*(_ask(client, p, path) for p in asked), return_exceptions=True)
    answers: dict[str, Any] = {}
    failed: list[BaseException] = []
    for pod, answer in zip(asked, found, strict=True):
        if isinstance(answer, BaseException):
            failed.append(answer)
        else:
            answers[pod["metadata"]["name"]] = answer
    if failed and (not answers or not all(isinstance(e, (CliError, KubeError, Unreachable)) for e in failed)):
        raise failed[0]
    for e in failed:
        warn(str(e))
    return answers


async def _ask(client: HttpClient, pod: Json, path: str) -> Any:
    meta = pod["metadata"]
    command = ["pilot-discovery", "request", "GET", path]
    out, err = await client.execute(meta["namespace"], meta["name"], "discovery", command, b"")
    try:
        status = jsons.loads(out)
    except ValueError:
        says = (err + out).decode(errors="replace").strip() or "no answer"
        raise CliError(f"istiod ({meta['name']}) cannot be queried: {says}") from None
    if isinstance(status, dict) and "error" in status:
        raise CliError(f"istiod ({meta['name']}) answered: {status['error']}")
    return status


def nothing_runs(namespace: str) -> CliError:
    return CliError(f'no running Istio pods in "{namespace}"; install the mesh with: lateen install --set profile=demo')


KINDS = ("CDS", "LDS", "EDS", "RDS", "ECDS")


@command("proxy-status")
@click.argument("pod", required=False, shell_complete=complete(kinds.POD))
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
@click.option("-r", "--revision", default="", help="Only control planes of this revision.")
@click.option("-f", "--file", "file", default="", help="With a pod: a saved config dump of its proxy.")
@target_options
def proxy_status(target: Target, pod: str | None, output: str, revision: str, file: str) -> None:
    """Show which proxies are connected to istiod, and whether each is in sync.

    With a pod, compare istiod's configuration for its proxy with what the proxy has. Without -n, show the proxies of
    all namespaces.
    """
    if pod:
        _compare(target, pod, revision, file)
        return
    found = target.run(lambda client: sync_status(client, target.istio_namespace, revision))
    if found is None:
        raise nothing_runs(target.istio_namespace)
    if wanted := target.given_namespace:
        found["proxies"] = [p for p in found["proxies"] if str(p["proxy"]).rpartition(".")[2] == wanted]
    if output != "table":
        click.echo(jsons.pretty(found) if output == "json" else yamldoc.dump(found).rstrip())
        return
    rows = [["NAME", "CLUSTER", *KINDS, "ISTIOD", "VERSION"]]
    for p in found["proxies"]:
        states = [p["types"].get(k, "NOT SENT") for k in KINDS]
        rows.append([p["proxy"], p["cluster"], *states, p["istiod"], f"Envoy {p['version']}"])
    click.echo(wide_table(rows))
    for p in found["proxies"]:
        for kind, message in p["rejections"].items():
            click.echo(f"{p['proxy']} refused {kind}: {message}", err=True)


def _compare(target: Target, name: str, revision: str, file: str) -> None:
    from lateen.cli.proxy_config import load
    from lateen.dump import ConfigDump

    async def work(client: HttpClient) -> tuple[str, Json]:
        pod = await pods_of.find(client, name, target.namespace)
        return f"{pod['metadata']['name']}.{pod['metadata']['namespace']}", await _versions(
            client, target, pod, revision
        )

    full, wanted = target.run(work)
    dump = ConfigDump(load(target, None if file else full, file))
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
        raise CliError(f"{full} does not have what istiod has sent; see: lateen proxy-status, lateen check")


async def _versions(client: HttpClient, target: Target, pod: Json, revision: str) -> Json:
    """The versions that the pod's proxy should have, from the istiod that it is connected to. Raises CliError."""
    full = f"{pod['metadata']['name']}.{pod['metadata']['namespace']}"
    asked = await istiods(client, target.istio_namespace, revision)
    if not asked:
        raise nothing_runs(target.istio_namespace)
    for istiod in asked:
        status = await _ask(client, istiod, "/debug/statusz")
        if any(p["proxy"] == full for p in status["proxies"]):
            found: Json = await _ask(client, istiod, f"/debug/versionsz?proxyID={full}")
            return found
    names = ", ".join(p["metadata"]["name"] for p in asked)
    raise CliError(f"the proxy of {full} is not connected to istiod ({names}); see: lateen check")
