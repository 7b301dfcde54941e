"""What agents ask istiod for, besides certificates: what their requests cost, however many they send, and whose
configuration they get."""

import asyncio
import itertools
from dataclasses import replace

import meshes as mesh
from aiohttp import web
from certificate_service import ME, World

from lateen.api import kinds
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
    """What ``work`` returns, of functions that ask for names as somebody who knows a version, and for a bootstrap."""

    async def run():
        certificate = serving.Certificate(world.authority, ["localhost"], ME)
        made = Agents(world.service, lambda _: views, None)
        routes = [web.post("/names", made.names), web.post("/bootstrap", made.bootstrap)]
        runner = await serving.http(routes, 0, certificate.asking, "127.0.0.1")
        world.port = runner.addresses[0][1]

        def asks(token, version=None):
            return world.ask(token, {"version": version, "families": "4"}, "/names")

        def boots(pod):
            node = {"id": f"sidecar~10.0.0.1~{pod}.default~d", "metadata": {}}
            body = {"node": node["id"], "bootstrap": {"node": node}}
            return world.ask(world.of_web, body, "/bootstrap")

        try:
            return await work(made, asks, boots)
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def test_one_caller_has_few_requests_waiting_and_others_are_not_held_up():
    world, views = World(), Views(Mesh(mesh.objects(ENTRY)))

    async def work(made, asks, _):
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


PATCH = """
kind: EnvoyFilter
metadata: {name: patch}
spec:
  configPatches:
  - applyTo: BOOTSTRAP
    patch: {operation: MERGE, value: {flags_path: /secret}}
"""


def test_the_patches_of_a_bootstrap_are_for_the_pods_account():
    world, found = World(), mesh.objects(PATCH)
    own = replace(found.pods["default", "ratings-v1"], name="web", service_account="default")
    views = Views(Mesh(found.put(kinds.POD, ("default", "web"), own)))

    async def work(_, __, boots):
        return [(await boots(pod))[1]["bootstrap"] for pod in ("web", "ratings-v1", "nobody")]

    mine, anothers, nobodys = served(world, views, work)
    assert mine["flags_path"] == "/secret"
    assert anothers is nobodys is None
