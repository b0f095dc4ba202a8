"""The batcher against a model broker: streams break at any point, requests arrive late, answers get lost.

Whatever happens: what is acknowledged stands where the ack says, nothing is
stored twice, and each partition keeps the order of the calls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.client.batcher import MAX_RECORDS, Batcher
from holdfast.client.parcels import Delivery, TopicQueue
from holdfast.client.types import Ack, BatchAck
from holdfast.errors import (
    DeadlineExceededError,
    HoldfastError,
    OutcomeUnknownError,
    OverloadedError,
    RecordTooLargeError,
)
from holdfast.records import Compression
from holdfast.v1 import bus_pb2

from .model_broker import POISON, ModelBroker, to_result


class World:
    """A batcher, a stream, and the broker behind it, under a clock of their own."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, in_flight: int, batch_bytes: int, partitions: int = 3
    ) -> None:
        self.loop = loop
        self.now = 0.0
        self.broker = ModelBroker(partitions)
        self.lost: list[HoldfastError] = []
        self.full: list[TopicQueue] = []
        self.batcher = Batcher(
            producer_id=7,
            batch_bytes=batch_bytes,
            max_in_flight=in_flight,
            max_buffered_bytes=1 << 30,
            compression=Compression.NONE,
            now=lambda: self.now,
            on_work=self._on_work,
            on_full=self.full.append,
            on_lost=self.lost.append,
        )
        self.topic: TopicQueue = self.batcher.topic("t")
        self.batcher.route(self.topic, partitions, 0)
        self.wire: deque[bytes] = deque()
        self.answers: deque[bus_pb2.PublishResult] = deque()
        #: Streams the client has left, whose requests may still arrive.
        self.ghosts: list[deque[bytes]] = []
        self.published: list[tuple[bytes, asyncio.Future[Ack]]] = []
        #: Values, and what their call waits for.
        self.calls: list[tuple[list[bytes], asyncio.Future[list[BatchAck]]]] = []
        self.taken = 0

    def _on_work(self, topic: TopicQueue) -> None:
        topic.armed = True

    def publish(self, key: int, poison: bool = False, timeout: float = 30.0) -> None:
        value = self._value(poison)
        future: asyncio.Future[Ack] = self.loop.create_future()
        self.published.append((value, future))
        self.batcher.add("t", value, b"k%d" % key if key else b"", 0, None, future, timeout)

    def publish_many(
        self, keys: list[int], poison: int = -1, timeout: float = 30.0, chunk: int = 1 << 30
    ) -> None:
        """A record for each key; 0: without one. That of index ``poison`` is refused."""
        values = [self._value(index == poison) for index in range(len(keys))]
        column = [b"k%d" % key if key else b"" for key in keys]
        delivery = Delivery(len(values), self.loop.create_future())
        self.calls.append((values, delivery.future))
        for at in range(0, len(values), chunk):
            cut = slice(at, at + chunk)
            times = [0] * len(values[cut])
            some_keys = column[cut] if any(keys) else None
            self.batcher.add_columns(self.topic, values[cut], some_keys, times, None, timeout, delivery, at)

    def send(self, key: int) -> None:
        """A record nobody waits for."""
        self.batcher.add("t", self._value(False), b"k%d" % key, 0, None, None, 30.0)

    def _value(self, poison: bool) -> bytes:
        number, self.taken = self.taken, self.taken + 1
        return b"%d" % number + (POISON if poison else b"")

    def pump(self, due: bool) -> None:
        self.topic.due = self.topic.due or due
        while self.batcher.ready(self.topic):
            request = self.batcher.next_request(self.topic)
            if request is None:
                break
            self.wire.append(self.batcher.message(request))

    def arrive(self, fault: str) -> None:
        """The oldest request reaches the broker; ``fault`` is what becomes of it."""
        if not self.wire:
            return
        request = bus_pb2.PublishRequest.FromString(self.wire.popleft())
        self.answers.append(self._answer(request, fault))

    def _answer(self, request: bus_pb2.PublishRequest, fault: str) -> bus_pb2.PublishResult:
        if fault == "overloaded":
            return to_result(request.request_id, None, OverloadedError("full"))
        if fault == "unknown, not stored":
            return to_result(request.request_id, None, OutcomeUnknownError("who knows"))
        try:
            response = self.broker.publish(request)
        except HoldfastError as error:
            return to_result(request.request_id, None, error)
        if fault == "unknown, stored":
            return to_result(request.request_id, None, OutcomeUnknownError("who knows"))
        return to_result(request.request_id, response, None)

    def ghost(self, which: int) -> None:
        """A request of a stream left behind arrives after all."""
        if self.ghosts:
            stream = self.ghosts[which % len(self.ghosts)]
            if stream:
                self.broker.ghostly = True
                self._answer(bus_pb2.PublishRequest.FromString(stream.popleft()), "")
                self.broker.ghostly = False

    def hear(self) -> None:
        """An answer reaches the client; after a refusal it starts over, as the producer does."""
        if self.answers:
            self.batcher.on_result(self.answers.popleft())
            if self.batcher.refused and not self.answers:
                self.cut()

    def cut(self) -> None:
        """The stream ends for the client."""
        self.ghosts.append(self.wire)
        self.wire = deque()
        self.answers.clear()
        self.batcher.on_break()

    def round(self, faults: list[str]) -> None:
        """Everything leaves, arrives with these faults, and is heard of."""
        self.pump(due=True)
        for fault in faults:
            self.arrive(fault)
        while self.answers:
            self.hear()

    def late(self, seconds: float) -> None:
        self.now += seconds
        self.batcher.expire(self.now)

    def run_down(self) -> None:
        """No more faults: everything gets an answer."""
        for _ in range(10_000):
            self.pump(due=True)
            while self.wire:
                self.arrive("")
            if not self.answers:
                break
            while self.answers:
                self.hear()
        assert not self.batcher.outstanding()

    def check(self) -> None:
        assert self.batcher.buffered == 0
        stored = [value for log in self.broker.logs for value in log]
        assert len(stored) == len(set(stored)), "stored twice"
        place = {value: (p, at) for p, log in enumerate(self.broker.logs) for at, value in enumerate(log)}
        for value, future in self.published:
            assert future.done()
            error = future.exception()
            if error is None:
                ack = future.result()
                assert place[value] == (ack.partition, ack.offset)
            elif isinstance(error, RecordTooLargeError):
                assert POISON in value
                assert value not in place
            else:
                assert isinstance(error, OutcomeUnknownError | DeadlineExceededError), error
                if "nothing was stored" in error.message:
                    assert value not in place, error
        for values, call in self.calls:
            self._check_call(values, call, place)
        for log in self.broker.logs:
            numbers = [int(value) for value in log]
            assert numbers == sorted(numbers), "out of order"

    def _check_call(
        self,
        values: list[bytes],
        call: asyncio.Future[list[BatchAck]],
        place: dict[bytes, tuple[int, int]],
    ) -> None:
        assert call.done()
        error = call.exception()
        poisoned = any(POISON in value for value in values)
        if error is not None:
            expected = (OutcomeUnknownError, DeadlineExceededError)
            assert isinstance(error, expected + (RecordTooLargeError,) * poisoned), error
            return
        assert not poisoned
        acknowledged = [
            self.broker.logs[ack.partition][offset]
            for ack in call.result()
            for offset in range(ack.base_offset, ack.base_offset + ack.count)
        ]
        if all(ack.partition == call.result()[0].partition for ack in call.result()):
            assert acknowledged == values, "acknowledgements out of order"
        assert sorted(acknowledged) == sorted(values)


