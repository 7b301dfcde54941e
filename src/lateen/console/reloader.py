"""Makes a program reload its configuration when files change, like the sidecars of Prometheus in common manifests
(``prometheus-config-reloader``, ``configmap-reload``)."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import aiohttp
from aiohttp import web

from lateen.kit import servers

log = logging.getLogger("lateen.console.reloader")

LOOK_S = 2.0
FOLDERS = ("--watched-dir", "--volume-dir")
ADDRESSES = ("--reload-url", "--webhook-url")
LISTEN = ("--listen-address", "--web.listen-address")


def options(args: list[str]) -> dict[str, list[str]]:
    """The values of options: ``--name=value``, ``--name value``, with one dash or two."""
    out: dict[str, list[str]] = {}
    name = ""
    for arg in args:
        if arg.startswith("-"):
            name, equals, value = arg.partition("=")
            name = f"--{name.lstrip('-')}"
            out.setdefault(name, []).extend([value] if equals else [])
        elif name:
            out[name].append(arg)
    return out


def contents(folders: list[str]) -> dict[str, bytes]:
    """The files' contents by path; unreadable files are left out."""
    out = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("*")):
            try:
                out[str(path)] = path.read_bytes()
            except OSError:
                continue
    return out


async def serve(args: list[str]) -> None:
    """Run until cancelled. Raises ValueError if the arguments name nothing to do."""
    given = options(args)
    folders = [v for n in FOLDERS for v in given.get(n, [])]
    urls = [v for n in ADDRESSES for v in given.get(n, [])]
    if not folders or not urls:
        raise ValueError(f"name the folder ({FOLDERS[0]}) and the URL to call ({ADDRESSES[0]})")
    listen = next((v for n in LISTEN for v in given.get(n, [])), ":8080")
    app = web.Application()
    app.add_routes([web.get("/healthz", _healthy)])
    runner = servers.runner(app)
    await runner.setup()
    await web.TCPSite(runner, None, int(listen.rpartition(":")[2])).start()
    known = contents(folders)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        while True:
            await asyncio.sleep(LOOK_S)
            now = contents(folders)
            if now != known and await _asked(session, urls):
                known = now


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="OK")


async def _asked(session: aiohttp.ClientSession, urls: list[str]) -> bool:
    """Whether all requests succeeded."""
    for url in urls:
        try:
            async with session.post(url) as answer:
                if answer.status >= 300:
                    raise aiohttp.ClientError(f"HTTP {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as e:
            log.warning("%s: %s", url, str(e) or "timeout")
            return False
        log.info("asked %s to reload its configuration", url)
    return True
