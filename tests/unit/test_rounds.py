"""Tasks that wait for their turn go on in groups, in order, and nobody is left behind."""

from __future__ import annotations

import asyncio

from lateen.kit import tasks
from lateen.kit.rounds import Rounds


async def _all(rounds: Rounds, names: str) -> list[str]:
    out: list[str] = []

    async def one(name: str) -> None:
        await rounds.turn()
        out.append(name)
        await asyncio.sleep(0)  # the others of the group come first
        out.append(name.upper())

    await asyncio.gather(*(one(n) for n in names))
    return out


def test_a_group_goes_on_at_the_same_moment_and_in_order() -> None:
    assert asyncio.run(_all(Rounds(0.001, 3), "abcde")) == list("abcABCdeDE")


def test_the_next_ones_are_served_after_everybody_has_gone() -> None:
    async def twice() -> list[str]:
        rounds = Rounds(0.001)
        return await _all(rounds, "ab") + await _all(rounds, "c")

    assert asyncio.run(twice()) == list("abABcC")


def test_whoever_is_cancelled_takes_nobodys_turn() -> None:
    async def run() -> str:
        rounds = Rounds(0.001, 1)
        first, second = (tasks.spawn(rounds.turn(), n) for n in ("first", "second"))
        await asyncio.sleep(0)
        assert len(rounds) == 2
        first.cancel()
        await second
        return second.get_name()

    assert asyncio.run(run()) == "second"
