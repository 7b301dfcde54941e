"""Turns: one tenant does not keep all others waiting."""

import asyncio

import pytest

from lateen.control.turns import Turns
from lateen.kit import tasks


async def begun(turns, started, group, name, end):
    async with turns.turn(group):
        started.append(name)
        await end.wait()


def test_one_group_leaves_room_for_others_and_those_with_little_at_work_are_next():
    async def work():
        turns, started, ends = Turns(most=4, each=2), [], {}

        async def begin(group, n):
            for i in range(n):
                ends[f"{group}{i}"] = asyncio.Event()
                made.append(tasks.spawn(begun(turns, started, group, f"{group}{i}", ends[f"{group}{i}"]), "a turn"))
            await asyncio.sleep(0.01)

        made = []
        await begin("a", 10)
        assert started == ["a0", "a1"]
        await begin("b", 3)
        assert started == ["a0", "a1", "b0", "b1"]
        await begin("c", 1)
        assert len(started) == 4
        ends["b0"].set()
        await asyncio.sleep(0.01)
        assert started[4:] == ["c0"], "before the third one of b, and before those of a that have waited longer"
        for end in ends.values():
            end.set()
        await asyncio.gather(*made)
        assert len(started) == 14

    asyncio.run(work())


@pytest.mark.parametrize("late", [False, True])
def test_who_is_cancelled_takes_nobodys_turn(late):
    async def work():
        turns, started, end = Turns(most=1, each=1), [], asyncio.Event()
        first = tasks.spawn(begun(turns, started, "a", "first", end), "a turn")
        await asyncio.sleep(0)
        waits = tasks.spawn(begun(turns, started, "a", "waits", end), "a turn")
        last = tasks.spawn(begun(turns, started, "b", "last", end), "a turn")
        await asyncio.sleep(0.01)
        if late:  # its turn has come, and it has not noticed yet
            first.cancel()
            await asyncio.sleep(0)
        waits.cancel()
        end.set()
        await asyncio.wait_for(asyncio.gather(first, waits, last, return_exceptions=True), 5)
        assert "last" in started
        assert "waits" not in started
        async with asyncio.timeout(5), turns.turn("c"):
            pass

    asyncio.run(work())
