"""What the client asks of brokers about groups, page by page, and what repeated calls mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest
from google.protobuf.message import Message

from holdfast.client.connection import Tries
from holdfast.client.group_calls import GroupCalls
from holdfast.errors import HoldfastError, InvalidArgumentError, UnknownGroupError
from holdfast.v1 import groups_pb2


class Asked(GroupCalls):
    """Answers calls one after the other; keeps what was asked."""

    def __init__(self, answers: Iterable[Message | HoldfastError], *, uncertain: bool = False) -> None:
        self.answers = deque(answers)
        self.requests: list[Any] = []
        self.uncertain = uncertain

    @property
    def _connected(self) -> Any:
        return self

    async def call(
        self, method: object, request: Message, timeout: float | None, tries: Tries | None = None
    ) -> Message:
        copy = type(request)()
        copy.CopyFrom(request)
        self.requests.append(copy)
        if tries is not None:
            tries.uncertain = self.uncertain
        answer = self.answers.popleft()
        if isinstance(answer, HoldfastError):
            raise answer
        return answer


def page(first: int, count: int, *, more: bool) -> groups_pb2.ListRetriesResponse:
    answer = groups_pb2.ListRetriesResponse()
    for offset in range(first, first + count):
        answer.retries.add(place=groups_pb2.RetryPlace(topic="t", offset=offset))
    if more:
        answer.next.topic, answer.next.offset = "t", first + count
    return answer


async def test_a_deletion_that_may_have_been_done_is_done() -> None:
    gone = UnknownGroupError("no group")
    with pytest.raises(UnknownGroupError):
        await Asked([gone]).delete_group("g")
    await Asked([gone], uncertain=True).delete_group("g")


async def test_records_that_wait_come_by_pages() -> None:
    # A page may hold fewer than asked for, or none, and not be the last one.
    bus = Asked([page(0, 1000, more=True), page(1000, 0, more=True), page(1000, 3, more=False)])
    assert [record.offset for record in await bus.retries("g", parked=True)] == list(range(1003))
    assert [(r.limit, r.parked_only, r.after.offset) for r in bus.requests] == [
        (1000, True, 0),
        (1000, True, 1000),
        (1000, True, 1000),
    ]
    bus = Asked([page(0, 1000, more=True), page(1000, 500, more=True)])
    assert len(await bus.retries("g", limit=1500)) == 1500
    assert [r.limit for r in bus.requests] == [1000, 500]
    assert await Asked([]).retries("g", limit=0) == []


async def test_records_are_restored_by_pages() -> None:
    answers = [groups_pb2.RestoreResponse(records=n) for n in (1000, 998, 5)]
    bus = Asked(answers)
    assert await bus.restore("g", (("t", 0, n) for n in range(2003)), discard=True) == 2003
    assert [len(r.places) for r in bus.requests] == [1000, 1000, 3]
    assert all(r.discard for r in bus.requests)
    bus = Asked([groups_pb2.RestoreResponse(records=7)])
    assert await bus.restore("g") == 7
    assert not bus.requests[0].places, "none: all that are parked"
    assert await Asked([]).restore("g", []) == 0, "no records are not all records"


async def test_where_to_is_checked_before_anybody_is_asked() -> None:
    for to, partitions, field in (("soon", (), "to"), (5, (-1,), "partitions"), ({0: -1}, (), "to")):
        with pytest.raises(InvalidArgumentError) as caught:
            await Asked([]).seek_group("g", "t", to, partitions=partitions)  # type: ignore[arg-type]
        assert caught.value.metadata["field"] == field
