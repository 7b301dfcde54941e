"""The push loop: changes of the mesh reach the proxies, even after a state of the mesh that cannot be translated."""

import asyncio
from dataclasses import replace

import pytest
from meshes import objects

from lateen.api import kinds
from lateen.api import objects as o
from lateen.control.plane import Control
from lateen.kit import tasks
from lateen.wire.revision import Revision

KEY = ("default", "one")
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one, namespace: default}
spec:
  hosts: [one]
  http: [{route: [{destination: {host: %s}}]}]
"""


class Proxies:
    """Stands for the ADS server: records the mesh at each push."""

    connections = ()

    def __init__(self, mesh):
        self._mesh = mesh
        self.pushed = asyncio.Queue()
        self.broken = False

    async def push(self, _changed_at):
        if self.broken:
            raise RuntimeError("this state cannot be translated")
        self.pushed.put_nowait(self._mesh().instant)


class EmptyCluster:
    """An API server without objects, in which nothing happens."""

    async def list(self, *_, **__):
        return [], "1"

    async def watch(self, *_):
        await asyncio.Event().wait()
        yield


class Istiod:
    def __init__(self):
        self.control = Control(EmptyCluster(), "istio-system", Revision())
        self.control.ads = self.proxies = Proxies(self.control.mesh)

    async def __aenter__(self):
        self._loop = tasks.spawn(self.control.push_loop(), "push")
        return self

    async def __aexit__(self, *_):
        self._loop.cancel()
        await asyncio.wait([self._loop])
        assert self._loop.cancelled(), self._loop.exception()

    def set(self, found):
        self.control.world.objects = found
        self.control._dirty.set()

    async def pushed(self):
        async with asyncio.timeout(10):
            return await self.proxies.pushed.get()

    async def failed(self, caplog):
        async with asyncio.timeout(10):
            while "not pushed" not in caplog.text:
                await asyncio.sleep(0.01)


def unreadable(found):
    """A state that no mesh can be built from: an object without a spec has got past decoding."""
    vs = found.virtual_services[KEY]
    return found.put(kinds.VIRTUAL_SERVICE, KEY, replace(vs, version="2", spec=None))


def test_a_state_that_breaks_the_mesh_is_skipped_and_the_next_one_is_pushed(caplog):
    first = objects(ROUTE % "reviews")
    last = first.put(kinds.VIRTUAL_SERVICE, KEY, replace(first.virtual_services[KEY], version="3"))

    async def work():
        async with Istiod() as istiod:
            istiod.set(first)
            assert await istiod.pushed() is first
            istiod.set(unreadable(first))
            await istiod.failed(caplog)
            assert istiod.control.mesh().instant is first
            assert istiod.proxies.pushed.empty()
            istiod.set(last)
            assert await istiod.pushed() is last

    asyncio.run(work())


def test_a_state_that_cannot_be_pushed_does_not_end_pushing(caplog):
    first = objects(ROUTE % "reviews")
    last = first.put(kinds.VIRTUAL_SERVICE, KEY, None)

    async def work():
        async with Istiod() as istiod:
            istiod.proxies.broken = True
            istiod.set(first)
            await istiod.failed(caplog)
            istiod.proxies.broken = False
            istiod.set(last)
            assert await istiod.pushed() is last

    asyncio.run(work())


def test_the_webhook_uses_the_last_mesh_that_could_be_built(caplog):
    control = Control(EmptyCluster(), "istio-system", Revision())
    first = objects(ROUTE % "reviews")
    control.world.objects = first
    assert control.newest().instant is first
    control.world.objects = unreadable(first)
    assert control.newest().instant is first
    assert "stays as it was" in caplog.text
    control.world.objects = first.put(kinds.VIRTUAL_SERVICE, KEY, None)
    assert control.newest().instant is control.world.objects


@pytest.mark.parametrize("arrives", [True, False])
def test_a_rule_waits_briefly_for_a_missing_destination(arrives):
    """Both are pushed at once if the host comes in time; the rule alone if it does not come."""
    empty = objects("")
    rule = objects(ROUTE % "late")
    late = o.Service("default", "late", "10.96.0.9", (o.ServicePort("http", 80, 80, "TCP"),))
    both = rule.put(kinds.SERVICE, ("default", "late"), late)

    async def work():
        async with Istiod() as istiod:
            istiod.set(empty)
            assert await istiod.pushed() is empty
            istiod.set(rule)
            while istiod.control.mesh().instant is not rule:
                await asyncio.sleep(0)
            if arrives:
                istiod.set(both)
            assert await istiod.pushed() is (both if arrives else rule)

    asyncio.run(work())
