"""Transactions of the SDK against a connection that answers as told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest

from holdfast.client.backoff import Backoff
from holdfast.client.connection import Tries
from holdfast.client.transaction import MAX_BYTES, Transaction, runs_of
from holdfast.client.types import Record
from holdfast.errors import (
    AlreadySettledError,
    FailedPreconditionError,
    FencedError,
    HoldfastError,
    InvalidArgumentError,
    LeaseExpiredError,
    NoLeaderError,
    NotDeliveredError,
    OutcomeUnknownError,
    TransactionRefusedError,
    TransactionTooLargeError,
    UnknownTopicError,
)
from holdfast.v1 import bus_pb2

ID = bytes(range(16))


class Scripted:
    """A connection: each call takes the next answer; an error with ``uncertain`` set may have done it."""

    def __init__(self, *answers: bus_pb2.TransactResponse | HoldfastError) -> None:
        self.answers = deque(answers)
        self.requests: list[bus_pb2.TransactRequest] = []
        self.before: deque[Any] = deque()

    def backoff(self) -> Backoff:
        return Backoff(jitter=lambda: 0.0)

    async def call(self, method: Any, request: Any, timeout: float, tries: Tries) -> Any:
        kept = bus_pb2.TransactRequest()
        kept.CopyFrom(request)
        self.requests.append(kept)
        if self.before:
            self.before.popleft()()
        answer = self.answers.popleft()
        if isinstance(answer, HoldfastError):
            tries.uncertain = tries.uncertain or isinstance(answer, OutcomeUnknownError)
            raise answer
        return answer


class Reader:
    """A consumer without leases."""

    def __init__(self, group: str = "g") -> None:
        self.group = group
        self.fences = {("t", 0): 7}
        self.settled: list[Record] = []

    def ack(self, record: Record) -> Any:
        raise AssertionError("nobody acks")

    def fence(self, topic: str, partition: int) -> int:
        return self.fences.get((topic, partition), 0)

    def consumed(self, records: Iterable[Record]) -> None:
        self.settled += records


class Member:
    """A consumer whose records are leased to it."""

    def __init__(self) -> None:
        self.group = "g"
        self.session = "s1"
        self.slot = 1
        self.leases: dict[int, int] = {}
        self.settled: list[Record] = []

    def ack(self, record: Record) -> Any:
        raise AssertionError("nobody acks")

    def lease(self, record: Record) -> tuple[int, int] | None:
        lease = self.leases.get(record.offset)
        return None if lease is None else (self.slot, lease)

    def consumed(self, records: Iterable[Record]) -> None:
        self.settled += records

    def moved(self, session: str, slot: int, leases: dict[int, int]) -> None:
        self.session, self.slot, self.leases = session, slot, leases


def record(source: Any, offset: int, partition: int = 0) -> Record:
    return Record("t", partition, offset, None, b"v", 1, 1, (), source)


def begin(connection: Scripted, timeout: float = 30.0) -> Transaction:
    return Transaction(connection, ID, lambda: None, lambda: 5, timeout)  # type: ignore[arg-type]


def answer(**topics: list[tuple[int, int, bool]]) -> bus_pb2.TransactResponse:
    response = bus_pb2.TransactResponse()
    for name, places in topics.items():
        added = response.appends.add(topic=name)
        for partition, offset, duplicate in places:
            added.positions.add(partition=partition, offset=offset, duplicate=duplicate)
    return response


async def test_what_is_sent_and_what_comes_back() -> None:
    reader = Reader()
    connection = Scripted(answer(a=[(1, 10, False), (0, 3, True)], b=[(0, 0, False)]))
    async with begin(connection) as tx:
        tx.publish("a", b"1", key="k", headers={"h": "x"}, timestamp=9)
        tx.publish("b", b"2")
        tx.publish("a", b"3", idempotency_key="once")
        tx.consume(record(reader, 5))
        tx.consume(record(reader, 7))
        tx.consume(record(reader, 5))
        tx.consume(record(reader, 2, partition=1))
        with pytest.raises(FailedPreconditionError, match="not committed"):
            _ = tx.result
        assert not connection.requests, "nothing is sent before the end of the block"
    assert [(ack.topic, ack.partition, ack.offset) for ack in tx.result.acks] == [
        ("a", 1, 10),
        ("b", 0, 0),
        ("a", 0, 3),
    ]
    assert [ack.duplicate for ack in tx.result.acks] == [False, False, True]
    (request,) = connection.requests
    assert request.transaction_id == ID
    assert [item.topic for item in request.appends] == ["a", "b"]
    first, second = request.appends[0].records
    assert (first.key, first.value, first.timestamp_us, first.headers[0].value) == (b"k", b"1", 9, b"x")
    assert (second.key, second.timestamp_us) == (b"", 5)
    assert list(request.appends[0].idempotency_keys) == [b"", b"once"]
    assert not request.appends[1].idempotency_keys
    (consumed,) = request.consume
    assert (consumed.group, consumed.session) == ("g", "")
    assert [(p.topic, p.partition, p.fence, p.base, list(p.runs)) for p in consumed.places] == [
        ("t", 0, 7, 5, [0, 1, 1, 1]),
        ("t", 1, 0, 2, [0, 1]),
    ]
    assert [each.offset for each in reader.settled] == [5, 7, 2]


async def test_an_exception_does_nothing() -> None:
    connection = Scripted()
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012
        async with begin(connection) as tx:
            tx.publish("a", b"1")
            raise ValueError("mine")
    assert not connection.requests
    with pytest.raises(FailedPreconditionError, match="over"):
        tx.publish("a", b"2")


async def test_an_empty_transaction_asks_nobody() -> None:
    async with begin(Scripted()) as tx:
        pass
    assert tx.result.acks == ()


async def test_the_same_transaction_is_tried_again() -> None:
    connection = Scripted(
        OutcomeUnknownError("?", retry_after_ms=1),
        NoLeaderError("?", retry_after_ms=1),
        answer(a=[(0, 1, False)]),
    )
    async with begin(connection) as tx:
        tx.publish("a", b"1")
    assert len(connection.requests) == 3
    assert connection.requests[0] == connection.requests[1] == connection.requests[2]
    assert tx.result.acks[0].offset == 1


@pytest.mark.parametrize("cause", [AlreadySettledError, FencedError, LeaseExpiredError, NotDeliveredError])
async def test_refused(cause: type[HoldfastError]) -> None:
    reader = Reader()
    connection = Scripted(cause("somebody else", metadata={"offset": "5"}))
    with pytest.raises(TransactionRefusedError) as caught:
        async with begin(connection) as tx:
            tx.consume(record(reader, 5))
    assert caught.value.metadata == {"offset": "5", "refused": cause.reason}
    assert isinstance(caught.value.__cause__, cause)
    assert not reader.settled
    with pytest.raises(FailedPreconditionError, match="not committed"):
        _ = tx.result


async def test_other_refusals_come_as_they_are() -> None:
    connection = Scripted(UnknownTopicError("no topic"))
    with pytest.raises(UnknownTopicError):
        async with begin(connection) as tx:
            tx.publish("a", b"1")


async def test_time_that_is_over_leaves_it_open_only_when_it_may_have_been_done() -> None:
    for errors, kind in (
        ((NoLeaderError("?"),), NoLeaderError),
        ((OutcomeUnknownError("?"),), OutcomeUnknownError),
    ):
        with pytest.raises(kind):
            async with begin(Scripted(*errors), timeout=0.001) as tx:
                tx.publish("a", b"1")


async def test_a_member_names_its_leases_anew_after_a_change_of_leader() -> None:
    member = Member()
    member.leases = {5: 2, 6: 2, 9: 3}
    connection = Scripted(
        OutcomeUnknownError("leader died", retry_after_ms=1),
        NotDeliveredError("no session"),
        answer(),
    )

    def break_stream() -> None:
        member.moved("", 0, {})
        asyncio.get_running_loop().call_later(0.06, member.moved, "s2", 4, {5: 0, 6: 0, 9: 0})

    connection.before.extend((lambda: None, break_stream, lambda: None))
    async with begin(connection) as tx:
        for offset in (9, 5, 6):
            tx.consume(record(member, offset))
    named = [
        [(item.slot, item.lease, item.base, list(item.runs)) for item in request.consume[0].offsets]
        for request in connection.requests
    ]
    assert named == [[(1, 2, 5, [0, 2]), (1, 3, 9, [0, 1])]] * 2 + [[(4, 0, 5, [0, 2, 2, 1])]]
    assert [request.consume[0].session for request in connection.requests] == ["s1", "s1", "s2"]
    assert [each.offset for each in member.settled] == [9, 5, 6]


async def test_a_session_that_stays_unknown_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.client.transaction._NOTICE_SECONDS", 0.1)
    member = Member()
    member.leases = {5: 2}
    connection = Scripted(*[NotDeliveredError("no session")] * 50)
    with pytest.raises(TransactionRefusedError):
        async with begin(connection) as tx:
            tx.consume(record(member, 5))
    assert len(connection.requests) > 1


async def test_a_record_that_is_lost_at_once_is_refused_without_a_call() -> None:
    member = Member()
    with pytest.raises(TransactionRefusedError):
        async with begin(Scripted()) as tx:
            tx.consume(record(member, 5))


async def test_a_lost_record_is_asked_for_under_its_old_name_when_it_may_have_been_done() -> None:
    """The first try did it, so nothing is leased to the member any more: only the broker can say so."""
    member = Member()
    member.leases = {5: 2}
    connection = Scripted(OutcomeUnknownError("?", retry_after_ms=1), answer())
    connection.before.append(lambda: member.moved("s2", 4, {}))
    async with begin(connection) as tx:
        tx.consume(record(member, 5))
    assert connection.requests[0].consume == connection.requests[1].consume
    assert [each.offset for each in member.settled] == [5]


async def test_bad_arguments() -> None:
    tx = begin(Scripted())
    for work in (
        lambda: tx.publish("", b"v"),
        lambda: tx.publish("a", "text"),  # type: ignore[arg-type]
        lambda: tx.publish("a", b"v", key=5),  # type: ignore[arg-type]
        lambda: tx.publish("a", b"v", idempotency_key=""),
        lambda: tx.publish("a", b"v", timestamp="now"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgumentError):
            work()
    with pytest.raises(FailedPreconditionError, match="replayed"):
        tx.consume(record(None, 5))
    tx.publish("a", b"x" * (MAX_BYTES - 1))
    with pytest.raises(TransactionTooLargeError) as caught:
        tx.publish("a", b"yy")
    assert caught.value.metadata == {"size": str(MAX_BYTES + 1), "limit": str(MAX_BYTES)}
    tx.publish("a", b"y")
    tx.abandon()
    assert not tx.open


async def test_it_is_done_once() -> None:
    tx = begin(Scripted(answer(a=[(0, 0, False)])))
    tx.publish("a", b"v")
    assert (await tx.commit()).acks == tx.result.acks
    with pytest.raises(FailedPreconditionError):
        await tx.commit()


def test_runs() -> None:
    assert runs_of([4]) == (4, [0, 1])
    assert runs_of([4, 5, 8, 9, 10, 20]) == (4, [0, 2, 2, 3, 9, 1])
