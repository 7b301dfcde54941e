"""The console's question to istiod for the configuration of a proxy."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lateen.console import envoy


def test_a_configuration_without_end_is_not_read_to_it(tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("t")
    monkeypatch.setattr(envoy, "MAX_DUMP", 3 << 20)

    async def dump(_):
        return web.Response(body=b'{"a": "%s"}' % (b"x" * (4 << 20)))

    async def run():
        app = web.Application()
        app.add_routes([web.get("/debug/config_dump", dump)])
        async with TestServer(app) as server:
            monkeypatch.setenv("ISTIOD_URL", f"http://127.0.0.1:{server.port}")
            monkeypatch.setenv("ISTIOD_TOKEN", str(token))
            with pytest.raises(web.HTTPBadGateway) as found:
                await envoy.Istiod().dump("web.shop")
        assert found.value.text == "the configuration of web.shop has more than 3 MB; read it with lateen proxy-config"

    asyncio.run(run())
