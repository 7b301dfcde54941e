"""Agents that wait for the names of ServiceEntries: what a caller's requests cost, however many it sends."""

import asyncio
import itertools

import meshes as mesh
from aiohttp import web
from certificate_service import ME, World

from lateen.control import agents, serving
from lateen.control.agents import Agents
from lateen.kit import tasks
from lateen.mesh.model import Mesh
from lateen.mesh.views import Views

ENTRY = """
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [outside.test]
  addresses: [10.9.9.9]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: NONE
"""


def served(world, views, work):
    """What ``work`` returns, of a function that asks for names as somebody, knowing a version."""

    async def run():
        certificate = serving.Certificate(world.authority, ["localhost"], ME)
        made = Agents(world.service, lambda _: views, None)
        runner = await serving.http([web.post("/names", made.names)], 0, certificate.asking, "127.0.0.1")
        world.port = runner.addresses[0][1]

        def asks(token, version=None):
            return world.ask(token, {"version": version, "families": "4"}, "/names")

        try:
            return await work(made, asks)
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def test_one_caller_has_few_requests_waiting_and_others_are_not_held_up():
    world, views = World(), Views(Mesh(mesh.objects(ENTRY)))

    async def work(made, asks):
        status, first = await asks(world.of_web)
        assert (status, first["names"]) == (200, {"outside.test": ["10.9.9.9"]})
        mine = [tasks.spawn(asks(world.of_web, first["version"]), "asks") for _ in range(agents.MOST_WAITING + 5)]
        refused = [await task for task in itertools.islice(asyncio.as_completed(mine), 5)]
        other = tasks.spawn(asks(world.of_machine, first["version"]), "asks")
        while sum(made._waiting.values()) <= agents.MOST_WAITING:
            await asyncio.sleep(0.01)
        views.advance(mesh.objects(ENTRY.replace("10.9.9.9", "10.9.9.8")))
        made.changed()
        answers = await asyncio.gather(*mine, other)
        assert made._waiting == {}
        return [code for code, _ in refused], [code for code, _ in answers]

    refused, answers = served(world, views, work)
    assert refused == [429] * 5
    assert sorted(answers) == [200] * (agents.MOST_WAITING + 1) + [429] * 5
    assert answers[-1] == 200


def test_names_are_worked_out_once_for_all_who_wait():
    views = Views(Mesh(mesh.objects(ENTRY)))
    first = views.versioned_names("default", "4", False)
    assert views.versioned_names("default", "4", False) is first
    views.advance(mesh.objects(ENTRY.replace("10.9.9.9", "10.9.9.8")))
    version, found = views.versioned_names("default", "4", False)
    assert version != first[0]
    assert found == {"outside.test": ["10.9.9.8"]}
