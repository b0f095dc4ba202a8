"""A leader without a cluster: the state machine and the groups of brokers, over a store in memory.

What is proposed is applied at once, stamped with virtual time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

from holdfast.cluster.commands import encode_entry, encode_op
from holdfast.cluster.delivery.batch_cache import BatchCache
from holdfast.cluster.delivery.burial import Burial
from holdfast.cluster.delivery.claims import Claim
from holdfast.cluster.delivery.live_groups import LiveGroups
from holdfast.cluster.delivery.reading import PartitionRef
from holdfast.cluster.delivery.redrive import Found, read_page
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.delivery.surroundings import Surroundings, Token
from holdfast.cluster.results import Completed
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.machine import StateMachine
from holdfast.errors import (
    DuplicateKeysError,
    HoldfastError,
    InternalError,
    NoLeaderError,
    UnknownTopicError,
    from_reason,
)
from holdfast.rpc.services.publish_request import PublishEncoder
from holdfast.rpc.services.transact_request import Transaction, check_request
from holdfast.rpc.settings import Limits
from holdfast.storage import journal, partitions, topics
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.topics import TopicRow
from holdfast.testing.clock import VirtualClock
from holdfast.v1 import bus_pb2, log_pb2, records_pb2, topics_pb2

#: Of topics made on first use.
PARTITIONS = 3
#: Acks wait for no company: nobody else is there.
_SETTINGS = DeliverySettings(commit_delay=0.0, credit_linger=0.0)
#: Proposals of one transaction, as at a broker.
_ROUNDS = 4
_PAGE = 1_024
_PAGE_BYTES = 1 << 20


class LocalBroker:
    """One broker, which leads.

    Attributes:
        live: the groups of its present term.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.settings = _SETTINGS
        self.store = MemoryStore()
        self._clock = clock
        self._limits = StateLimits()
        self._machine = StateMachine(self._limits)
        self._encoder = PublishEncoder(Limits(), _Times(clock))
        self._stamped_us = 0
        self._index = journal.read_meta(self.store.writer()).last_index
        self._term = 0
        self._proposed: deque[tuple[bytes, Token]] = deque()
        self.live = self._lead()

    # -- topics and records -------------------------------------------------------

    def topic(self, name: str) -> TopicRow | None:
        """A topic's row; None: there is none of this name."""
        with self.store.read() as reader:
            return topics.find(reader, name)

    def create_topic(self, name: str, count: int = PARTITIONS, **limits: int) -> None:
        """
        Raises:
            HoldfastError: as ``Client.create_topic``.
        """
        op = log_pb2.CreateTopicOp(name=name, partitions=count, limits=topics_pb2.TopicLimits(**limits))
        self._do(encode_op(log_pb2.Op(create_topic=op)))

    def need_topic(self, name: str, count: int = PARTITIONS, **limits: int) -> TopicRow:
        """A topic, made if it is not there."""
        row = self.topic(name)
        if row is None:
            self.create_topic(name, count, **limits)
            row = self.topic(name)
            assert row is not None
        return row

    def batches(self, name: str) -> Iterator[records_pb2.StoredBatch]:
        """All that was published to a topic, partition by partition.

        Raises:
            UnknownTopicError: there is no such topic.
        """
        row = self._known(name)
        with self.store.read() as reader:
            for number in range(row.partitions):
                for at in partitions.index_scan(reader, row.id, number, 0):
                    yield records_pb2.StoredBatch(
                        topic=name,
                        partition=number,
                        base_offset=at.base_offset,
                        append_time_us=at.append_time_us,
                        batch=partitions.read_batch(reader, at),
                    )

    def dead_letters(self, name: str) -> Iterator[Found]:
        """What a dead-letter topic lists, partition by partition.

        Raises:
            UnknownTopicError: there is no such topic.
        """
        row = self._known(name)
        with self.store.read() as reader:
            for number in range(row.partitions):
                state = partitions.read_state(reader, row.id, number)
                offset, end = 0, 0 if state is None else state.next_offset
                ref = PartitionRef(name, row.id, number)
                while offset < end:
                    page = read_page(reader, ref, offset, end, _PAGE, _PAGE_BYTES)
                    if page is None:
                        break
                    yield from page.found
                    offset = page.next_offset

    def _known(self, name: str) -> TopicRow:
        row = self.topic(name)
        if row is None:
            raise UnknownTopicError(f"there is no topic {name!r}", metadata={"topic": name})
        return row

    # -- transactions ---------------------------------------------------------------

    def transact(self, request: bus_pb2.TransactRequest) -> bus_pb2.TransactResponse:
        """Records published and consumed ones settled, all or nothing.

        Raises:
            HoldfastError: nothing was done.
        """
        check_request(request, self._limits)
        rows = {item.topic: self.need_topic(item.topic) for item in request.appends}
        claims: list[Claim] = []
        outcome: HoldfastError | None = None
        try:
            consume = []
            for item in request.consume:
                claims.append(self.live.claim(item))
                consume.append(claims[-1].settle)
            transaction = Transaction(request, rows, consume, self._encoder, self._limits)
            self._commit(transaction)
            return transaction.answer()
        except HoldfastError as error:
            outcome = error
            raise
        finally:
            for claim in claims:
                self.live.decided(claim, outcome, self._index)

    def _commit(self, transaction: Transaction) -> None:
        for _ in range(_ROUNDS):
            if not transaction.left:
                return
            result = self._apply(transaction.op())
            if result.error.reason == DuplicateKeysError.reason:
                transaction.repeated(result.marked)
                continue
            transaction.stored(_unwrap(result).transact)
        if transaction.left:
            raise InternalError("idempotency keys that are known and are not")

    # -- the log ----------------------------------------------------------------------

    def _propose(self, framed: bytes, token: Token) -> None:
        # Groups are not to be answered while they ask.
        self._proposed.append((framed, token))

    def _do(self, framed: bytes) -> log_pb2.OpResult:
        return _unwrap(self._apply(framed))

    def _apply(self, framed: bytes) -> log_pb2.OpResult:
        """One entry with one operation, visible at once."""
        self._stamped_us = self._stamp_us() + 1
        self._index += 1
        entry = encode_entry(self._stamped_us, [framed])
        w = self.store.writer()
        journal.append(w, self._index, 1, journal.EntryKind.COMMAND, entry)
        applied = self._machine.apply(w, self._index, entry)
        journal.set_commit(w, self._index)
        journal.set_applied(w, self._index)
        self.store.commit()
        live = self.live
        live.visible(self._index)
        live.touch(sorted(applied.touched))
        if applied.topics_changed:
            live.topics_changed(self._index)
        if applied.groups_changed:
            live.changed(sorted(applied.groups_changed), self._index)
        return applied.results[0]

    def _stamp_us(self) -> int:
        return max(self._clock.wall_us(), self._stamped_us)

    # -- the leader ---------------------------------------------------------------------

    def turn(self) -> bool:
        """Answer what was proposed, do what is due; False: nothing was proposed."""
        self.live.tick()
        some = bool(self._proposed)
        while self._proposed:
            framed, token = self._proposed.popleft()
            result = self._apply(framed)
            self.live.answered(token, Completed(token, result, None, self._index))
        return some

    def due(self) -> float:
        """When something is to be done; infinity: not before something happens."""
        at = self.live.tick()
        return math.inf if at is None else at

    def restart(self) -> None:
        """Another term: nothing is left but what is in the log."""
        self._proposed.clear()
        self.live.end_all(NoLeaderError("the broker was restarted"))
        self.live = self._lead()

    def _lead(self) -> LiveGroups:
        self._term += 1
        cache = BatchCache()
        around = Surroundings(
            settings=self.settings,
            limits=self._limits,
            read=self.store.read,
            propose=self._propose,
            stamp_us=self._stamp_us,
            cache=cache,
            letters=Burial(cache),
            visible=self._index,
        )
        return LiveGroups(self._term, around, self._clock.time)


class _Times:
    """The clock as brokers know it."""

    def __init__(self, clock: VirtualClock) -> None:
        self.monotonic: Callable[[], float] = clock.time
        self.wall_us: Callable[[], int] = clock.wall_us


def _unwrap(result: log_pb2.OpResult) -> log_pb2.OpResult:
    if result.HasField("error"):
        wire = result.error
        raise from_reason(
            wire.reason, wire.message, metadata=dict(wire.metadata), retry_after_ms=wire.retry_after_ms
        )
    return result
