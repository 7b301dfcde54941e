"""lateen proxy-config: a proxy's actual configuration, from the proxy itself or from a saved dump."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lateen.api import kinds
from lateen.cli import pods
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, complete, target_options
from lateen.cli.output import BAD_DATA, USAGE, CliError, wide_table
from lateen.dump import ConfigDump, DumpError, tables
from lateen.kit import jsons, times, yamldoc
from lateen.kit.jsons import Json, dig

Rows = list[tuple[list[str], Json]]

ENTRIES = {
    name: (f"lateen.cli.{'proxy_log' if name == 'log' else 'proxy_config'}:{name.replace('-', '_')}_", text)
    for name, text in {
        "all": "Show clusters, listeners, routes, endpoints and secrets.",
        "bootstrap": "Show Envoy's bootstrap configuration.",
        "cluster": "Show clusters: the destinations of requests.",
        "ecds": "Show extension configurations by name.",
        "endpoint": "Show endpoints and their health.",
        "listener": "Show listeners: where traffic enters.",
        "log": "Show or change the proxy's log levels.",
        "rootca-compare": "Compare the root certificates of two proxies.",
        "route": "Show routes: which request goes where.",
        "secret": "Show certificates and when they expire.",
    }.items()
}
ALIASES = {
    "a": "all",
    "b": "bootstrap",
    "c": "cluster",
    "clusters": "cluster",
    "ec": "ecds",
    "ep": "endpoint",
    "eds": "endpoint",
    "endpoints": "endpoint",
    "l": "listener",
    "listeners": "listener",
    "o": "log",
    "rc": "rootca-compare",
    "r": "route",
    "routes": "route",
    "s": "secret",
    "secrets": "secret",
}


@click.group(cls=Group, entries=ENTRIES, aliases=ALIASES, passed_on=("-o", "--output"))
def proxy_config() -> None:
    """Show a proxy's actual configuration: lateen proxy-config route deploy/productpage-v1"""


FILE = click.option("-f", "--file", "file", default="", help="A saved config dump; - for standard input.")
OUTPUTS = click.Choice(["short", "wide", "json", "yaml"])


def dump_options(function: Callable[..., None], output: str = "short") -> Callable[..., None]:
    """POD or --file, and -o."""
    for option in (
        click.argument("pod", required=False, shell_complete=complete(kinds.POD)),
        FILE,
        click.option("-o", "--output", type=OUTPUTS, default=output, show_default=True),
    ):
        function = option(function)
    return target_options(function)


def load(target: Target, pod: str | None, file: str, path: str = "config_dump?include_eds") -> Any:
    """Raises CliError."""
    if bool(pod) == bool(file):
        raise CliError("name a pod (or deployment/NAME), or a saved dump with --file", USAGE)
    if file:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text()
            return jsons.loads(text)
        except OSError as e:
            raise CliError(f"{file}: {e.strerror}", BAD_DATA) from None
        except ValueError:
            raise CliError(
                f"{file}: is not JSON; save it with: lateen proxy-config all POD -o json", BAD_DATA
            ) from None

    async def work(client: Any) -> Any:
        found = await pods.find(client, str(pod), target.namespace)
        return await pods.ask_json(client, found, path)

    return target.run(work)


def dump_of(target: Target, pod: str | None, file: str) -> ConfigDump:
    try:
        return ConfigDump(load(target, pod, file))
    except DumpError as e:
        raise CliError(f"{file or pod}: {e}", BAD_DATA) from e


def show(rows: Rows, header: list[str], output: str) -> None:
    """Print the rows as a table, or their resources without duplicates."""
    if output in ("json", "yaml"):
        unique = list({id(r): r for _, r in rows}.values())
        click.echo(jsons.pretty(unique) if output == "json" else yamldoc.dump(unique).rstrip())
        return
    click.echo(wide_table([header, *(row for row, _ in rows)]))


def _clusters(dump: ConfigDump, fqdn: str, port: int | None, subset: str, direction: str | None) -> Rows:
    return [
        (row, c)
        for row, c in tables.clusters(dump)
        if fqdn in row[0]
        and (not port or row[1] == str(port))
        and (not subset or row[2] == subset)
        and (direction is None or row[3] == direction)
    ]


def _listeners(dump: ConfigDump, address: str, port: int | None, kind: str) -> Rows:
    return [
        (row, listener)
        for row, listener in tables.listeners(dump)
        if address in row[0]
        and (port is None or row[1] == str(port))
        and (not kind or kind.upper() in tables.kind_of(listener).split("+"))
    ]


def _routes(dump: ConfigDump, name: str) -> Rows:
    return [(row, r) for row, r in tables.routes(dump) if not name or row[0] == name]


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


cluster_options = _options(
    click.option("--fqdn", default="", help="Only clusters of this host."),
    click.option("--subset", default="", help="Only clusters of this subset."),
    click.option("--direction", type=click.Choice(["inbound", "outbound"]), default=None, help="Only these clusters."),
)
listener_options = _options(
    click.option("--address", default="", help="Only listeners with this address."),
    click.option("--type", "kind", default="", help="Only listeners for HTTP, TCP or UDP."),
)
port_option = click.option("--port", type=int, default=None, help="Only those with this port.")
name_option = click.option("--name", default="", help="Only this route configuration.")


