"""Transactions: records published and consumed ones settled, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, TypeGuard

from holdfast.client.connection import Connection, Method, Tries
from holdfast.client.inputs import HeadersInput, to_bytes, to_headers, to_key
from holdfast.client.times import to_us
from holdfast.client.tracing import Inject
from holdfast.client.types import Ack, Record
from holdfast.errors import (
    AlreadySettledError,
    DeadlineExceededError,
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
)
from holdfast.v1 import bus_pb2

TRANSACT: Method[bus_pb2.TransactRequest, bus_pb2.TransactResponse] = Method(
    "EventBus", "Transact", bus_pb2.TransactResponse
)

#: What brokers take in one transaction, in bytes of keys, values and headers.
MAX_BYTES = 16 << 20
#: Brokers know the answer of a transaction for a minute: it must not be repeated later.
_LONGEST_SECONDS = 50.0
#: One round of tries. Each asks anew under which lease the records are this member's: a change of
#: leader gives out new ones.
_ROUND_SECONDS = 2.0
_RECONNECT_SECONDS = 0.05
#: A leader that does not know a session is a new one, most likely: so long the member may take to notice.
_NOTICE_SECONDS = 3.0

#: Somebody else has the records now, or has settled them.
_REFUSED = (AlreadySettledError, FencedError, LeaseExpiredError, NotDeliveredError)


class Consumer(Protocol):
    """Where consumed records come from."""

    @property
    def group(self) -> str: ...

    def consumed(self, records: Iterable[Record]) -> None:
        """A transaction has settled these records."""
        ...


class Leaseholder(Consumer, Protocol):
    """A member whose records are leased to it: a transaction names the lease."""

    @property
    def session(self) -> str:
        """Names the present connection; empty between two."""
        ...

    def lease(self, record: Record) -> tuple[int, int] | None:
        """Slot and lease under which the record is this member's; None: it is not."""
        ...


class Placeholder(Consumer, Protocol):
    """A member whose records have no leases: a transaction names their places."""

    def fence(self, topic: str, partition: int) -> int:
        """Since when this member owns the partition; 0: not known."""
        ...


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """What a transaction did.

    Attributes:
        acks: where the records stand, in the order of the calls of ``publish``.
    """

    acks: tuple[Ack, ...]


