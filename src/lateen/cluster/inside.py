"""The first process inside the namespaces: private mounts, then the node daemon, then the runtime, which stays."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lateen.cluster import kernel
from lateen.cluster.runtime import starting

if TYPE_CHECKING:
    from lateen.cluster.runtime import forking

WATCHES = 8192
"""inotify instances: more proxies than one machine runs."""


def main() -> None:
    """``python -m lateen.cluster.inside node|worker LIFELINE_FD PORTAL_FD`` as PID 1."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    Path("/run/netns").mkdir()
    os.chdir("/")
    # Nothing that is loaded is garbage; ``main`` enables its collection.
    load = f"import gc; gc.disable(); from lateen.cluster.{sys.argv[1]} import main; main()"
    command, portal = [sys.executable, "-c", load], int(sys.argv[3])
    first = starting.start(command, portal)

    from lateen.cluster.runtime import daemon  # beside the node daemon's start and not before it

    if says := kernel.allow_watches(WATCHES):
        print(f"lateen-runtime: {says}", file=sys.stderr, flush=True)
    kernel.share_arena()
    daemon.main(int(sys.argv[2]), lambda: starting.start(command, portal), first, programs)


def programs() -> forking.Entries:
    """What containers run as forks of this process, loaded and rehearsed."""
    from lateen.agent import main as agent
    from lateen.agent import rehearsal
    from lateen.cluster.runtime import pause

    rehearsal.rehearse()
    return {"pilot-agent": agent.main, pause.NAME: pause.main}


if __name__ == "__main__":
    main()
