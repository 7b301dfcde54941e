"""The console's page is built anew by make, and by pip, when anything that it is made of has changed."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import build_backend  # noqa: E402


def test_make_builds_the_page_of_all_that_the_wheel_is_built_of():
    for changed in build_backend.inputs():
        at = str(changed.relative_to(ROOT))
        done = subprocess.run(
            ["make", "-n", "-W", at, "console"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )
        assert "building the console" in done.stdout, at


def test_the_npm_of_the_environment_that_builds_comes_before_that_of_another_one(monkeypatch, tmp_path):
    """pip install . in an environment that has an npm of its own."""
    ran = []
    monkeypatch.setattr(build_backend, "outdated", lambda: True)
    monkeypatch.setattr(build_backend, "PAGE", tmp_path / "index.html")
    monkeypatch.setattr(subprocess, "run", lambda *_, **more: ran.append(more["env"]["PATH"]))
    monkeypatch.setenv("PATH", "/of/the/build/bin")
    build_backend.build_page()
    assert {p.split(os.pathsep)[0] for p in ran} == {"/of/the/build/bin"}
