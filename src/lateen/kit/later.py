"""aiohttp, imported when it is first used: the node daemon does not need it to start, and importing it takes as long as
everything else together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp as aiohttp
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


def load() -> None:
    """Import the module now."""
    importlib.import_module("aiohttp.web")
