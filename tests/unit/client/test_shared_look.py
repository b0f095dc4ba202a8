"""A hundred subscriptions of a client ask about the leader as one."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.client import shared_look
from holdfast.client.shared_look import SharedLook


class Broker:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.may_answer = asyncio.Event()
        self.answer = False

    async def look(self, than: int) -> bool:
        self.asked.append(than)
        await self.may_answer.wait()
        return self.answer


async def test_those_who_ask_together_are_answered_by_one_look() -> None:
    broker = Broker()
    looks = SharedLook(broker.look)
    asking = [asyncio.create_task(looks.shared(3)) for _ in range(100)]
    await asyncio.sleep(0)
    asking[0].cancel()  # it asked first; the others still wait
    broker.answer = True
    broker.may_answer.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [True] * 99
    assert broker.asked == [3]


async def test_what_was_seen_is_used_while_it_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    broker.may_answer.set()
    looks = SharedLook(broker.look)
    assert not await looks.shared(3)
    broker.answer = True
    assert not await looks.shared(3)
    assert await looks.shared(4)  # another question
    monkeypatch.setattr(shared_look, "FRESH_SECONDS", 0.0)
    assert await looks.shared(3)
    assert broker.asked == [3, 4, 3]


async def test_it_ends_with_its_client() -> None:
    broker = Broker()
    looks = SharedLook(broker.look)
    asking = asyncio.create_task(looks.shared(3))
    await asyncio.sleep(0)
    await looks.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
