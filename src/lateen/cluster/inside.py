"""The first process inside the namespaces: private mounts, then the runtime, which stays."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from lateen.agent import main as agent
from lateen.cluster.runtime import daemon, kernel


def main() -> None:
    """``python -m lateen.cluster.inside LIFELINE_FD PORTAL_FD`` as PID 1."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    Path("/run/netns").mkdir()
    os.chdir("/")
    daemon.main(
        int(sys.argv[1]), int(sys.argv[2]), [sys.executable, "-m", "lateen.cluster.node"], {"pilot-agent": agent.main}
    )


if __name__ == "__main__":
    main()