FAULTS = st.sampled_from(["", "", "", "overloaded", "unknown, stored", "unknown, not stored"])
#: Records for a key; now and then one that is refused.
PUBLISH = st.tuples(
    st.just("publish"),
    st.integers(0, 3),
    st.sampled_from([False] * 12 + [True]),
    st.sampled_from([5.0, 30.0]),
)
PUBLISH_MANY = st.tuples(
    st.just("publish_many"),
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.sampled_from([-1] * 6 + [0, 1, 5]),
    st.sampled_from([5.0, 30.0]),
    st.sampled_from([1, 3, 100]),
)
ACTIONS = st.one_of(
    PUBLISH,
    PUBLISH,
    PUBLISH_MANY,
    PUBLISH_MANY,
    st.tuples(st.just("pump"), st.booleans()),
    st.tuples(st.just("arrive"), FAULTS),
    st.tuples(st.just("hear")),
    st.tuples(st.just("round"), st.lists(FAULTS, max_size=6)),
    st.tuples(st.just("cut")),
    st.tuples(st.just("ghost"), st.integers(0, 3)),
    st.tuples(st.just("late"), st.sampled_from([1.0, 6.0, 20.0])),
)


@pytest.fixture(scope="module")
def loop():  # type: ignore[no-untyped-def]
    made = asyncio.new_event_loop()
    yield made
    made.close()


