"""A cluster of the benchmark's own, and small measuring tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def lateen(environment: dict[str, str], *argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lateen", *argv],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"lateen {' '.join(argv)}: {done.stderr}")
    return done.stdout + done.stderr


@contextmanager
def cluster(demo: bool = True) -> Iterator[dict[str, str]]:
    """The environment of a cluster that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="lateen-bench-") as directory:
        home = Path(directory) / "home"
        environment = os.environ | {
            "LATEEN_HOME": str(home),
            "KUBECONFIG": str(home / "kubeconfig"),
            "LATEEN_API_PORT": "0",
            "NO_COLOR": "1",
        }
        os.environ.update(environment)
        try:
            lateen(environment, *(["demo"] if demo else ["cluster", "start"]))
            yield environment
        finally:
            lateen(environment, "cluster", "delete")


def report(**figures: object) -> None:
    print(json.dumps(figures), flush=True)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
