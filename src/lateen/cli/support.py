"""lateen admin log, lateen bug-report, lateen completion, lateen options."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import click

from lateen.api import kinds
from lateen.api.reading import PROXY, has_proxy
from lateen.cli import pods
from lateen.cli.base import Group, Seconds, command
from lateen.cli.connect import Target, target_options
from lateen.cli.output import BAD_DATA, USAGE, CliError, say, step, warn, wide_table
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.client import HttpClient, KubeError, Unreachable
from lateen.wire import ports

LEVELS = ("none", "fatal", "error", "warn", "info", "debug")


@click.group(cls=Group, entries={"log": ("lateen.cli.support:admin_log", "istiod's log levels.")}, aliases={"l": "log"})
def admin() -> None:
    """Show and change settings of the running control plane."""


@command("log")
@click.option("--level", "levels", multiple=True, help="SCOPE:LEVEL,… as in --level ads:debug")
@click.option("--reset", "--log-reset", "reset", is_flag=True, help="Reset all scopes to info.")
@click.option("-r", "--revision", default="", help="Only control planes of this revision.")
@click.option("-o", "--output", type=click.Choice(["short", "json", "yaml"]), default="short")
@target_options
def admin_log(target: Target, levels: tuple[str, ...], reset: bool, revision: str, output: str) -> None:
    """Show or change istiod's log levels: lateen admin log --level ads:debug"""
    from lateen.cli.mesh import istiods, nothing_runs

    changes: dict[str, str] = {"all": "info"} if reset else {}
    for part in ",".join(levels).split(",") if levels else ():
        scope, found, level = part.rpartition(":")
        if level not in LEVELS or (found and not scope):
            raise CliError(f"--level {part}: write it as SCOPE:LEVEL, with a level of {', '.join(LEVELS)}", USAGE)
        changes[scope or "all"] = level

    async def work(client: HttpClient) -> list[Json]:
        found: list[Json] = []
        for pod in await istiods(client, target.istio_namespace, revision):
            known = await _scopes(client, pod, "GET", "/scopej/")
            for scope, level in changes.items():
                for name in [s["name"] for s in known] if scope == "all" else [scope]:
                    await _scopes(client, pod, "PUT", f"/scopej/{name}", {"output_level": level})
            found = await _scopes(client, pod, "GET", "/scopej/") if changes else known
        if not found:
            raise nothing_runs(target.istio_namespace)
        return found

    known = target.run(work)
    scopes = [{"scope": s["name"], "description": s["description"], "level": s["output_level"]} for s in known]
    if output != "short":
        click.echo(jsons.pretty(scopes) if output == "json" else yamldoc.dump(scopes).rstrip())
        return
    rows = [["ACTIVE SCOPE", "DESCRIPTION", "LOG LEVEL"]]
    rows += [[s["scope"], s["description"], s["level"]] for s in scopes]
    click.echo(wide_table(rows))


async def _scopes(client: HttpClient, pod: Json, method: str, path: str, body: Json | None = None) -> list[Json]:
    """Send a request to ControlZ in istiod's pod. Raises CliError."""
    meta = pod["metadata"]
    command = ["pilot-discovery", "request", f"--debug-port={ports.CONTROLZ}", method, path]
    sent = jsons.dumps(body) if body else b""
    out, err = await client.execute(meta["namespace"], meta["name"], "discovery", command, sent)
    try:
        answer = jsons.loads(out) if out.strip() else []
    except ValueError:
        raise CliError(f"istiod ({meta['name']}) cannot be queried: {(err or out).decode(errors='replace')}") from None
    if isinstance(answer, dict) and "error" in answer:
        raise CliError(str(answer["error"]))
    return list(answer)


@command("internal-debug")
@click.argument("page", required=False)
@click.option("-L", "--list", "listed", is_flag=True, help="List the pages.")
@click.option("--all", "every", is_flag=True, help="Query every istiod; prints an object of the responses by pod.")
@click.option("-r", "--revision", default="", help="Only control planes of this revision.")
@target_options
def internal_debug(target: Target, page: str | None, listed: bool, every: bool, revision: str) -> None:
    """Show a debug page of istiod: lateen x internal-debug "edsz?proxyID=web.shop" """
    from lateen.cli.mesh import ask_istiods, nothing_runs

    if not page and not listed:
        raise CliError("name a page; --list shows the available ones", USAGE)
    path = f"/debug/{page if page and not listed else 'list'}"
    found = target.run(
        lambda client: ask_istiods(client, path, target.istio_namespace, revision, limit=16 if every else 1)
    )
    if not found:
        raise nothing_runs(target.istio_namespace)
    click.echo(jsons.pretty(found if every else next(iter(found.values()))))


# --- bug report --------------------------------------------------------------------------------------------------

COLLECTED = (
    kinds.NAMESPACE,
    kinds.NODE,
    kinds.POD,
    kinds.SERVICE,
    kinds.ENDPOINT_SLICE,
    kinds.DEPLOYMENT,
    kinds.EVENT,
    kinds.MUTATING_WEBHOOK,
    kinds.VALIDATING_WEBHOOK,
)
"""All objects except Secrets; of ConfigMaps, only the mesh's own."""
LIMIT = 50
Add = Callable[[str, bytes], None]