class Transaction:
    """One transaction. Made by ``Client.transaction``; use it with ``async with``.

    Nothing is sent before the end of the block, and nothing happens when it
    ends with an exception.
    """

    def __init__(
        self,
        connection: Connection,
        transaction_id: bytes,
        inject: Inject,
        wall_us: Callable[[], int],
        timeout: float,
    ) -> None:
        self._connection = connection
        self._inject = inject
        self._wall_us = wall_us
        self._timeout = min(timeout, _LONGEST_SECONDS)
        self._request = bus_pb2.TransactRequest(transaction_id=transaction_id)
        self._topics: dict[str, bus_pb2.TopicRecords] = {}
        #: Of each record, its topic and number there.
        self._order: list[tuple[str, int]] = []
        self._bytes = 0
        self._consumed: dict[int, tuple[Consumer, dict[tuple[str, int, int], Record]]] = {}
        self._result: TransactionResult | None = None
        self._over = False

    @property
    def result(self) -> TransactionResult:
        """What it did, once it is committed.

        Raises:
            FailedPreconditionError: it is not.
        """
        if self._result is None:
            raise FailedPreconditionError("the transaction is not committed")
        return self._result

    def publish(
        self,
        topic: str,
        value: bytes,
        key: bytes | str | None = None,
        *,
        headers: HeadersInput = None,
        timestamp: datetime | int | None = None,
        idempotency_key: bytes | str | None = None,
    ) -> None:
        """Add a record. Those of one topic keep their order; those without a key share a partition.

        Args:
            idempotency_key: where the topic has a window for it, a record of a key that it knows
                is not stored again; the rest of the transaction is done all the same.

        Raises:
            InvalidArgumentError: an argument is of the wrong kind.
            TransactionTooLargeError: the transaction is full.
            FailedPreconditionError: the transaction is over.
        """
        self._check_open()
        if not isinstance(topic, str) or not topic:
            raise InvalidArgumentError("topic must be a name", metadata={"field": "topic"})
        record_key = b"" if key is None else to_key(key)
        content = to_bytes(value, "value")
        pairs = to_headers(headers, self._inject()) or ()
        time_us = self._wall_us() if timestamp is None else to_us(timestamp)
        mark = b"" if idempotency_key is None else _idempotency_key(idempotency_key)
        size = len(record_key) + len(content) + sum([len(name) + len(held) for name, held in pairs])
        if self._bytes + size > MAX_BYTES:
            raise TransactionTooLargeError(
                f"the transaction would hold {self._bytes + size} bytes; at most {MAX_BYTES} are taken: "
                "make it several",
                metadata={"size": str(self._bytes + size), "limit": str(MAX_BYTES)},
            )
        records = self._topics.get(topic)
        if records is None:
            records = self._topics[topic] = bus_pb2.TopicRecords(topic=topic)
        added = records.records.add(key=record_key, value=content, timestamp_us=time_us)
        for name, held in pairs:
            added.headers.add(name=name, value=held)
        number = len(records.records) - 1
        if mark or records.idempotency_keys:
            records.idempotency_keys.extend([b""] * (number - len(records.idempotency_keys)))
            records.idempotency_keys.append(mark)
        self._bytes += size
        self._order.append((topic, number))

    def consume(self, record: Record) -> None:
        """Settle a consumed record with the transaction; no ``ack`` is needed. Twice is once.

        Raises:
            FailedPreconditionError: the record was replayed, not consumed; or the transaction is over.
        """
        self._check_open()
        source = record.subscription
        if not (_has_leases(source) or _has_places(source)):
            raise FailedPreconditionError(
                "a transaction consumes records of a group, not replayed ones; use subscribe()"
            )
        _, records = self._consumed.setdefault(id(source), (source, {}))
        records[record.topic, record.partition, record.offset] = record

    async def commit(self) -> TransactionResult:
        """Do it all. The end of the ``async with`` block does this.

        Tried again, as the same transaction, until it is answered or the time is over.

        Raises:
            TransactionRefusedError: a record is somebody else's now, or was settled: nothing was done,
                and ``reason`` of its ``__cause__`` says which.
            OutcomeUnknownError, DeadlineExceededError: it may have been done. What was consumed comes again
                if it was not.
            HoldfastError: what a publish may be refused with; nothing was done.
        """
        self._check_open()
        self._over = True
        if not self._order and not self._consumed:
            self._result = TransactionResult(())
            return self._result
        response = await self._commit()
        for source, records in self._consumed.values():
            source.consumed(records.values())
        self._result = TransactionResult(self._acks(response))
        return self._result

    @property
    def open(self) -> bool:
        """It is neither committed nor given up."""
        return not self._over

    def abandon(self) -> None:
        """Do nothing of it; what was consumed stays as it was."""
        self._over = True

    async def __aenter__(self) -> Transaction:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()
        elif self.open:
            await self.commit()

    # -- the call ------------------------------------------------------------------

    async def _commit(self) -> bus_pb2.TransactResponse:
        self._request.appends.extend(self._topics.values())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        backoff = self._connection.backoff()
        tries = Tries()
        unknown_since: float | None = None
        while True:
            sessions = self._sessions()
            try:
                self._name_consumed(again=tries.uncertain)
                left = min(deadline - loop.time(), _ROUND_SECONDS)
                return await self._connection.call(TRANSACT, self._request, max(left, 0.001), tries)
            except _REFUSED as error:
                now = loop.time()
                if isinstance(error, NotDeliveredError) and sessions:
                    unknown_since = now if unknown_since is None else unknown_since
                    patient = now < unknown_since + _NOTICE_SECONDS
                else:
                    patient = False
                # Between two connections of a member its records have other leases, or none yet.
                if not patient and sessions == self._sessions() and all(sessions):
                    raise _refused(error) from error
                failed: HoldfastError = error
            except HoldfastError as error:
                if not error.retriable:
                    raise
                failed = error
            delay = max(backoff.delay(failed.retry_after_ms), _RECONNECT_SECONDS if sessions else 0.0)
            if loop.time() + delay >= deadline:
                if isinstance(failed, _REFUSED):
                    raise _refused(failed) from failed
                raise _late(failed, self._timeout) if tries.uncertain else failed
            await asyncio.sleep(delay)

    def _sessions(self) -> list[str]:
        """Of each member that consumes by lease."""
        return [source.session for source, _ in self._consumed.values() if _has_leases(source)]

    def _name_consumed(self, *, again: bool) -> None:
        """Fill in what is consumed, as it may be named now.

        Args:
            again: the transaction may be done already, so that its records are not their members' any
                more: then it is asked for under the names it had.

        Raises:
            NoLeaderError: a member is between two connections.
            LeaseExpiredError: a record is not its member's any more.
        """
        named: list[bus_pb2.Consumed] = []
        for source, records in self._consumed.values():
            consumed = bus_pb2.Consumed(group=source.group)
            named.append(consumed)
            if _has_leases(source):
                if not source.session:
                    raise NoLeaderError("the member that was handed the records is connecting anew")
                consumed.session = source.session
                by_lease: dict[tuple[int, int], list[int]] = {}
                for record in records.values():
                    lease = source.lease(record)
                    if lease is None:
                        if again:
                            return
                        raise LeaseExpiredError(
                            f"the record at {record.topic}[{record.partition}]@{record.offset} is not this "
                            "member's any more",
                            metadata=_place(record),
                        )
                    by_lease.setdefault(lease, []).append(record.offset)
                for (slot, number), offsets in sorted(by_lease.items()):
                    base, runs = runs_of(sorted(offsets))
                    consumed.offsets.add(slot=slot, lease=number, base=base, runs=runs)
                continue
            by_place: dict[tuple[str, int], list[int]] = {}
            for topic, partition, offset in records:
                by_place.setdefault((topic, partition), []).append(offset)
            fence = source.fence if _has_places(source) else _no_fence
            for (topic, partition), offsets in sorted(by_place.items()):
                base, runs = runs_of(sorted(offsets))
                consumed.places.add(
                    topic=topic, partition=partition, fence=fence(topic, partition), base=base, runs=runs
                )
        self._request.ClearField("consume")
        self._request.consume.extend(named)

    def _acks(self, response: bus_pb2.TransactResponse) -> tuple[Ack, ...]:
        positions = {item.topic: item.positions for item in response.appends}
        acks = []
        for topic, number in self._order:
            known = positions.get(topic, ())
            place = known[number] if number < len(known) else bus_pb2.RecordPosition(offset=-1)
            acks.append(Ack(topic, place.partition, place.offset, place.duplicate))
        return tuple(acks)

    def _check_open(self) -> None:
        if self._over:
            raise FailedPreconditionError("the transaction is over; begin another one")


