"""Manifests to try the mesh with, and the programs behind their images; a checkout's ``samples/`` links to it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent
ADDONS = ROOT / "addons"
