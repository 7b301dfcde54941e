"""``python -m lateen.console collector [PORT] [FOLDER]``, ``… server [PORT] [COLLECTOR]`` and ``… traces``."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from lateen.kit import log
from lateen.kube.kubeconfig import ConfigError, in_cluster


async def _until_stopped(kind: str, port: int, more: str | None) -> None:
    me = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: me.cancel() if me else None)
    if kind == "traces":
        from lateen.console.traces import serving

        await serving.serve()
    async with in_cluster() as client:
        if kind == "collector":
            from lateen.console import collector

            await collector.serve(client, port, Path(more) if more else None)
        else:
            from lateen.console import server

            await server.serve(client, port, more or "http://prometheus.istio-system:9090")


def main() -> None:
    log.setup()
    kind, *rest = sys.argv[1:] or [""]
    if kind not in ("collector", "server", "traces"):
        says = "collector [PORT] [FOLDER] | server [PORT] [COLLECTOR] | traces"
        print(f"usage: python -m lateen.console {says}", file=sys.stderr)
        sys.exit(64)
    port = int(rest[0]) if rest else 9090 if kind == "collector" else 20001
    try:
        asyncio.run(_until_stopped(kind, port, rest[1] if len(rest) > 1 else None))
    except asyncio.CancelledError:
        sys.exit(0)
    except (ConfigError, OSError, ValueError) as e:
        sys.exit(f"console: {e}")


if __name__ == "__main__":
    main()
