"""An informer goes on, whatever the API answers."""

import asyncio
import ssl

import pytest
from aiohttp import web

from lateen.api import kinds
from lateen.kit import tasks
from lateen.kube.auth import Fixed
from lateen.kube.client import HttpClient, KubeError
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
    assert "it is not a Kubernetes API" in before
    assert after == ""


def test_a_token_that_is_no_header_is_a_problem_that_does_not_quote_it():
    found, before, after = run([], token="se\ncret", then_token="good")
    assert found == [("", "one")]
    assert "ValueError" in before
    assert "cret" not in before
    assert after == ""


class Lists:
    """An API whose watches are too old at once, so that each state is a list."""

    def __init__(self, *states):
        self._left = list(states)

    async def list(self, *_):
        return (self._left.pop(0) if len(self._left) > 1 else self._left[0]), "1"

    async def watch(self, *_):
        raise KubeError(410, "Expired", "too old")
        yield


def test_an_object_that_was_replaced_while_nobody_watched_has_ended(monkeypatch):
    """The kubelet stops a pod at its end, whatever pod has its name then."""
    monkeypatch.setattr("lateen.kube.informer.FIRST_WAIT_S", 0.01)

    def pod(uid, version):
        return {"metadata": {"name": "web-0", "namespace": "default", "uid": uid, "resourceVersion": version}}

    heard = []

    def changed(_, __, old, new):
        heard.append(tuple(o and o["metadata"]["uid"] for o in (old, new)))

    async def work():
        client = Lists([pod("a", "1")], [pod("a", "2")], [pod("b", "3")], [])
        task = tasks.spawn(Informer(client, kinds.POD, changed).run(), "informer")
        async with asyncio.timeout(10):
            while ("b", None) not in heard:
                await asyncio.sleep(0.01)
        await tasks.cancel(task)

    asyncio.run(work())
    assert heard == [(None, "a"), ("a", "a"), ("a", None), (None, "b"), ("b", None)]
