"""What all servers on aiohttp do with what nobody asked for."""

import asyncio
import gzip
import logging
import re
from pathlib import Path

import pytest
from aiohttp import web

import lateen
from lateen.kit import servers

SOURCES = Path(lateen.__file__).parent


def ask(*parts):
    """The server's answer to each of ``parts``, sent one after the other on a connection; the bodies it was given."""
    taken = []

    async def take(request):
        taken.append(await request.read())
        return web.Response(text="taken")

    async def both():
        app = web.Application()
        app.add_routes([web.post("/take", take)])
        runner = servers.runner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            reader, writer = await asyncio.open_connection(*runner.addresses[0])
            writer.write(b"".join(parts))
            answer = await asyncio.wait_for(reader.read(4096), 10)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 10)
            writer.close()
        finally:
            await runner.cleanup()
        return answer

    return asyncio.run(both()), taken


def head(path, *lines):
    return "\r\n".join((f"POST {path} HTTP/1.1", "host: a", *lines, "", "")).encode()


def test_bodies_are_not_unpacked():
    body = gzip.compress(bytes(1_000_000))
    answer, taken = ask(head("/take", "content-encoding: gzip", f"content-length: {len(body)}"), body)
    assert answer.startswith(b"HTTP/1.1 200")
    assert taken == [body]


def test_what_is_no_http_leaves_no_traceback_in_the_log(caplog):
    with caplog.at_level(logging.DEBUG, "aiohttp.server"):
        answer, _ = ask(head("/nowhere", "connection: upgrade", "upgrade: websocket"), b"\x01\x02 junk \r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404")
    assert not [r for r in caplog.records if r.exc_info]


def test_a_failure_of_the_server_is_in_the_log(caplog):
    record = logging.LogRecord("aiohttp.server", logging.ERROR, "", 0, "", (), (ValueError, ValueError("a bug"), None))
    servers.runner(web.Application())
    assert logging.getLogger("aiohttp.server").filter(record)


@pytest.mark.parametrize("made", [r"web\.AppRunner\(", r"web\.Server\(", r"run_app\("])
def test_all_servers_are_set_up_so(made):
    found = [p.relative_to(SOURCES).as_posix() for p in SOURCES.rglob("*.py") if re.search(made, p.read_text())]
    assert set(found) <= {"kit/servers.py"}