@command("cluster")
@dump_options
@cluster_options
@port_option
def cluster_(
    target: Target,
    pod: str | None,
    file: str,
    output: str,
    fqdn: str,
    port: int | None,
    subset: str,
    direction: str | None,
) -> None:
    """Show clusters: the destinations of requests."""
    rows = _clusters(dump_of(target, pod, file), fqdn, port, subset, direction)
    header = tables.CLUSTER
    if output == "wide":
        rows, header = [([*row, str(c.get("name"))], c) for row, c in rows], [*header, "NAME"]
    show(rows, header, output)


@command("listener")
@dump_options
@listener_options
@port_option
def listener_(
    target: Target, pod: str | None, file: str, output: str, address: str, port: int | None, kind: str
) -> None:
    """Show listeners: where traffic enters."""
    rows = _listeners(dump_of(target, pod, file), address, port, kind)
    header = tables.LISTENER
    if output == "wide":
        rows, header = [([str(li.get("name")), *row], li) for row, li in rows], ["LISTENER", *header]
    show(rows, header, output)


@command("route")
@dump_options
@name_option
def route_(target: Target, pod: str | None, file: str, output: str, name: str) -> None:
    """Show routes: which request goes where."""
    show(_routes(dump_of(target, pod, file), name), tables.ROUTE, output)


@command("endpoint")
@dump_options
@click.option("--address", default="")
@click.option("--port", type=int, default=0)
@click.option("--cluster", default="")
@click.option("--status", default="")
def endpoint_(
    target: Target, pod: str | None, file: str, output: str, address: str, port: int, cluster: str, status: str
) -> None:
    """Show endpoints and their health."""
    value = load(target, pod, file, "clusters?format=json")
    if isinstance(value, dict) and "cluster_statuses" in value:
        rows, header, at = tables.endpoints(value), tables.ENDPOINT, 3
    else:
        try:
            rows, header, at = tables.endpoint_configs(ConfigDump(value)), tables.ENDPOINT_CONFIG, 3
        except DumpError as e:
            raise CliError(f"{file or pod}: {e}", BAD_DATA) from e
    shown = [
        (row, e)
        for row, e in rows
        if row[0].startswith(address)
        and (not port or row[0].endswith(f":{port}"))
        and (not cluster or row[at] == cluster)
        and (not status or row[1].lower() == status.lower())
    ]
    show(shown, header, output)


@command("secret")
@dump_options
def secret_(target: Target, pod: str | None, file: str, output: str) -> None:
    """Show certificates and when they expire."""
    from lateen.dump import secrets

    show(secrets.rows(dump_of(target, pod, file), times.now()), tables.SECRET, output)


@command("ecds")
@dump_options
def ecds_(target: Target, pod: str | None, file: str, output: str) -> None:
    """Show extension configurations by name."""
    show(tables.extensions(dump_of(target, pod, file)), tables.EXTENSION, output)


@command("bootstrap")
@functools.partial(dump_options, output="json")
def bootstrap_(target: Target, pod: str | None, file: str, output: str) -> None:
    """Show Envoy's bootstrap configuration."""
    dump = dump_of(target, pod, file)
    found = dump.part("BootstrapConfigDump")
    if output in ("json", "yaml"):
        click.echo(jsons.pretty(found) if output == "json" else yamldoc.dump(found).rstrip())
        return
    node = dig(found, "bootstrap", "node", default={})
    version = dig(node, "user_agent_build_version", "version", default={})
    number = ".".join(str(version.get(k, 0)) for k in ("major_number", "minor_number", "patch"))
    mesh = dig(node, "metadata", "ISTIO_VERSION", default="unknown")
    rows = [["Istio Version:", str(mesh)], ["Istio Proxy Version:", str(mesh)], ["Envoy Version:", number]]
    click.echo("\n".join(f"{name:<24}{value}" for name, value in rows))


@command("all")
@dump_options
@cluster_options
@listener_options
@port_option
@name_option
def all_(
    target: Target,
    pod: str | None,
    file: str,
    output: str,
    fqdn: str,
    subset: str,
    direction: str | None,
    address: str,
    kind: str,
    port: int | None,
    name: str,
) -> None:
    """Show clusters, listeners, routes, endpoints and secrets."""
    from lateen.dump import secrets

    dump = dump_of(target, pod, file)
    if output in ("json", "yaml"):
        if fqdn or subset or direction or address or kind or name or port is not None:
            raise CliError(f"filters are for tables: with -o {output}, the whole dump is printed", USAGE)
        click.echo(jsons.pretty(dump.value) if output == "json" else yamldoc.dump(dump.value).rstrip())
        return
    parts: list[tuple[Rows, list[str]]] = [
        (_clusters(dump, fqdn, port, subset, direction), tables.CLUSTER),
        (_listeners(dump, address, port, kind), tables.LISTENER),
        (_routes(dump, name), tables.ROUTE),
        (tables.endpoint_configs(dump), tables.ENDPOINT_CONFIG),
        (secrets.rows(dump, times.now()), tables.SECRET),
    ]
    click.echo("\n\n".join(wide_table([header, *(row for row, _ in rows)]) for rows, header in parts))


@command("rootca-compare")
@click.argument("first")
@click.argument("second")
@target_options
def rootca_compare_(target: Target, first: str, second: str) -> None:
    """Compare the root certificates of two proxies."""
    from lateen.dump import secrets

    roots = [set(secrets.roots(dump_of(target, pod, ""))) for pod in (first, second)]
    if roots[0] != roots[1]:
        raise CliError(f"Both [{first}] and [{second}] have different ROOTCA: they cannot verify each other")
    click.echo(f"Both [{first}] and [{second}] have the identical ROOTCA, theoretically the connectivity should work")
