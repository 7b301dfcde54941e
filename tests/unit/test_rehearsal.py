"""What is done once before agents are copied really is done, and leaves nothing behind."""

import asyncio
import logging
import os
import subprocess
import sys
import threading

import pytest

from lateen.agent import rehearsal
from lateen.cluster import kernel

LATER = """
import asyncio, ssl, sys
import lateen.agent.main
from lateen.agent import rehearsal
rehearsal.rehearse()
before = set(sys.modules)
asyncio.run(rehearsal._request(*rehearsal._contexts()))
print(sorted(set(sys.modules) - before))
"""


def test_the_request_is_made_and_answered():
    assert asyncio.run(rehearsal._request(*rehearsal._contexts())).status == 200


def test_nothing_is_left_behind(caplog):
    caplog.set_level(logging.INFO)
    before, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    rehearsal.rehearse()
    assert set(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == threads
    assert not [r for r in caplog.records if r.name.startswith("lateen")]


def test_an_agents_first_request_imports_nothing():
    done = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("before", "after"), [("128", "8192"), ("10000", "10000")])
def test_proxies_may_watch_their_files_and_nothing_is_lowered(tmp_path, before, after):
    setting = tmp_path / "max_user_instances"
    setting.write_text(f"{before}\n")
    assert kernel.allow_watches(8192, setting) == ""
    assert setting.read_text().strip() == after


def test_where_the_limit_of_watches_cannot_be_raised_it_is_said_how(tmp_path):
    assert "sysctl fs.inotify.max_user_instances=8192" in kernel.allow_watches(8192, tmp_path / "missing")
