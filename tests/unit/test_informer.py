"""An informer goes on, whatever the API answers."""

import asyncio
import ssl

import pytest
from aiohttp import web

from lateen.api import kinds
from lateen.kit import tasks
from lateen.kube.auth import Fixed
from lateen.kube.client import HttpClient
from lateen.kube.informer import Informer

LIST = {"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "one", "resourceVersion": "1"}}]}


def run(answers, *, token="", then_token=""):
    """What is read with these first answers to lists, then a proper one; and what was wrong until then."""

    async def work():
        left = list(answers)

        async def namespaces(request):
            if request.query.get("watch"):
                await asyncio.sleep(0.1)
                return web.Response()
            return left.pop(0)() if left else web.json_response(LIST)

        app = web.Application()
        app.router.add_get("/api/v1/namespaces", namespaces)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = HttpClient(f"http://127.0.0.1:{runner.addresses[0][1]}", ssl.create_default_context(), Fixed(token))
        informer = Informer(client, kinds.NAMESPACE)
        task = tasks.spawn(informer.run(), "informer")
        try:
            async with asyncio.timeout(10):
                while not informer.problem:
                    await asyncio.sleep(0.01)
                problem = informer.problem
                client.auth = Fixed(then_token)
                await informer.synced.wait()
            return list(informer.objects), problem, informer.problem
        finally:
            await tasks.cancel(task)
            await client.close()
            await runner.cleanup()

    return asyncio.run(work())


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="<html>log in</html>", content_type="text/html"),
        lambda: web.Response(text="{", content_type="application/json"),
        lambda: web.json_response([]),
    ],
)
def test_an_answer_that_is_no_list_is_a_problem_and_is_asked_again(answer):
    found, before, after = run([answer])
    assert found == [("", "one")]
    assert before.startswith("namespaces: ")
    assert after == ""


def test_a_token_that_is_no_header_is_a_problem_that_does_not_quote_it():
    found, before, after = run([], token="se\ncret", then_token="good")
    assert found == [("", "one")]
    assert "ValueError" in before
    assert "cret" not in before
    assert after == ""
