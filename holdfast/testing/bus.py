"""Handlers in memory and in virtual time."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from types import TracebackType
from typing import Any, ClassVar, cast

import msgspec

from holdfast.client import dead_letters
from holdfast.client.backoff import Backoff
from holdfast.client.connection import Connection
from holdfast.client.dead_letters import DeadLetter
from holdfast.client.events import SubscriptionEvent
from holdfast.client.handlers.host import pass_on
from holdfast.client.handlers.job import Job
from holdfast.client.handlers.subscriber import Handler, Options, Subscribe, subscriber
from holdfast.client.inputs import HeadersInput
from holdfast.client.tracing import make_inject
from holdfast.client.transaction import Transaction
from holdfast.client.types import Ack, Batch, Record
from holdfast.errors import ClosedError, HoldfastError, InternalError, InvalidArgumentError
from holdfast.records import decode_batch
from holdfast.rpc.services.dead_letters import to_message
from holdfast.testing.broker import PARTITIONS, LocalBroker
from holdfast.testing.clock import EPOCH, VirtualClock
from holdfast.testing.member import LocalMember, LocalRunner
from holdfast.v1 import bus_pb2

logger = logging.getLogger(__name__)

#: What is due within so many virtual seconds is due: brokers put off what they do by less.
_MOMENT = 0.005
#: Turns of the event loop after which nobody who was woken is still on the way.
_TURNS = 5
#: Turns without real time between them; then the loop rests, for threads and I/O.
_BUSY_TURNS = 100
_REST = 0.0005
#: Steps within a second of virtual time, and at one moment.
_STEPS = 100_000
#: Time does not stand still, in seconds.
_LEAST = 1e-6
#: As brokers are asked for it by ``HandlerHost``.
_DEAD_LETTER_ROOM = 16 << 10


@dataclass(eq=False, slots=True)
class _Running:
    """A handler as a member of its group."""

    handler: Handler[Any, Any]
    member: LocalMember
    runner: LocalRunner
    task: asyncio.Task[None]


class TestBus:
    """Runs handlers against the rules of brokers, without a broker: no server, no sockets, no disk.

    ::

        async with TestBus() as bus:
            bus.include(bill)
            await bus.publish("orders", Order(id=1))
            await bus.settle()
            await bus.advance(60)
            assert bus.attempts("billing", "orders") == [1, 2]

    Groups, retries, order, leases and dead letters are those of a broker: the same state machine and the
    same delivery. Time passes only when ``advance`` says so; in handlers ``bus.clock.sleep`` and
    ``bus.clock.now`` go by it, ``asyncio.sleep`` does not.

    Args:
        patience: real seconds a call is waited for that waits for something else than this bus; then it
            is left alone, as if it took for ever.
        start: what time it is at first, an aware datetime.

    Attributes:
        clock: its time.
    """

    #: Not a test, whatever its name says to test runners.
    __test__: ClassVar[bool] = False

    def __init__(self, *, patience: float = 1.0, start: datetime = EPOCH) -> None:
        if patience < 0:
            raise InvalidArgumentError("patience must not be negative", metadata={"field": "patience"})
        self.clock = VirtualClock(start)
        self._patience = patience
        self._broker = LocalBroker(self.clock)
        self._connection = cast(Connection, _LocalConnection(self._broker))
        self._inject = make_inject(True)
        self._numbers = count(1)
        self._open: bool | None = None
        self._included: list[tuple[str, Handler[Any, Any]]] = []
        self._running: dict[str, _Running] = {}
        #: Calls that were waited for long enough.
        self._left_alone: set[Job] = set()
        self._begun: dict[str, list[Record]] = {}

    async def __aenter__(self) -> TestBus:
        if self._open is not None:
            raise ClosedError("a TestBus is used once; make another one")
        self._open = True
        for name, handler in self._included:
            self._start(name, handler)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        for name in list(self._running):
            self.kill(name)
        tasks = [running.task for running in self._running.values()]
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- handlers ----------------------------------------------------------------------

    def include(self, handler: Handler[Any, Any]) -> str:
        """Run a handler, as it is in production. Once more makes another member of its group.

        Topics it names are made, its dead-letter topic too.

        Returns:
            The member's id, for ``kill``.

        Raises:
            InvalidArgumentError: it was not decorated with ``subscriber``.
        """
        if not isinstance(handler, Handler):
            raise InvalidArgumentError(
                f"{handler!r} is no handler: decorate it with subscriber()", metadata={"field": "handler"}
            )
        name = f"{handler.options.group}-{next(self._numbers)}"
        self._included.append((name, handler))
        if self._open:
            self._start(name, handler)
        return name

    def subscriber(self, topics: str | Sequence[str], *, group: str, **options: Any) -> Subscribe:
        """A decorator, as ``Client.subscriber``."""

        def made(handler: Handler[Any, Any]) -> None:
            self.include(handler)

        return subscriber(topics, group=group, on_made=made, **options)

    def kill(self, member: str) -> None:
        """End a member as a killed process ends: what it worked on is not told of, and comes again elsewhere.

        Raises:
            InvalidArgumentError: there is no such member.
        """
        running = self._running.get(member)
        if running is None:
            known = ", ".join(self._running) or "none"
            raise InvalidArgumentError(
                f"no member {member!r}; there are: {known}", metadata={"field": "member"}
            )
        running.member.cut()
        running.task.cancel()

    def restart_broker(self) -> None:
        """What a change of leader does: nothing is left but what is in the log; members come back."""
        self._broker.restart()
        # At once, and not at the next turn: calls that are about to commit need their sessions.
        while self._hand_over():
            pass

    def _start(self, name: str, handler: Handler[Any, Any]) -> None:
        options = handler.options
        self._make_topics(options)
        hello = bus_pb2.SubscribeStart(
            group=options.group,
            format=bus_pb2.FORMAT_BATCHES,
            protocol=2,
            member_id=f"member-{name.rpartition('-')[2]}",
            concurrency=options.concurrency,
            definition=options.definition(),
        )

        def heard(event: SubscriptionEvent) -> None:
            pass_on(event, runner)

        member = LocalMember(self._broker, self.clock, hello, max_in_flight=options.capacity, on_event=heard)
        runner = LocalRunner(
            handler,
            member,
            transaction=self._consuming,
            timers=self.clock,
            begun=self._begun.setdefault(options.group, []),
        )
        task = asyncio.get_running_loop().create_task(runner.run())
        self._running[name] = _Running(handler, member, runner, task)

    def _make_topics(self, options: Options) -> None:
        first = None
        for name in options.topics:
            if "*" not in name and "?" not in name:
                row = self._broker.need_topic(name)
                first = first or row
        name = options.dead_letter or ""
        if name and options.create_dead_letter:
            largest = first.max_record_bytes if first is not None else 0
            self._broker.need_topic(
                name,
                PARTITIONS if first is None else first.partitions,
                max_record_bytes=largest + _DEAD_LETTER_ROOM if largest else 0,
            )

    def _consuming(self, record: Record) -> Transaction:
        transaction = self.transaction()
        transaction.consume(record)
        return transaction

    # -- publishing -----------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int = PARTITIONS, **limits: int) -> None:
        """Make a topic otherwise than first use would: of three partitions, without limits.

        Args:
            limits: ``max_record_bytes``, ``retention_ms``, ``retention_bytes``, ``idempotency_ttl_ms``.

        Raises:
            HoldfastError: as ``Client.create_topic``.
        """
        self._broker.create_topic(name, partitions, **limits)

    async def publish(
        self,
        topic: str,
        value: Any,
        key: bytes | str | None = None,
        *,
        headers: HeadersInput = None,
        timestamp: datetime | int | None = None,
        idempotency_key: bytes | str | None = None,
    ) -> Ack:
        """Publish one record; its topic is made if it is not there.

        Args:
            value: bytes and text as they are; anything else as JSON.

        Raises:
            HoldfastError: as ``Client.publish``.
        """
        async with self.transaction() as transaction:
            transaction.publish(
                topic,
                _encode(value),
                key,
                headers=headers,
                timestamp=timestamp,
                idempotency_key=idempotency_key,
            )
        return transaction.result.acks[0]

    def transaction(self, *, timeout: float | None = None) -> Transaction:
        """As ``Client.transaction``: records published and consumed ones settled, all or nothing."""
        number = next(self._numbers).to_bytes(16, "big")
        seconds = 30.0 if timeout is None else timeout
        return Transaction(self._connection, number, self._inject, self.clock.wall_us, seconds)

    # -- time ---------------------------------------------------------------------------

    async def settle(self) -> None:
        """Return once nothing can happen without time: all that could be handled was.

        What is due within five thousandths of a second is due.

        Raises:
            HoldfastError: a handler's group cannot be joined.
        """
        await self._until(0.0)

    async def advance(self, seconds: float) -> None:
        """Let so much virtual time pass: retries come due, leases end, breakers half-open, calls time out.

        What happens meanwhile happens at its time.

        Raises:
            InvalidArgumentError: time does not go back.
            HoldfastError: as ``settle``.
        """
        if not seconds >= 0:
            raise InvalidArgumentError("seconds must not be negative", metadata={"field": "seconds"})
        await self._until(seconds)

    async def _until(self, seconds: float) -> None:
        if not self._open:
            raise ClosedError("the TestBus is not open: use it with async with")
        clock = self.clock
        end = clock.time() + seconds
        soon = end + _MOMENT
        busy, steps, since = True, 0, clock.time()
        while True:
            if busy and await self._quiet():
                soon = max(soon, clock.time() + _MOMENT)
            beat = min([running.member.due() for running in self._living()], default=math.inf)
            at = min(self._broker.due(), clock.due())
            # A member that only says that it lives changes nothing.
            busy = at <= beat
            at = min(at, beat)
            if at > soon:
                break
            clock.move(max(at, clock.time() + _LEAST))
            for running in self._living():
                running.member.beat()
            steps += 1
            if clock.time() - since >= 1:
                steps, since = 0, clock.time()
            elif steps > _STEPS:
                raise _endless()
        clock.move(end)

    async def _quiet(self) -> bool:
        """Let everything happen that can at this time; False: nothing did."""
        some, still, before = False, 0, self._at_work()
        since = time.monotonic()
        for _ in range(_STEPS):
            self._raise_failures()
            at_work = self._at_work()
            if self._turn() or at_work != before:
                some, still, since, before = True, 0, time.monotonic(), at_work
            elif not at_work and still >= _TURNS:
                return some
            elif at_work and time.monotonic() - since >= self._patience:
                self._left_alone |= at_work
                logger.warning(
                    "left alone: %d calls that do not end within %g s", len(at_work), self._patience
                )
            still += 1
            await asyncio.sleep(0 if still < _BUSY_TURNS else _REST)
        raise _endless()

    def _turn(self) -> bool:
        some = self._hand_over()
        return some or any(each.member.waiting and each.runner.has_room for each in self._living())

    def _hand_over(self) -> bool:
        some = self._broker.turn()
        for running in self._living():
            some |= running.member.turn()
        return some

    def _at_work(self) -> set[Job]:
        found: set[Job] = set()
        for running in self._living():
            found |= running.runner.at_work(self.clock)
        self._left_alone = {job for job in self._left_alone if not job.told}
        return found - self._left_alone

    def _living(self) -> list[_Running]:
        return [running for running in self._running.values() if not running.task.done()]

    def _raise_failures(self) -> None:
        for name, running in list(self._running.items()):
            if running.task.done():
                del self._running[name]
                if not running.task.cancelled() and (error := running.task.exception()) is not None:
                    raise error

    # -- looking -------------------------------------------------------------------------

    def records(self, topic: str) -> list[Record]:
        """All records of a topic, in the order in which they were published; none if it is not there."""
        if self._broker.topic(topic) is None:
            return []
        found: list[Record] = []
        for stored in self._broker.batches(topic):
            columns = decode_batch(stored.batch)
            place = (stored.topic, stored.partition, stored.base_offset, stored.append_time_us)
            found += Batch(*place, columns, range(columns.count)).records()
        return sorted(found, key=lambda record: (record.append_time_us, record.partition, record.offset))

    def dead_letters(self, topic: str) -> list[DeadLetter]:
        """What a dead-letter topic lists, by the time it got there; none if it is not there."""
        if self._broker.topic(topic) is None:
            return []
        found = sorted(
            self._broker.dead_letters(topic), key=lambda each: (each.dead_us, each.partition, each.offset)
        )
        return [dead_letters.from_message(to_message(topic, each)) for each in found]

    def calls(self, group: str, topic: str | None = None) -> list[Record]:
        """The records the group's handlers were called with, in that order; those of one topic.

        One whose payload did not parse counts: it took an attempt.
        """
        return [record for record in self._begun.get(group, ()) if topic in (None, record.topic)]

    def attempts(self, group: str, topic: str | None = None) -> list[int]:
        """The number of the attempt of each of ``calls``."""
        return [record.attempt for record in self.calls(group, topic)]


class _LocalConnection:
    """As much of a connection as a transaction needs."""

    def __init__(self, broker: LocalBroker) -> None:
        self._broker = broker

    def backoff(self) -> Backoff:
        return Backoff()

    async def call(
        self, method: Any, request: bus_pb2.TransactRequest, timeout: float, tries: Any
    ) -> bus_pb2.TransactResponse:
        return self._broker.transact(request)


def _encode(value: Any) -> bytes:
    """
    Raises:
        InvalidArgumentError: it has no form in JSON.
    """
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    dump: Callable[[], str] | None = getattr(value, "model_dump_json", None)
    try:
        return msgspec.json.encode(value) if dump is None else dump().encode()
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise InvalidArgumentError(
            f"value has no form in JSON: {error}; give bytes", metadata={"field": "value"}
        ) from error


def _endless() -> HoldfastError:
    return InternalError(
        "it never ends: a handler that always fails and is tried again without a pause? give retry=Retry(...)"
    )
