"""``python -m lateen.control`` is pilot-discovery: ``discovery`` (istiod itself) or ``request``.

``request [--debug-port=N] METHOD PATH`` queries the istiod of its own pod, on the loopback interface; the body of a PUT
is read from standard input.
"""

from __future__ import annotations

import asyncio
import sys

from lateen.kit import http
from lateen.kit.digits import digits
from lateen.wire import ports


async def _request(method: str, path: str, port: int) -> int:
    body = sys.stdin.buffer.read() if method in ("PUT", "POST") else b""
    try:
        answer = await http.fetch("127.0.0.1", port, path, method=method, body=body, timeout=20)
    except (OSError, TimeoutError) as e:
        print(f"pilot-discovery: istiod does not answer: {str(e) or 'timeout'}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(answer.body)
    sys.stdout.buffer.flush()
    return 0 if answer.status < 400 else 1


def main() -> None:
    match sys.argv[1:]:
        case [] | ["discovery", *_]:
            from lateen.control.findings import fork

            analysis = fork()  # fork before the next import loads gRPC
            from lateen.control.app import main as discovery

            discovery(analysis)
        case ["request", method, path]:
            sys.exit(asyncio.run(_request(method, path, ports.MONITORING)))
        case ["request", option, method, path] if digits(option.removeprefix("--debug-port=")):
            sys.exit(asyncio.run(_request(method, path, int(option.removeprefix("--debug-port=")))))
        case _:
            print("usage: pilot-discovery discovery | request [--debug-port=N] METHOD PATH", file=sys.stderr)
            sys.exit(64)


if __name__ == "__main__":
    main()
