"""An API server that is reached at an address other than the one its certificate is for."""

from __future__ import annotations

import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult


class Elsewhere(AbstractResolver):
    """Resolves one name to the address of another host."""

    def __init__(self, name: str, host: str) -> None:
        self._name, self._host, self._inner = name, host, aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(self._host if host == self._name else host, port, family)
        return [{**r, "hostname": host} for r in found]

    async def close(self) -> None:
        await self._inner.close()
