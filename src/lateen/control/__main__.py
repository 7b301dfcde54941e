"""``python -m lateen.control`` is pilot-discovery: ``discovery`` (istiod itself), ``request METHOD PATH``.

``request`` asks the istiod of its own pod; a token for debug paths comes on standard input, never in an argument.
"""

from __future__ import annotations

import asyncio
import sys

from lateen.kit import http
from lateen.wire import ports


async def _request(method: str, path: str) -> int:
    token = sys.stdin.read().strip()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = await http.fetch("127.0.0.1", ports.MONITORING, path, method=method, headers=headers, timeout=20)
    except (OSError, TimeoutError) as e:
        print(f"pilot-discovery: istiod does not answer: {str(e) or 'timeout'}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(answer.body)
    sys.stdout.buffer.flush()
    return 0 if answer.status < 400 else 1


def main() -> None:
    match sys.argv[1:]:
        case [] | ["discovery", *_]:
            from lateen.control.app import main as discovery

            discovery()
        case ["request", method, path]:
            sys.exit(asyncio.run(_request(method, path)))
        case _:
            print("usage: pilot-discovery discovery | request METHOD PATH", file=sys.stderr)
            sys.exit(64)


if __name__ == "__main__":
    main()
