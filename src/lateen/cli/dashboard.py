"""lateen dashboard: opens a page of the cluster on a port of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import webbrowser
from dataclasses import dataclass, replace
from typing import Any

import click

from lateen.api import kinds
from lateen.cli import pods
from lateen.cli.base import Group, command
from lateen.cli.connect import Target, complete, target_options
from lateen.cli.output import CliError, say
from lateen.kit import tasks
from lateen.kit.jsons import Json, dig
from lateen.kit.spdy import Session, Stream
from lateen.kube.client import HttpClient
from lateen.wire import ports


@dataclass(frozen=True)
class Page:
    """The location of a dashboard: its pods by label, their port, the path of its page."""

    labels: str
    port: int
    path: str = ""
    missing: str = "install it with: lateen addons apply"
    first: str = ""
    """The labels of pods that are preferred."""
    instead: str = ""
    """The page of the console that is opened if there are no such pods."""


PROMETHEUS = "app.kubernetes.io/name=prometheus"
"""Labels of the add-on's pods, of Istio's own, and of samples/prometheus."""
PAGES = {
    "kiali": Page("app=kiali", 20001, "/kiali"),
    "prometheus": Page(PROMETHEUS, 9090, first=f"{PROMETHEUS},app.kubernetes.io/instance=prometheus-server"),
    "grafana": Page("app=grafana", 3000, instead="/kiali#/boards/mesh"),
    "jaeger": Page("app=jaeger", 16686, missing="install it with: lateen addons apply jaeger"),
    "skywalking": Page("app=skywalking-ui", 8080, missing="Lateen has no add-on of this name"),
    "zipkin": Page("app=zipkin", 9411, "/zipkin", "install it with: lateen addons apply jaeger"),
}
SHOWN_BY = "lateen.dev/page"
"""The label of pods that only answer queries: its value is the dashboard that shows their data."""
HELP = {
    "controlz": "The control plane's log levels.",
    "envoy": "Envoy's admin interface of a pod.",
    "grafana": "Open Grafana if it is installed, otherwise the console's dashboards.",
    "istiod-debug": "Show the control plane's state.",
    "jaeger": "Traces.",
    "kiali": "Open the console with the live graph.",
    "prometheus": "Open Prometheus if it is installed, else the metrics collector.",
    "skywalking": "Traces.",
    "zipkin": "Traces.",
}


@click.group(
    cls=Group,
    entries={name: (f"lateen.cli.dashboard:{name.replace('-', '_')}_", text) for name, text in HELP.items()},
    aliases={"proxy": "envoy"},
    passed_on=("-p", "--port", "--address"),
    flags=("--browser", "--no-browser"),
)
def dashboard() -> None:
    """Open a page of the mesh in a browser: lateen dashboard kiali"""


async def _running(client: HttpClient, namespace: str, labels: str) -> Json | None:
    found, _ = await client.list(kinds.POD, namespace, labels)
    return next((p for p in found if dig(p, "status", "phase") == "Running"), None)


async def _shown_by(client: HttpClient, namespace: str, name: str) -> tuple[Json, int, str]:
    """(pod, port, path) of the console's page of traces. Raises CliError."""
    page = PAGES[name]
    pod = await _running(client, namespace, page.labels)
    if pod is None:
        raise CliError(f"traces are shown by the console, which is not installed; {page.missing} {name}")
    return pod, page.port, f"{page.path}#/traces"


def page_options(function: Any) -> Any:
    for option in (
        click.option("-p", "--port", type=int, default=0, help="The port on this machine."),
        click.option("--address", default="localhost", help="The address on this machine to listen on."),
        click.option("--browser/--no-browser", default=True, help="Open a browser."),
    ):
        function = option(function)
    return target_options(function)


def _simple(name: str) -> click.Command:
    @command(name, help=HELP[name])
    @page_options
    def run(target: Target, port: int, address: str, browser: bool) -> None:
        page = PAGES[name]

        async def work(client: HttpClient) -> None:
            shown = page
            pod = await _running(client, target.istio_namespace, page.first) if page.first else None
            pod = pod or await _running(client, target.istio_namespace, page.labels)
            if pod is None and name == "zipkin":  # the add-on for traces also serves Zipkin's API
                pod = await _running(client, target.istio_namespace, f"app=jaeger,{SHOWN_BY}")
            if pod is None and page.instead:
                shown = replace(PAGES["kiali"], path=page.instead)
                pod = await _running(client, target.istio_namespace, shown.labels)
            if pod is None:
                raise CliError(f"no {name} pods found in namespace {target.istio_namespace}; {page.missing}")
            path, remote = shown.path, shown.port
            if shown_by := str(dig(pod, "metadata", "labels", SHOWN_BY, default="")):
                pod, remote, path = await _shown_by(client, target.istio_namespace, shown_by)
            await _serve(client, pod, remote, port or remote, address, path, browser)

        target.run(work)

    return run


