"""pilot-agent: ``proxy sidecar|router``, ``istio-iptables``, ``istio-clean-iptables``, ``wait``,
``request METHOD PATH``, ``version``.

Imported by the runtime before it forks containers, so that all agents share one set of pages: keep it small.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from lateen import __version__
from lateen.agent import capture, proxy
from lateen.agent import options as options_of
from lateen.agent.envoy import DIRECTORY
from lateen.kit import http, log
from lateen.wire import ports

WAIT_S, PAUSE_MS, REQUEST_MS = 60.0, 20.0, 2000.0
USAGE = """usage: pilot-agent COMMAND

  proxy sidecar|router   run Envoy and serve its agent (--help lists the flags)
  istio-iptables         write the pod's redirection rules
  istio-clean-iptables   remove these rules
  wait                   wait until the proxy is ready
  request METHOD PATH    call Envoy's admin interface, or the agent with --debug-port=N
  grpc-bootstrap         write certificate and bootstrap file for a gRPC library
  version                print the version"""


def mark() -> int | None:
    """The socket mark of the proxy's own connections; None if its user id identifies them."""
    text = os.environ.get("LATEEN_SOCKET_MARK", "")
    return int(text) if text else None


def main() -> None:
    """The entry point: a failure is one sentence on stderr and an exit code, never a traceback."""
    command, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    match command:
        case "proxy":
            _proxy(arguments)
        case "istio-iptables":
            try:
                wanted = capture.parse(arguments, mark(), os.environ.get("ISTIO_META_DNS_CAPTURE") == "true")
                capture.validate(wanted) if wanted.validate else capture.install(wanted)
            except capture.UsageError as e:
                sys.exit(f"istio-iptables: {e}")
        case "istio-clean-iptables":
            if failed := capture.remove():
                sys.exit(f"istio-clean-iptables: {failed}")
        case "wait":
            sys.exit(asyncio.run(_wait(arguments)))
        case "request":
            sys.exit(asyncio.run(_request(arguments)))
        case "grpc-bootstrap":
            log.setup()
            path = next((a.partition("=")[2] for a in arguments if a.startswith("--output=")), "")
            options, _ = read_options([])
            sys.exit(asyncio.run(proxy.grpc_bootstrap(options, Path(path or DIRECTORY / "grpc-bootstrap.json"))))
        case "version":
            print(__version__)
        case "help" | "--help" | "-h":
            print(USAGE)
        case _:
            print(f"pilot-agent: unknown command {command!r}; pilot-agent --help lists all", file=sys.stderr)
            sys.exit(64)


def _proxy(arguments: list[str]) -> None:
    if {"--help", "-h"} & set(arguments):
        print(options_of.usage(), end="")
        return
    options, wanted = read_options(arguments)
    try:
        levels = log.parse_levels(wanted.levels)
    except ValueError as e:
        sys.exit(f"pilot-agent: --log_output_level: {e}")
    log.setup(levels.pop("default", logging.INFO), wanted.as_json)
    for scope, level in levels.items():
        logging.getLogger("lateen" if scope == "all" else f"lateen.{scope}").setLevel(level)
    try:
        agent = proxy.Agent(options)
    except ValueError as e:
        sys.exit(f"pilot-agent: {e}")
    try:
        sys.exit(asyncio.run(agent.run()))
    except OSError as e:  # most likely, one of its ports is in use
        sys.exit(f"pilot-agent: {e}")


def read_options(arguments: list[str]) -> tuple[options_of.Options, options_of.Log]:
    """Parse arguments and environment; exit with one sentence if they are invalid."""
    try:
        return options_of.read(arguments, mark())
    except options_of.UsageError as e:
        print(f"pilot-agent: {e}", file=sys.stderr)
        sys.exit(64)
    except ValueError as e:
        sys.exit(f"pilot-agent: {e}")


async def _wait(arguments: list[str]) -> int:
    """``wait [--timeoutSeconds=N] [--periodMillis=N] [--url=URL]``: wait until the proxy is ready."""
    given = dict(a.removeprefix("--").partition("=")[::2] for a in arguments)
    if unknown := given.keys() - {"timeoutSeconds", "periodMillis", "requestTimeoutMillis", "url"}:
        print(f"pilot-agent: wait has no flag --{min(unknown)}", file=sys.stderr)
        return 64
    try:
        limit, pause = float(given.get("timeoutSeconds", WAIT_S)), float(given.get("periodMillis", PAUSE_MS)) / 1000
        each = float(given.get("requestTimeoutMillis", REQUEST_MS)) / 1000
        url = urlsplit(given.get("url", f"http://127.0.0.1:{_status_port()}/healthz/ready"))
        host, port = url.hostname or "127.0.0.1", url.port or 80
    except ValueError as e:
        print(f"pilot-agent: {e}", file=sys.stderr)
        return 64
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    said = f"nothing answers on port {port}"
    while loop.time() < deadline:
        try:
            answer = await http.fetch(host, port, url.path or "/", timeout=each)
            if answer.status == 200:
                return 0
            said = answer.body.decode(errors="replace")
        except (OSError, TimeoutError):
            pass  # not listening yet
        await asyncio.sleep(pause)
    print(f"pilot-agent: the proxy is not ready after {limit:g} s: {said}", file=sys.stderr)
    return 1


def _status_port() -> int:
    return read_options([])[0].status_port or ports.MERGED_METRICS


async def _request(arguments: list[str]) -> int:
    """``request [--debug-port=N] METHOD PATH``: call Envoy's admin interface, or the agent's own port. Envoy's metrics
    are asked at the port where they have Istio's labels (``wire.labels``)."""
    port = ports.ADMIN
    rest = []
    for a in arguments:
        if a.startswith("--debug-port="):
            port = int(a.partition("=")[2])
        else:
            rest.append(a)
    if len(rest) != 2:
        print("usage: pilot-agent request [--debug-port=N] METHOD PATH", file=sys.stderr)
        return 64
    if port == ports.ADMIN and rest[1].lstrip("/").partition("?")[0] == "stats/prometheus":
        port = ports.ENVOY_METRICS
    try:
        answer = await http.fetch("127.0.0.1", port, "/" + rest[1].lstrip("/"), method=rest[0], timeout=60)
    except (OSError, TimeoutError) as e:
        print(f"pilot-agent: port {port} does not answer: {str(e) or 'timeout'}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(answer.body)
    sys.stdout.buffer.flush()
    return 0 if answer.status < 400 else 1


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
