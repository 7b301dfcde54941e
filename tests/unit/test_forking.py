"""Processes of containers that share a namespace of processes end with their container."""

import os
import subprocess
import time

import pytest

from lateen.cluster.runtime import forking

SLEEP = ("sleep", "60")


def of_container(*command):
    """Run a command in a mount namespace of its own, as containers do."""
    started = subprocess.Popen(["unshare", "--user", "--map-root-user", "--mount", *command])
    own = os.stat("/proc/self/ns/mnt")
    while started.poll() is None:
        fd = forking.mounts_of(started.pid)
        if fd >= 0 and not os.path.samestat(os.fstat(fd), own):
            return started, fd
        if fd >= 0:
            os.close(fd)
        time.sleep(0.01)
    pytest.skip("no namespaces can be made here")


def test_what_a_container_has_started_ends_with_it_and_nothing_else_does():
    first, mounts = of_container("sh", "-c", "sleep 60 & sleep 60 & wait")
    other, theirs = of_container(*SLEEP)
    own = subprocess.Popen(SLEEP)
    try:
        first.kill()
        first.wait()
        forking.end_all(mounts)
        wanted = os.fstat(mounts)
        deadline = time.monotonic() + 30
        while left := [p for p in os.listdir("/proc") if p.isdigit() and forking._is_in(int(p), wanted)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
        assert (other.poll(), own.poll()) == (None, None)
    finally:
        for process in (first, other, own):
            process.kill()
            process.wait()
        os.close(mounts)
        os.close(theirs)


def test_a_container_that_is_gone_has_nothing_to_end():
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert forking.mounts_of(gone.pid) == -1