kiali_, prometheus_, grafana_, jaeger_, skywalking_, zipkin_ = (
    _simple(n) for n in ("kiali", "prometheus", "grafana", "jaeger", "skywalking", "zipkin")
)


@command("envoy")
@click.argument("pod", shell_complete=complete(kinds.POD))
@page_options
def envoy_(target: Target, pod: str, port: int, address: str, browser: bool) -> None:
    """Open Envoy's admin interface of a pod."""

    async def work(client: HttpClient) -> None:
        found = await pods.find(client, pod, target.namespace)
        await _serve(client, found, 15000, port or 15000, address, "", browser)

    target.run(work)


def _istiod(name: str, remote: int, path: str) -> click.Command:
    @command(name, help=HELP[name])
    @page_options
    @click.option("-r", "--revision", default="", help="A control plane of this revision.")
    def run(target: Target, port: int, address: str, browser: bool, revision: str) -> None:
        from lateen.cli.mesh import istiods, nothing_runs

        async def work(client: HttpClient) -> None:
            running = await istiods(client, target.istio_namespace, revision)
            if not running:
                raise nothing_runs(target.istio_namespace)
            await _serve(client, running[0], remote, port or remote, address, path, browser)

        target.run(work)

    return run


controlz_ = _istiod("controlz", ports.CONTROLZ, "/scopez/")
istiod_debug_ = _istiod("istiod-debug", ports.MONITORING, "/debug/list")


async def _serve(
    client: HttpClient, pod: Json, remote: int, local: int, address: str, path: str, browser: bool
) -> None:
    """Forward connections until interrupted. Raises CliError."""
    meta = pod["metadata"]
    async with client.forwarding(meta["namespace"], meta["name"]) as session:
        ids = iter(range(1 << 30))

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _pipe(session, str(next(ids)), remote, reader, writer)

        try:
            server = await asyncio.start_server(connected, address, local)
        except OSError as e:
            raise CliError(
                f"port {local} of {address} cannot be used ({e.strerror or e}); choose another one with --port"
            ) from e
        async with server:
            stopped = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stopped.set)
            url = f"http://{address}:{local}{path}"
            click.echo(url)
            if browser and not _opened(url):
                say(f"Failed to open browser; open {url} in your browser.")
            waiting = [tasks.spawn(stopped.wait(), "stop"), tasks.spawn(_ended(session), "end")]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await tasks.cancel(*waiting)
    if not stopped.is_set():
        raise CliError(f"the connection to pod {meta['name']} ended; is it still running?")


def _opened(url: str) -> bool:
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER")):
        return False  # a text browser would take over the terminal
    with contextlib.suppress(webbrowser.Error):
        return webbrowser.open(url)
    return False


async def _ended(session: Session) -> bool:
    while await session.opened.get() is not None:
        pass
    return True


async def _pipe(
    session: Session, request: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Forward one connection over an error stream and a data stream, as kubectl opens them."""
    head = {"port": str(port), "requestid": request}
    error = await session.open({"streamtype": "error", **head})
    await error.close()
    data = await session.open({"streamtype": "data", **head})
    complaint = tasks.spawn(_complaint(error), "forward error")
    outward = tasks.spawn(_out(reader, data), "forward out")
    try:
        while chunk := await data.incoming.get():
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass  # the browser closed the connection
    finally:
        await tasks.cancel(outward, complaint)
        await data.close()
        writer.close()
        session.streams.pop(data.number, None)
        session.streams.pop(error.number, None)


async def _complaint(error: Stream) -> None:
    """Raise the failure that the other side reported."""
    if text := await error.incoming.get():
        say(text.decode(errors="replace"))


async def _out(reader: asyncio.StreamReader, data: Stream) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(32768):
            await data.write(chunk)
        await data.close()