@command("bug-report")
@click.option("--output-dir", "--dir", "folder", default=".", help="The directory to write the archive to.")
@click.option(
    "--include", multiple=True, help="Only include proxies of these namespaces: ns1,ns2 or n*; may be repeated."
)
@click.option("--tail", type=click.IntRange(0), default=5000, help="Lines of each container's log; 0 for all of them.")
@click.option(
    "--timeout",
    "limit",
    type=Seconds(),
    default="30m",
    show_default=True,
    help="Time limit for everything; then the archive has what was collected so far.",
)
@target_options
def bug_report(target: Target, folder: str, include: tuple[str, ...], tail: int, limit: float) -> None:
    """Collect diagnostics for a bug report in one archive: lateen bug-report"""
    where = Path(folder)
    namespaces = [name for given in include for name in given.split(",")]
    if filtered := next((name for name in namespaces if "/" in name), None):
        raise CliError(f"--include {filtered}: name namespaces; proxies are not filtered by anything else", USAGE)
    if not where.is_dir():
        raise CliError(f"{folder}: no such folder", BAD_DATA)
    path = where / "bug-report.tar.gz"
    handle, unfinished = tempfile.mkstemp(dir=where, prefix=".bug-report-")  # readable for its owner only
    try:
        _archive(handle, target, namespaces, tail or None, limit)
        Path(unfinished).replace(path)
    finally:
        Path(unfinished).unlink(missing_ok=True)
    size = path.stat().st_size // 1024
    say(f"✔ Done: {path} ({size} kB). It contains no secrets, but names and addresses.")


def _archive(handle: int, target: Target, include: list[str], tail: int | None, limit: float) -> None:
    with os.fdopen(handle, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(f"bug-report/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(data))

        async def work(client: HttpClient) -> None:
            try:
                async with asyncio.timeout(limit):
                    await _collect(client, target, include, tail, add)
            except TimeoutError:
                warn("the time is over (--timeout): the archive has only what was collected so far")

        target.run(work)


async def _collect(client: HttpClient, target: Target, include: list[str], tail: int | None, add: Add) -> None:
    from lateen.analysis import analyze
    from lateen.cli.analyze import line, live
    from lateen.cli.mesh import ask_istiods

    with step("Objects of the cluster"):
        add("cluster/version.json", jsons.dumps(await client.call("GET", "/version")))
        for kind in (*COLLECTED, *kinds.owned()):
            try:
                found, _ = await client.list(kind)
            except KubeError as e:
                add(f"cluster/{kind.plural}.error", str(e).encode())
                continue
            add(f"cluster/{kind.plural}.yaml", yamldoc.dump(found).encode())
        config = await client.get(kinds.CONFIG_MAP, target.istio_namespace, "istio")
        add("cluster/mesh-config.yaml", str(dig(config or {}, "data", "mesh", default="")).encode())
    with step("Analysis"):
        messages = analyze((await live(client, 30)).snapshot())
        add("analyze.txt", "\n".join(line(m, False) for m in messages).encode())
    with step("Control plane"):
        for page in ("statusz", "syncz", "mesh"):
            answers = await ask_istiods(client, f"/debug/{page}", target.istio_namespace)
            add(f"istiod/{page}.json", jsons.dumps(answers))
        istiods, _ = await client.list(kinds.POD, target.istio_namespace, "app=istiod")
        for pod in istiods:
            add(f"istiod/{pod['metadata']['name']}.log", await _log(client, pod, "discovery", tail))
    every, _ = await client.list(kinds.POD)
    meshed = [
        p
        for p in every
        if has_proxy(p) and (not include or any(fnmatchcase(p["metadata"]["namespace"], i) for i in include))
    ]
    with step(f"{len(meshed[:LIMIT])} proxies"):
        for pod in meshed[:LIMIT]:
            name = f"proxies/{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            add(f"{name}/istio-proxy.log", await _log(client, pod, PROXY, tail))
            for path in ("config_dump", "clusters", "stats?usedonly", "certs"):
                try:
                    add(f"{name}/{path.partition('?')[0]}", await pods.ask(client, pod, "GET", path))
                except (CliError, KubeError, Unreachable) as e:
                    add(f"{name}/{path.partition('?')[0]}.error", str(e).encode())


async def _log(client: HttpClient, pod: Json, container: str, tail: int | None) -> bytes:
    meta = pod["metadata"]
    try:
        return b"".join([line async for line in client.logs(meta["namespace"], meta["name"], container, tail=tail)])
    except (KubeError, Unreachable) as e:
        return str(e).encode()


# --- shells ------------------------------------------------------------------------------------------------------


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script for commands, options, pods and namespaces: source <(lateen completion bash)"""
    from click.shell_completion import get_completion_class

    from lateen.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "lateen", "_LATEEN_COMPLETE").source())


@command("options")
def options() -> None:
    """List the options that most commands have."""
    rows = [
        ["-c, --kubeconfig", "Kubernetes configuration file."],
        ["    --context", "The context of the configuration file to use."],
        ["-n, --namespace", "The namespace to use."],
        ["-i, --istioNamespace", "The control plane's namespace."],
        ["    NO_COLOR, FORCE_COLOR", "Variables: disable colors, or force them without a terminal."],
        ["    LATEEN_DEBUG", "Variable: show details of internal errors."],
    ]
    click.echo(wide_table(rows))
