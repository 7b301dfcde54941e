"""Starts of the embedded cluster at the same time: one of them starts it, and all find it running."""

import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

from lateen.cluster import lifecycle, portal_process
from lateen.cluster.home import Home

PORTAL = """
import fcntl, os, sys, time
from pathlib import Path
from lateen.cluster.portal_process import identity
home = Path(sys.argv[1])
time.sleep(0.1)
lock = (home / "cluster.lock").open("w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit("another cluster of this user is already running")
(home / "cluster.pid").write_text(f"{os.getpid()} {identity(os.getpid())}")
(home / "begun").open("a").write("x")
time.sleep(0.2)
(home / "kubeconfig").write_text("new")
time.sleep(20)
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    started, launch = [], subprocess.Popen

    def popen(_, **more):
        started.append(launch([sys.executable, "-c", PORTAL, str(tmp_path)], **more))
        return started[-1]

    monkeypatch.setattr(lifecycle.subprocess, "Popen", popen)
    monkeypatch.setattr(lifecycle, "check_machine", lambda: None)
    found = Home(tmp_path)
    found.create()
    yield found
    for process in started:
        process.kill()
        process.wait()


def test_several_starts_at_once_start_one_cluster_and_find_it_running(home):
    home.kubeconfig.write_text("of an earlier cluster")
    failed = []

    def start():
        try:
            lifecycle.start(home)
            assert home.kubeconfig.read_text() == "new"
        except Exception as e:  # noqa: BLE001 - of any kind
            failed.append(e)

    threads = [threading.Thread(target=start) for _ in range(5)]
    for i, thread in enumerate(threads):
        thread.start()
        time.sleep(0.05 * (i % 2))
    for thread in threads:
        thread.join()
    assert not failed
    assert (home.root / "begun").read_text() == "x"
    assert lifecycle.running(home)


def test_a_cluster_that_is_about_to_run_keeps_its_kubeconfig(home):
    """Whoever has started it is gone, and it has not told its PID yet."""
    home.kubeconfig.write_text("its own")
    with home.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = f"{os.getpid()} {portal_process.identity(os.getpid())}"
        threading.Timer(0.2, lambda: home.pid.write_text(told)).start()
        lifecycle.start(home)
        assert home.kubeconfig.read_text() == "its own"
        lifecycle._forget(home)
        assert lifecycle.running(home) == os.getpid()
    assert not (home.root / "begun").exists()


def test_a_cluster_that_is_about_to_be_gone_is_not_taken_for_a_running_one(home):
    home.kubeconfig.write_text("of an earlier cluster")
    lock = home.lock.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    threading.Timer(0.2, lock.close).start()
    lifecycle.start(home)
    assert home.kubeconfig.read_text() == "new"
