"""Modules that are imported when they are first used: the node daemon does not need them to start, and importing them
takes as long as everything else together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp as aiohttp
    import jsonpatch as jsonpatch
    import yarl as yarl
    from aiohttp import web as web
else:

    class _Later:
        """A lazy module: its attributes are the module's. Using one as a base class imports it at once."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            found = getattr(importlib.import_module(self._name), name)
            setattr(self, name, found)
            return found

    aiohttp, web, yarl = _Later("aiohttp"), _Later("aiohttp.web"), _Later("yarl")
    jsonpatch = _Later("jsonpatch")


def load() -> None:
    """Import now what a server needs sooner or later."""
    for name in ("aiohttp.web", "jsonpatch", "yaml"):
        importlib.import_module(name)
