"""The asynchronous client: the public face of everything in this package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Literal

import grpc

from holdfast.client.admin import Admin
from holdfast.client.connection import Connection, parse_endpoints
from holdfast.client.consumer import Subscription
from holdfast.client.dead_letter_calls import DeadLetterCalls
from holdfast.client.effects import REAL, Effects
from holdfast.client.events import SubscriptionEvent
from holdfast.client.group_calls import GroupCalls
from holdfast.client.handlers.host import HandlerHost
from holdfast.client.idempotent import KeyedProducer
from holdfast.client.inputs import HeadersInput
from holdfast.client.member_calls import MemberCalls
from holdfast.client.membership import Membership
from holdfast.client.options import ClientOptions
from holdfast.client.positions import Place, TimeBasis
from holdfast.client.producer import Producer
from holdfast.client.replay import CaughtUp, Replay
from holdfast.client.tracing import make_inject
from holdfast.client.transaction import Transaction
from holdfast.client.types import Ack, Batch, ClusterInfo, PartitionDigest, PublishSummary, Record, TopicInfo
from holdfast.errors import ClosedError, HoldfastError
from holdfast.v1 import topics_pb2


class Client(MemberCalls, GroupCalls, DeadLetterCalls):
    """A connection to a cluster. Made by ``holdfast.connect``; use it with ``async with``.

    One client serves many tasks of one event loop; it keeps one channel per
    broker. Every call has a deadline, and is tried again on other brokers as
    long as that is safe; what is raised is a ``holdfast.errors.HoldfastError``
    whose ``retriable`` says whether trying again later may help.
    """

    def __init__(
        self, endpoints: str | Sequence[str], options: ClientOptions, effects: Effects = REAL
    ) -> None:
        parse_endpoints(endpoints)
        self._effects = effects
        self._endpoints = endpoints
        self.options = options
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._keyed: KeyedProducer | None = None
        self._admin: Admin | None = None
        self._subscriptions: set[Subscription | Membership] = set()
        self._host = HandlerHost(self.topic, self.create_topic, self._join, self.transaction)
        self._closed = False

    # -- life -----------------------------------------------------------------

    async def start(self) -> Client:
        """Find a broker. ``async with`` does this.

        Raises:
            UnavailableError: none answered within ``connect_timeout``.
            ClosedError: the client has been closed; make a new one.
        """
        if self._closed:
            raise ClosedError("a closed client cannot be started again; connect anew")
        if self._connection is None:
            connection = Connection(self._endpoints, self.options, self._effects)
            await connection.start()
            self._connection = connection
            self._producer = Producer(connection, self.options)
            self._keyed = KeyedProducer(connection, self.options)
            self._admin = Admin(connection)
        return self

    async def close(self) -> None:
        """Send and acknowledge what waits, then disconnect. ``async with`` does this.

        Raises:
            HoldfastError: records handed to ``send`` were lost.
        """
        await self._close(orderly=True)

    async def _close(self, *, orderly: bool) -> None:
        self._closed = True
        connection, producer, keyed = self._connection, self._producer, self._keyed
        if connection is None or producer is None or keyed is None or connection.closed:
            return
        try:
            if orderly:
                await asyncio.gather(*[subscription.close() for subscription in list(self._subscriptions)])
                await keyed.close()
                await producer.close()
        finally:
            for subscription in list(self._subscriptions):
                await subscription.abandon()
            await keyed.abort(ClosedError("the client has been closed"))
            await producer.abort(ClosedError("the client has been closed"))
            await connection.close()

    async def __aenter__(self) -> Client:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(orderly=kind is None)

    # -- publishing --------------------------------------------------------------

    def publish(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None = None,
        *,
        headers: HeadersInput = None,
        timestamp: datetime | int | None = None,
        timeout: float | None = None,
        idempotency_key: bytes | str | None = None,
    ) -> asyncio.Future[Ack]:
        """Publish one record.

        Not a coroutine: the record is taken at once, whether the future is
        awaited or not, and records taken together travel together. Publish
        many with ``await asyncio.gather(*[bus.publish(...) for ...])``.

        Args:
            topic: it must exist.
            value: the record's content.
            key: records of one key keep their order; text is encoded as UTF-8.
            headers: names and values; text is encoded as UTF-8.
            timestamp: event time, an aware datetime or microseconds since the
                Unix epoch; None: now.
            timeout: seconds to try; None: ``delivery_timeout``. A shorter one
                ends the waiting, not the delivery: the record may yet be stored.
            idempotency_key: of at most 256 bytes; text is encoded as UTF-8. Whoever publishes
                the same key to the topic again within its ``idempotency_ttl_ms`` is answered with
                the place of the first record (``Ack.duplicate``), and nothing is stored: what
                makes a program that starts again safe. Records with keys of one topic leave in
                order, those of one turn of the event loop together; one request is under way at
                a time. They are not ordered with those without.

        Returns:
            A future of where the record stands, fsynced on a majority. It
            fails with ``OverloadedError`` when ``max_buffered_bytes`` wait
            already (``await bus.drain()`` between publishes), with
            ``DeadlineExceededError`` or ``OutcomeUnknownError`` when the record
            may or may not be stored, else with what the brokers refused it for.

        Raises:
            InvalidArgumentError: an argument is of the wrong kind.
            RecordTooLargeError: over the topic's limit.
            ClosedError: the client is not open.
        """
        producer = self._producer
        if producer is None:
            raise _not_open(self._closed)
        if idempotency_key is not None:
            return self._keyed_publisher.publish(
                topic, value, key, headers, timestamp, timeout, idempotency_key
            )
        return producer.publish(topic, value, key, headers, timestamp, timeout)

    def send(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None = None,
        *,
        headers: HeadersInput = None,
        timestamp: datetime | int | None = None,
    ) -> None:
        """Hand one record over; the cheapest way. ``flush()`` tells whether all were acknowledged.

        In a long loop, ``await bus.drain()`` now and then: it costs nothing
        until the buffer is half full. Arguments are those of ``publish``.

        Raises:
            OverloadedError: ``max_buffered_bytes`` wait already.
            InvalidArgumentError, RecordTooLargeError, ClosedError: as ``publish``.
        """
        producer = self._producer
        if producer is None:
            raise _not_open(self._closed)
        producer.send(topic, value, key, headers, timestamp)

    async def publish_many(
        self,
        topic: str,
        values: Sequence[bytes],
        keys: Sequence[bytes | str | None] | None = None,
        *,
        timestamps: Sequence[datetime | int] | None = None,
        headers: HeadersInput = None,
        timeout: float | None = None,
    ) -> PublishSummary:
        """Publish many records and wait for all of them; the fastest way.

        Waits for room in the buffer by itself. Not atomic: when it fails, some
        may be stored. ``headers`` go onto every record.

        Raises:
            HoldfastError: the first failure, as ``publish``.
        """
        return await self._publisher.publish_many(topic, values, keys, timestamps, headers, timeout)

    async def flush(self) -> None:
        """Wait until everything handed over is settled.

        Raises:
            HoldfastError: a record given to ``send`` since the last flush was lost; the first such error.
        """
        await self._keyed_publisher.flush()
        await self._publisher.flush()

    async def drain(self) -> None:
        """Wait until the buffer is at most half full.

        Raises:
            OverloadedError: it did not empty within ``delivery_timeout``.
        """
        await self._keyed_publisher.drain()
        await self._publisher.drain()

    def transaction(self, *, timeout: float | None = None) -> Transaction:
        """Publish records and settle consumed ones, all or nothing.

        ::

            async with bus.transaction() as tx:
                tx.publish("payments", payload, key=order.customer)
                tx.consume(record)
            tx.result.acks

        Nothing happens before the end of the block, nor when it ends with an
        exception. A record is consumed once: when somebody else has settled it,
        ``TransactionRefusedError`` is raised and nothing is done.

        Args:
            timeout: seconds to try, up to 50; None: ``delivery_timeout``.

        Raises:
            ClosedError: the client is not open.
        """
        return Transaction(
            self._connected,
            self._effects.transaction_id(),
            make_inject(self.options.trace_context),
            self._effects.wall_us,
            self.options.delivery_timeout if timeout is None else timeout,
        )

    # -- reading --------------------------------------------------------------------

    async def replay(
        self,
        topic: str,
        *,
        start: Place = "earliest",
        end: Place | None = None,
        partitions: Collection[int] = (),
        follow: bool = False,
        linearizable: bool = False,
        time_basis: TimeBasis = "record",
        timeout: float | None = None,
    ) -> AsyncGenerator[Record, None]:
        """Records of a topic, in order within each partition, from any replica.

        Goes on at another broker when a connection breaks, without gap or repeat.

        Args:
            start: inclusive: "earliest", "latest", an offset, offsets by
                partition (others start at the earliest), or an aware datetime.
            end: exclusive, likewise; None: the end of the log at the time of
                the call, or no end when following.
            partitions: numbers; empty: all.
            follow: go on with new records as they are committed.
            linearizable: see everything acknowledged before the call, whichever
                broker answers.
            time_basis: whether times mean event time ("record": exactly the
                records stamped within) or time of append ("append").
            timeout: seconds to go on trying without hearing from any broker;
                None: ``delivery_timeout``.

        Raises:
            UnknownTopicError, UnknownPartitionError: nothing to read from.
            OffsetOutOfRangeError: the offset is not kept any more, or not there
                yet; ``metadata`` has the range.
            InvalidArgumentError: a place that is none.
            HoldfastError: no broker could be read from for ``timeout`` seconds.
        """
        async with aclosing(
            self.replay_batches(
                topic,
                start=start,
                end=end,
                partitions=partitions,
                follow=follow,
                linearizable=linearizable,
                time_basis=time_basis,
                timeout=timeout,
            )
        ) as batches:
            async for batch in batches:
                for record in batch.records():
                    yield record

    async def replay_batches(
        self,
        topic: str,
        *,
        start: Place = "earliest",
        end: Place | None = None,
        partitions: Collection[int] = (),
        follow: bool = False,
        linearizable: bool = False,
        time_basis: TimeBasis = "record",
        timeout: float | None = None,
        on_caught_up: Callable[[], None] | None = None,
    ) -> AsyncGenerator[Batch, None]:
        """Like ``replay``, batch by batch and column by column: several times faster.

        ``on_caught_up`` is called once everything that was in the log at the
        time of the call has been read; a following replay then waits for more.

        Raises:
            HoldfastError: as ``replay``.
        """
        reading = Replay(
            self._connected,
            topic,
            start=start,
            end=end,
            partitions=partitions,
            follow=follow,
            linearizable=linearizable,
            time_basis=time_basis,
            timeout=self.options.delivery_timeout if timeout is None else timeout,
        )
        async with aclosing(reading.batches()) as items:
            async for item in items:
                if not isinstance(item, CaughtUp):
                    yield item
                elif on_caught_up is not None:
                    on_caught_up()

    def subscribe(
        self,
        topics: str | Sequence[str],
        group: str,
        *,
        max_in_flight: int = 1000,
        initial: Literal["earliest", "latest"] | datetime = "earliest",
        auto_ack: bool = False,
        name: str | None = None,
        give_up_after: float | None = 60.0,
        on_event: Callable[[SubscriptionEvent], None] | None = None,
    ) -> Subscription:
        """Consume as a member of a group, whose partitions are shared among its members.

        ::

            async for record in bus.subscribe("orders", group="billing"):
                ...
                record.ack()

        Args:
            topics: one or several.
            group: its offsets are durable; a name never seen starts at ``initial``.
            max_in_flight: records delivered and not acknowledged, at most.
            initial: where a partition starts that the group has no offset in.
            auto_ack: acknowledge each record when the next one is asked for.
            name: shown by brokers; None: the client's.
            give_up_after: seconds without a broker after which iteration
                fails; None: never.
            on_event: told of assignments, commits, refused acknowledgements and
                broken connections; must return at once.

        Raises (while iterating):
            UnknownTopicError, InvalidArgumentError: it cannot be consumed.
            HoldfastError: no broker for ``give_up_after`` seconds.
        """
        subscription = Subscription(
            self._connected,
            [topics] if isinstance(topics, str) else topics,
            group,
            max_in_flight=max_in_flight,
            initial=initial,
            auto_ack=auto_ack,
            name=self.options.name if name is None else name,
            give_up_after=give_up_after,
            timeout=self.options.timeout,
            on_event=on_event,
            on_end=self._subscriptions.discard,
        )
        self._subscriptions.add(subscription)
        return subscription

    # -- topics and the cluster ----------------------------------------------------

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = 0,
        max_record_bytes: int = 0,
        retention_ms: int = 0,
        retention_bytes: int = 0,
        idempotency_ttl_ms: int = 0,
        if_not_exists: bool = False,
        timeout: float | None = None,
    ) -> TopicInfo:
        """Create a topic.

        Args:
            name: 1 to 249 characters of ``[A-Za-z0-9._-]``.
            partitions: 1 to 1024; 0: the broker's default.
            max_record_bytes: largest record; 0: the broker's default.
            retention_ms: keep records this long, by append time; 0: for ever.
            retention_bytes: size a partition is trimmed to; 0: no limit.
            idempotency_ttl_ms: for so long a repeat of an idempotency key is known, 1,000 to
                604,800,000 (7 days); 0: the topic takes no such keys.
            if_not_exists: be content with an existing topic of as many partitions.

        Raises:
            TopicExistsError: there is one already.
            InvalidArgumentError: name, partitions or limits make no sense.
        """
        limits = _limits(max_record_bytes, retention_ms, retention_bytes, idempotency_ttl_ms)
        created = await self._administrator.create_topic(name, partitions, limits, if_not_exists, timeout)
        self._forget(name)
        return created

    async def topic(self, name: str, *, timeout: float | None = None) -> TopicInfo:
        """A topic and the offsets of its partitions.

        Raises:
            UnknownTopicError: there is none of this name.
        """
        return await self._administrator.topic(name, timeout)

    async def topics(self, *, timeout: float | None = None) -> list[TopicInfo]:
        """All topics.

        Raises:
            HoldfastError: no broker answered in time.
        """
        return await self._administrator.topics(timeout)

    async def update_topic(
        self,
        name: str,
        *,
        max_record_bytes: int = 0,
        retention_ms: int = 0,
        retention_bytes: int = 0,
        idempotency_ttl_ms: int = 0,
        timeout: float | None = None,
    ) -> TopicInfo:
        """Replace a topic's limits, all of them.

        Args:
            max_record_bytes: largest record; 0: the broker's default.
            retention_ms: milliseconds after which records are trimmed; 0: never.
            retention_bytes: size a partition is trimmed to; 0: no limit.
            idempotency_ttl_ms: for so long a repeat of an idempotency key is known from now on,
                those of earlier records as long as was said then; 0: no keys are taken.

        Raises:
            UnknownTopicError: there is none of this name.
            InvalidArgumentError: over a limit of the cluster.
        """
        limits = _limits(max_record_bytes, retention_ms, retention_bytes, idempotency_ttl_ms)
        updated = await self._administrator.update_topic(name, limits, timeout)
        self._forget(name)
        return updated

    async def delete_topic(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a topic, its records, and the offsets groups hold in it.

        Raises:
            UnknownTopicError: there is none of this name.
        """
        await self._administrator.delete_topic(name, timeout)
        self._forget(name)

    async def status(self, *, timeout: float | None = None) -> ClusterInfo:
        """What the broker that is asked knows of itself and its cluster.

        Raises:
            HoldfastError: no broker answered in time.
        """
        return await self._administrator.status(timeout)

    async def statuses(self, *, timeout: float = 2.0) -> dict[str, ClusterInfo | HoldfastError]:
        """Every known broker's own view, by address; the error of those that gave none."""
        return await self._administrator.statuses(timeout)

    async def digest(
        self, topic: str = "", *, min_applied_index: int = 0, timeout: float | None = None
    ) -> list[PartitionDigest]:
        """Digests of one broker's partitions; equal on replicas that agree.

        Args:
            topic: empty: all.
            min_applied_index: wait until the broker has applied this log index.

        Raises:
            UnknownTopicError: no such topic.
            DeadlineExceededError: the index was not reached in time.
        """
        return await self._administrator.digest(topic, min_applied_index, timeout)

    # -- parts -----------------------------------------------------------------------

    @property
    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            raise _not_open(self._closed)
        return self._connection

    @property
    def _publisher(self) -> Producer:
        if self._producer is None:
            raise _not_open(self._closed)
        return self._producer

    @property
    def _keyed_publisher(self) -> KeyedProducer:
        if self._keyed is None:
            raise _not_open(self._closed)
        return self._keyed

    def _forget(self, topic: str) -> None:
        """What was known of a topic holds no longer."""
        self._publisher.forget(topic)
        self._keyed_publisher.forget(topic)

    @property
    def _administrator(self) -> Admin:
        if self._admin is None:
            raise _not_open(self._closed)
        return self._admin


