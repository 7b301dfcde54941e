"""Write the lock files: the exact version of every package of this environment, with the hashes of all files of its
release, so that they install wherever we run. ``requirements.lock`` has what runs, ``requirements-dev.lock`` has
everything. Files and hashes are those of pip's configured index. python tools/lock.py
"""

from __future__ import annotations

import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from piptools.repositories import PyPIRepository

ROOT = Path(__file__).parents[1]
HEAD = "# Exact versions, with the hashes of every file of the release; written by: make lock\n"
SKIP = {"lateen", "pip"}
"""Ourselves, and what the virtual environment brings along."""

Installed = dict[str, Distribution]


def needed(installed: Installed, requirements: list[str]) -> set[str]:
    """The names of what these need, directly or not, on this Python and platform."""
    found: set[str] = set()
    todo = [Requirement(r) for r in requirements]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if name in found or name in SKIP or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        if name not in installed:
            raise SystemExit(f"{name} is not installed; run: make setup, or pip install '{wanted}'")
        found.add(name)
        todo += [Requirement(r) for r in installed[name].requires or []]
    return found


def hashes(repository: PyPIRepository, name: str, version: str) -> list[str]:
    """Of all files of a release, whatever platform and Python they are for."""
    with repository.allow_all_wheels():
        files = [c.link for c in repository.finder.find_all_candidates(name) if str(c.version) == version]
    found = sorted({file.hash for file in files if file.hash_name == "sha256" and file.hash})
    if not found:
        raise SystemExit(f"the index has no hashes for {name} {version}")
    return found


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runs = project["project"]["dependencies"]
    develops = [*project["dependency-groups"]["dev"], *project["build-system"]["requires"]]
    installed = {canonicalize_name(d.metadata["Name"]): d for d in distributions()}
    everything, running = needed(installed, [*runs, *develops]), needed(installed, runs)
    repository = PyPIRepository(["--quiet"], cache_dir=str(ROOT / ".venv" / "lock"))
    entries = {}
    for name in sorted(everything):
        version = installed[name].version
        lines = [f"{name}=={version}", *(f"    --hash=sha256:{h}" for h in hashes(repository, name, version))]
        entries[name] = " \\\n".join(lines) + "\n"
    for file, names in (("requirements.lock", running), ("requirements-dev.lock", everything)):
        (ROOT / file).write_text(HEAD + "".join(entries[n] for n in sorted(names)))


if __name__ == "__main__":
    main()
