"""What has number 1 among the processes of a pod whose containers share them: it reaps those whose parents have ended,
and is there while containers come and go, as Kubernetes' pause container is."""

from __future__ import annotations

import contextlib
import os
import signal

from lateen.cluster import kernel

NAME = "/pause"
"""The command that stands for it."""


def main() -> None:
    """Runs until it is killed. It is a copy of the runtime, in no control group, so no container may trace it."""
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        signal.sigwait({signal.SIGCHLD})
