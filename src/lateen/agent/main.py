"""pilot-agent: ``proxy sidecar|router``, ``istio-iptables``, ``wait``, ``request METHOD PATH``, ``version``.

Imported by the runtime before it forks containers, so that all agents share one set of pages: keep it small.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from lateen import __version__
from lateen.agent import capture, proxy
from lateen.kit import http, log
from lateen.wire import ports

WAIT_S = 60.0


def mark() -> int | None:
    """The socket mark of the proxy's own connections; None where its user id tells them apart."""
    text = os.environ.get("LATEEN_SOCKET_MARK", "")
    return int(text) if text else None


def main() -> None:
    """Never a traceback: a failure is one sentence on stderr and an exit code."""
    command, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    match command:
        case "proxy":
            log.setup()
            kind = (arguments[:1] or ["sidecar"])[0]
            sys.exit(asyncio.run(proxy.run(kind, arguments[1:], mark())))
        case "istio-iptables":
            try:
                capture.install(capture.parse(arguments, mark()))
            except capture.UsageError as e:
                sys.exit(f"istio-iptables: {e}")
        case "wait":
            sys.exit(asyncio.run(_wait()))
        case "request":
            sys.exit(asyncio.run(_request(arguments)))
        case "grpc-bootstrap":
            log.setup()
            sys.exit(asyncio.run(proxy.grpc_bootstrap(mark())))
        case "version":
            print(__version__)
        case _:
            print(
                f"pilot-agent: unknown command {command!r}; there are: proxy, istio-iptables, wait, request, "
                "grpc-bootstrap, version",
                file=sys.stderr,
            )
            sys.exit(64)


async def _wait() -> int:
    """Until the proxy is ready."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_S
    said = "nothing answers on port 15020"
    while loop.time() < deadline:
        try:
            answer = await http.fetch("127.0.0.1", ports.MERGED_METRICS, "/healthz/ready", timeout=2)
            if answer.status == 200:
                return 0
            said = answer.body.decode(errors="replace")
        except (OSError, TimeoutError):
            pass  # not listening yet
        await asyncio.sleep(0.02)
    print(f"pilot-agent: the proxy is not ready after {WAIT_S:.0f} s: {said}", file=sys.stderr)
    return 1


async def _request(arguments: list[str]) -> int:
    """``request [--debug-port=N] METHOD PATH``: Envoy's admin interface, or the agent's own port."""
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
