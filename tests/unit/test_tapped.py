"""Who looks at bodies: each command has an annotation of its own, which has no effect when it is not renewed."""

import asyncio

import pytest
from apiserver import Cluster

from lateen.api import kinds
from lateen.api.annotations import TAP_BODIES
from lateen.cli.live import bodies
from lateen.cluster.apiserver.direct import DirectClient
from lateen.control.inventory import Inventory
from lateen.control.tapped import MARK, Tapped
from lateen.kit import times
from lateen.kit.jsons import dig

KEY = ("default", "web-0")
ONE, TWO = f"{TAP_BODIES}.one", f"{TAP_BODIES}.two"


def pod(**annotations):
    meta = {"name": "web-0", "namespace": "default", "annotations": annotations}
    spec = {"containers": [{"name": "app", "image": "app"}], "nodeName": "n"}
    return {"metadata": meta, "spec": spec, "status": {"podIP": "10.244.0.9", "phase": "Running"}}


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def inventory(now):
    made = Inventory("cluster.local")
    made._tapped = Tapped(lambda: now[0])
    return made


def tapped(inventory):
    return MARK in inventory.of(kinds.POD)[KEY].notes


def test_an_annotation_whose_command_was_killed_has_no_effect_after_a_minute(inventory, now):
    assert inventory.take(kinds.POD, KEY, pod(**{ONE: "1"}))
    assert tapped(inventory)
    now[0] = 50
    assert not inventory.take(kinds.POD, KEY, pod(**{ONE: "1"})), "not renewed: the same pod"
    assert not inventory.end_taps()
    now[0] = 70
    assert inventory.end_taps()
    assert not tapped(inventory)
    assert not inventory.end_taps(), "once"
    inventory.take(kinds.POD, KEY, pod(**{ONE: "1"}, other="x"))
    assert not tapped(inventory), "other changes of the pod do not renew it"


def test_a_renewal_changes_nothing_for_the_mesh_and_keeps_the_filter(inventory, now):
    inventory.take(kinds.POD, KEY, pod(**{ONE: "1"}))
    for i in range(2, 10):
        now[0] += 20
        assert not inventory.take(kinds.POD, KEY, pod(**{ONE: str(i)}))
        assert not inventory.end_taps()
    assert tapped(inventory)


def test_the_first_command_to_end_does_not_take_the_filter_from_the_other(inventory):
    inventory.take(kinds.POD, KEY, pod(**{ONE: "1"}))
    inventory.take(kinds.POD, KEY, pod(**{ONE: "1", TWO: "1"}))
    inventory.take(kinds.POD, KEY, pod(**{TWO: "1"}))
    assert tapped(inventory)
    inventory.take(kinds.POD, KEY, pod())
    assert not tapped(inventory)
    inventory.take(kinds.POD, KEY, None)
    assert not inventory.end_taps()


def test_commands_have_their_own_annotations_renew_them_and_remove_only_those():
    client = DirectClient(Cluster().api, "somebody")

    async def values():
        found = dig(await client.get(kinds.POD, *KEY), "metadata", "annotations", default={})
        return {k: v for k, v in found.items() if k.startswith(TAP_BODIES)}

    async def work():
        long_ago = times.stamp_micro(times.parse("2020-01-01T00:00:00Z"))
        seen = await client.create(kinds.POD, pod(**{TAP_BODIES: "true", ONE: long_ago, TWO: times.stamp_micro()}))
        async with bodies.shown(client, [seen], 0.01):
            first = await values()
            assert TWO in first
            assert len(first) == 2, "what killed commands have left is gone"
            async with bodies.shown(client, [seen], 0.01):
                assert len(await values()) == 3
            async with asyncio.timeout(5):
                while (await values()) == first:
                    await asyncio.sleep(0.01)
            assert (await values()).keys() == first.keys()
        assert (await values()).keys() == {TWO}

    asyncio.run(work())