def play(world: World, actions: list[tuple[Any, ...]]) -> None:
    for name, *arguments in actions:
        getattr(world, name)(*arguments)


@settings(max_examples=300, deadline=None)
@given(
    actions=st.lists(ACTIONS, max_size=120),
    in_flight=st.integers(1, 8),
    batch_bytes=st.sampled_from([1, 1, 200, 1 << 16]),
    partitions=st.sampled_from([1, 3]),
)
def test_exactly_what_was_published_once_and_in_order(
    loop: asyncio.AbstractEventLoop,
    actions: list[tuple[Any, ...]],
    in_flight: int,
    batch_bytes: int,
    partitions: int,
) -> None:
    world = World(loop, in_flight, batch_bytes, partitions)
    play(world, actions)
    world.cut()
    world.run_down()
    while any(world.ghosts):
        world.ghost(0)
        world.ghosts = [ghost for ghost in world.ghosts if ghost]
    world.check()


def test_what_follows_a_doubtful_batch_is_not_sent_under_new_sequences(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Both were stored, their answers lost; the first one's time is up before it can be repeated."""
    world = World(loop, 8, 1, partitions=1)
    world.publish(0, timeout=5.0)
    world.publish(0)
    world.publish(0)
    world.pump(due=True)
    world.arrive("")
    world.arrive("")
    world.cut()
    world.late(6.0)
    world.run_down()
    world.check()
    first, second, third = [future.exception() for _, future in world.published]
    assert isinstance(first, DeadlineExceededError)
    assert isinstance(second, OutcomeUnknownError)
    assert third is None  # it had not left
    assert world.broker.logs == [[b"0", b"1", b"2"]]


def test_an_unknown_outcome_is_doubtful(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, 8, 1, partitions=1)
    world.publish(0, timeout=5.0)
    world.publish(0)
    world.publish(0)
    world.round(["unknown, stored", "unknown, stored"])
    world.late(6.0)
    world.run_down()
    world.check()
    assert world.broker.logs == [[b"0", b"1", b"2"]]


def test_what_stands_before_a_batch_given_up_keeps_its_sequences(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, 8, 1, partitions=1)
    world.publish(0)
    world.publish(0, timeout=5.0)
    world.publish(0)
    world.pump(due=True)
    world.arrive("")
    world.cut()
    world.late(6.0)
    world.run_down()
    world.check()
    assert world.published[0][1].exception() is None
    assert world.broker.logs == [[b"0", b"2"]]


def test_a_batch_under_way_is_doubtful_when_its_time_is_up(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, 8, 1, partitions=1)
    world.publish(0, timeout=5.0)
    world.publish(0)
    world.pump(due=True)
    world.late(6.0)
    world.arrive("")
    world.arrive("")
    world.run_down()
    world.check()
    assert world.broker.logs == [[b"0", b"1"]]


def test_a_new_epoch_waits_until_the_old_one_is_done(loop: asyncio.AbstractEventLoop) -> None:
    """Else it would fence a batch that has to be repeated."""
    world = World(loop, 8, 1, partitions=1)
    world.publish(0)
    world.publish(0, timeout=5.0)
    world.publish(0)
    world.pump(due=True)
    world.arrive("overloaded")
    world.hear()
    world.cut()
    world.late(6.0)  # the second is given up: the third gets a new epoch
    world.publish(0)
    world.round(["overloaded", "", "", ""])
    world.run_down()
    world.check()
    assert isinstance(world.published[1][1].exception(), DeadlineExceededError)
    assert world.broker.logs[0][0] == b"0"


def test_a_forgotten_producer_starts_again(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, 5, 1 << 16)
    world.publish(1)
    world.run_down()
    world.broker.rows.clear()
    world.publish(1)
    world.publish(2)
    world.run_down()
    world.check()
    assert all(future.exception() is None for _, future in world.published)


def test_partitions_come_together_again_after_one_began_a_new_epoch(
    loop: asyncio.AbstractEventLoop,
) -> None:
    world = World(loop, 8, 1 << 16)
    for key in range(8):
        world.publish(key)
    world.run_down()
    world.publish(1, True)
    world.run_down()
    for key in range(8):
        world.publish(key)
    world.pump(due=True)
    assert len(world.wire) == 1
    world.run_down()
    world.check()


def test_only_the_record_that_is_too_large_fails(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, 5, 1 << 16)
    for number in range(50):
        world.publish(number % 4, poison=number == 23)
    world.run_down()
    world.check()
    failed = [value for value, future in world.published if future.exception() is not None]
    assert failed == [b"23" + POISON]


async def test_a_batch_of_many_small_records_is_closed_by_their_number() -> None:
    loop = asyncio.get_running_loop()
    world = World(loop, in_flight=8, batch_bytes=4 << 20, partitions=1)
    one_by_one, at_once = MAX_RECORDS + 1, 2 * MAX_RECORDS + 1
    for _ in range(one_by_one):
        world.publish(0)
    world.publish_many([0] * at_once)
    world.publish_many([1] * 500)
    world.publish_many([1] * MAX_RECORDS)
    counts = []
    while (request := world.batcher.next_request(world.topic)) is not None:
        counts += [parcel.count for parcel in request.parcels]
    assert sum(counts) == one_by_one + at_once + 500 + MAX_RECORDS
    assert sorted(counts) == [1, 1, 500, *[MAX_RECORDS] * 4]


def parcels(world: World) -> list[tuple[int, int]]:
    """(partition, records) of all that leaves now, request by request."""
    left = []
    while (request := world.batcher.next_request(world.topic)) is not None:
        world.wire.append(world.batcher.message(request))
        left += [(parcel.queue.number, parcel.count) for parcel in request.parcels]
    return left


def test_calls_over_many_partitions_share_their_batches(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, 5, 1 << 16, partitions=50)
    keys = list(range(1, 201))
    for _ in range(3):
        world.publish_many(keys, chunk=60)
    left = parcels(world)
    assert len(left) == len({partition for partition, _ in left}), "a batch for each partition"
    assert len(world.wire) == 1
    assert sum(count for _, count in left) == 600
    world.run_down()
    world.check()
    for values, call in world.calls:
        acks = call.result()
        assert len(acks) == len(left), "what stands together is acknowledged together"
        firsts = [values.index(world.broker.logs[ack.partition][ack.base_offset]) for ack in acks]
        assert firsts == sorted(firsts)


def test_single_records_share_the_batch_of_a_call(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, 5, 1 << 16, partitions=1)
    world.publish(1)
    world.publish_many([1, 2, 3])
    world.publish(1)
    assert parcels(world) == [(0, 5)]
    world.run_down()
    world.check()
    assert [future.result().offset for _, future in world.published] == [0, 4]
    assert [(ack.base_offset, ack.count) for ack in world.calls[0][1].result()] == [(1, 3)]


def test_a_batch_that_is_well_filled_waits_for_no_more(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, 5, 1 << 20, partitions=1)
    world.publish_many([1] * 10)
    world.pump(due=False)
    world.publish_many([1] * 10)
    assert not world.batcher.ready(world.topic), "one is under way, and linger not over"
    world.publish_many([1] * 1000)
    assert world.batcher.ready(world.topic)
    world.run_down()
    world.check()


def test_records_with_another_timeout_travel_apart(loop: asyncio.AbstractEventLoop) -> None:
    """Else a deadline would be that of somebody else's records."""
    world = World(loop, 5, 1 << 16, partitions=1)
    world.publish_many([1] * 3, timeout=5.0)
    world.publish_many([1] * 4)
    world.late(6.0)
    world.run_down()
    world.check()
    short, long = [call for _, call in world.calls]
    assert isinstance(short.exception(), DeadlineExceededError)
    assert [ack.count for ack in long.result()] == [4]


def test_a_record_that_is_too_large_fails_its_call_alone(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, 5, 1 << 16, partitions=1)
    world.publish_many([1] * 5)
    world.publish_many([1] * 5, poison=3)
    world.publish_many([1] * 5)
    world.publish(1)
    world.run_down()
    world.check()
    assert [type(call.exception()) for _, call in world.calls] == [
        type(None),
        RecordTooLargeError,
        type(None),
    ]
    stored = {value for log in world.broker.logs for value in log}
    for values, call in world.calls:
        if call.exception() is None:
            assert sum(ack.count for ack in call.result()) == len(values)
        assert len(stored.intersection(values)) == sum(POISON not in value for value in values)


def test_a_request_without_room_for_a_partition_leaves_its_batch_open(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.client.batcher._MAX_REQUEST_BYTES", 1000)
    world = World(loop, 5, 1 << 16, partitions=50)
    world.publish_many(list(range(1, 201)))
    used = len(world.topic.pending)
    first = world.batcher.next_request(world.topic)
    assert first is not None
    assert sum(parcel.size for parcel in first.parcels) <= 1000
    world.wire.append(world.batcher.message(first))
    world.publish_many(list(range(1, 201)))
    assert not world.batcher.ready(world.topic), "what is left is not closed: it waits for more"
    world.run_down()
    world.check()
    counts = [len(batches) for batches in world.broker.batches]
    assert counts.count(2) == len(first.parcels)
    assert counts.count(1) == used - len(first.parcels)


def test_records_nobody_waits_for_are_reported_though_others_share_their_batch(
    loop: asyncio.AbstractEventLoop,
) -> None:
    for with_send in (False, True):
        world = World(loop, 5, 1 << 16, partitions=1)
        world.publish_many([1] * 3)
        world.publish(1)
        if with_send:
            world.send(1)
        world.late(60.0)
        assert [type(error) for error in world.lost] == [DeadlineExceededError] * with_send
        world.check()


@pytest.mark.parametrize("key", [0, 1])
def test_a_full_batch_of_a_call_does_not_wait_for_linger(loop: asyncio.AbstractEventLoop, key: int) -> None:
    """Also when nothing else waits, and a request is under way."""
    world = World(loop, 5, 1 << 20, partitions=1)
    world.publish_many([1])
    world.pump(due=False)
    world.topic.armed = False  # as the producer leaves it
    world.full.clear()
    world.publish_many([key] * 1000)
    assert world.full == [world.topic]
    world.run_down()
    world.check()
