"""``python -m lateen.console KIND …``: the processes of the add-ons.

``collector [PORT] [FOLDER]``, ``server [PORT] [COLLECTOR]``, ``traces``, ``prometheus`` and ``reloader`` with the
arguments of the programs in whose place they run.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from lateen.kit import log
from lateen.kube.kubeconfig import ConfigError, in_cluster
from lateen.wire import ports

KINDS = ("collector", "server", "traces", "prometheus", "reloader")


async def _until_stopped(kind: str, rest: list[str]) -> None:
    me = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: me.cancel() if me else None)
    if kind == "traces":
        from lateen.console.traces import serving

        await serving.serve()
    if kind == "reloader":
        from lateen.console import reloader

        await reloader.serve(rest)
    more = rest[1] if len(rest) > 1 else ""
    async with in_cluster() as client:
        if kind == "collector":
            from lateen.console import collector

            listen = (int(rest[0]) if rest else 9090, ports.COLLECTOR)
            await collector.serve(client, listen, Path(more) if more else None)
        elif kind == "prometheus":
            from lateen.console import launcher

            await launcher.serve(client, rest)
        else:
            from lateen.console import server

            await server.serve(client, int(rest[0]) if rest else 20001, more or "http://collector.istio-system:9090")


def main() -> None:
    log.setup()
    kind, *rest = sys.argv[1:] or [""]
    if kind not in KINDS:
        says = "collector [PORT] [FOLDER] | server [PORT] [COLLECTOR] | traces | prometheus … | reloader …"
        print(f"usage: python -m lateen.console {says}", file=sys.stderr)
        sys.exit(64)
    try:
        asyncio.run(_until_stopped(kind, rest))
    except asyncio.CancelledError:
        sys.exit(0)
    except (ConfigError, OSError, ValueError) as e:
        sys.exit(f"{kind}: {e}")


if __name__ == "__main__":
    main()
