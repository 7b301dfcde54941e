"""aiohttp, imported when it is first used: what the node daemon needs for its start needs none of it, and loading it
takes as long as everything else together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp as aiohttp
    import yarl as yarl
    from aiohttp import web as web
else:

    class _Later:
        """Stands for a module: its attributes are the module's, but for a base class, which loads it at once."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            found = getattr(importlib.import_module(self._name), name)
            setattr(self, name, found)
            return found

    aiohttp, web, yarl = _Later("aiohttp"), _Later("aiohttp.web"), _Later("yarl")


def load() -> None:
    """Import it now."""
    importlib.import_module("aiohttp.web")