def connect(
    endpoints: str | Sequence[str],
    *,
    linger_ms: float = 3.0,
    batch_bytes: int = 1 << 20,
    max_in_flight: int = 5,
    max_buffered_bytes: int = 64 << 20,
    delivery_timeout: float = 30.0,
    timeout: float = 10.0,
    connect_timeout: float = 10.0,
    compression: Literal["none", "zstd"] = "none",
    trace_context: bool = True,
    discover: bool = True,
    credentials: grpc.ChannelCredentials | None = None,
    name: str = "",
) -> Client:
    """A client of the cluster at these endpoints: ``async with holdfast.connect("host:7450") as bus``.

    One reachable broker is enough; the others are learnt from it. The options
    are those of ``ClientOptions``, which says what each means.

    Raises:
        InvalidArgumentError: an endpoint or option makes no sense.
    """
    options = ClientOptions(
        linger_ms=linger_ms,
        batch_bytes=batch_bytes,
        max_in_flight=max_in_flight,
        max_buffered_bytes=max_buffered_bytes,
        delivery_timeout=delivery_timeout,
        timeout=timeout,
        connect_timeout=connect_timeout,
        compression=compression,
        trace_context=trace_context,
        discover=discover,
        credentials=credentials,
        name=name,
    )
    return Client(endpoints, options)


def _limits(
    max_record_bytes: int, retention_ms: int, retention_bytes: int, idempotency_ttl_ms: int
) -> topics_pb2.TopicLimits:
    return topics_pb2.TopicLimits(
        max_record_bytes=max_record_bytes,
        retention_ms=retention_ms,
        retention_bytes=retention_bytes,
        idempotency_ttl_ms=idempotency_ttl_ms,
    )


def _not_open(closed: bool) -> ClosedError:
    if closed:
        return ClosedError("the client has been closed")
    return ClosedError("the client is not open yet: use it inside `async with holdfast.connect(...)`")