def _has_leases(source: object) -> TypeGuard[Leaseholder]:
    # To compare with the protocol, member by member, would take a third of a millisecond.
    return hasattr(source, "lease")


def _has_places(source: object) -> TypeGuard[Placeholder]:
    return hasattr(source, "fence")


def runs_of(offsets: Sequence[int]) -> tuple[int, list[int]]:
    """Offsets, ascending and at least one, as OffsetRuns has them: base, and gap and length in turn."""
    runs: list[int] = []
    end = offsets[0]  # of the run before
    first = offsets[0]
    last = first
    for offset in offsets[1:]:
        if offset != last + 1:
            runs += (first - end, last + 1 - first)
            end, first = last + 1, offset
        last = offset
    runs += (first - end, last + 1 - first)
    return offsets[0], runs


def _no_fence(topic: str, partition: int) -> int:
    return 0


def _idempotency_key(key: object) -> bytes:
    found = key.encode() if isinstance(key, str) else to_bytes(key, "idempotency_key")
    if not found:
        raise InvalidArgumentError("an idempotency key is not empty", metadata={"field": "idempotency_key"})
    return found


def _place(record: Record) -> dict[str, str]:
    return {"topic": record.topic, "partition": str(record.partition), "offset": str(record.offset)}


def _refused(error: HoldfastError) -> TransactionRefusedError:
    return TransactionRefusedError(
        f"nothing was done: {error.message}", metadata=error.metadata | {"refused": error.reason}
    )


def _late(error: HoldfastError, timeout: float) -> HoldfastError:
    if isinstance(error, OutcomeUnknownError | DeadlineExceededError):
        return error
    return OutcomeUnknownError(
        f"no answer within {timeout:g} s, the last failure: {error.message}", metadata=error.metadata
    )
