"""One group over a store: its rows as the log would write them, its flows, and what its members are sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import xxhash

from holdfast.cluster.delivery.batch_cache import BatchCache
from holdfast.cluster.delivery.dispatch import next_delivery, open_flow
from holdfast.cluster.delivery.effects import Effect
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.leases import Holder
from holdfast.cluster.delivery.outcomes import Charged
from holdfast.cluster.delivery.parcels import Parcel
from holdfast.cluster.delivery.runs import Range
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.group_definition import Definition, Ordering, backoff_ms
from holdfast.records import decode_batch, encode_batch
from holdfast.storage import acks, bits, flow_keys, groups, journal, partitions, retries
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Writer
from holdfast.storage.retries import RetryRow, State
from holdfast.v1 import log_pb2

TOPIC = 1
GROUP = "g"
ROOM = 1 << 20


class Log:
    """Partitions of one topic in a memory store."""

    def __init__(self, count: int = 1) -> None:
        self.store = MemoryStore()
        self.records: dict[int, list[tuple[bytes, bytes]]] = {number: [] for number in range(count)}
        w = self.store.writer()
        for number in self.records:
            partitions.create(w, TOPIC, number)
        self.store.commit()
        self._index = 1

    def append(
        self,
        partition: int,
        keys: Sequence[bytes],
        size: int = 0,
        headers: Sequence[Sequence[tuple[str, bytes]]] | None = None,
    ) -> bytes:
        """One batch; the values are the records' places, padded to ``size``. The stored bytes."""
        first = len(self.records[partition])
        values = [b"%d/%d" % (partition, first + i) for i in range(len(keys))]
        values = [value.ljust(size, b".") for value in values]
        self._index += 1
        data = encode_batch(values, keys, [7 + first + i for i in range(len(keys))], headers)
        w = self.store.writer()
        state = partitions.read_state(w, TOPIC, partition)
        assert state is not None
        journal.append(w, self._index, 1, 0, data)
        partitions.add_refs(w, self._index, 1)
        partitions.append_batch(
            w,
            TOPIC,
            partition,
            state,
            log_index=self._index,
            position=journal.ROW_HEADER,
            length=len(data),
            count=len(keys),
            append_time_us=100 + self._index,
            min_ts=7 + first,
            max_ts=6 + first + len(keys),
            batch_hash=xxhash.xxh3_128_intdigest(data),
        )
        self.store.commit()
        self.records[partition] += zip(keys, values, strict=True)
        return data

    def trim(self, partition: int, before: int) -> int:
        """Drop whole batches below an offset; where the partition starts now."""
        state = partitions.trim(self.store.writer(), TOPIC, partition, before, 1_000)
        self.store.commit()
        return state.start_offset


@dataclass
class Charge:
    """One record, as an operation charges it."""

    offset: int
    cause: log_pb2.RetryCause
    lane: int
    delay_ms: int | None = None


@dataclass
class Op:
    """What a settle of one partition proposes."""

    partition: int
    ranges: list[Range] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)


class Rows:
    """The rows of the group; ``apply`` is the rule of SettleOp in its plainest form."""

    def __init__(self, store: MemoryStore, definition: Definition) -> None:
        self.store = store
        self.definition = definition

    def floor(self, partition: int) -> int:
        with self.store.read() as r:
            return groups.committed(r, GROUP, TOPIC, partition) or 0

    def settled(self, partition: int) -> set[int]:
        """Offsets settled above the floor."""
        with self.store.read() as r:
            return {
                offset
                for chunk, value in acks.scan(r, _flow(partition))
                for first, end in bits.ranges_of(chunk, value)
                for offset in range(first, end)
                if offset >= self.floor(partition)
            }

    def retries(self, partition: int) -> dict[int, RetryRow]:
        with self.store.read() as r:
            return dict(retries.scan(r, _flow(partition)))

    def load(self, flow: Flow) -> None:
        """Fill an empty flow."""
        number = flow.key[1]
        with self.store.read() as r:
            chunks = list(acks.scan(r, _flow(number)))
            rows = list(retries.scan(r, _flow(number)))
        flow.load(self.floor(number), chunks, rows)

    def reload(self, flow: Flow, charged: set[int]) -> None:
        number = flow.key[1]
        with self.store.read() as r:
            chunks = list(acks.scan(r, _flow(number)))
            rows = list(retries.scan(r, _flow(number)))
        flow.reload(self.floor(number), chunks, rows, charged)

    def seek(self, partition: int, floor: int) -> None:
        w = self.store.writer()
        acks.drop(w, _flow(partition), 1_000)
        retries.drop(w, _flow(partition), 100_000)
        groups.commit_offset(w, GROUP, TOPIC, partition, floor)
        self.store.commit()

    def apply(self, op: Op, stamp_us: int) -> dict[int, RetryRow | None]:
        """The rows of what was charged, as they are then; None: settled."""
        flow = _flow(op.partition)
        w = self.store.writer()
        ranges = list(op.ranges)
        found: dict[int, RetryRow | None] = {}
        for charge in op.charges:
            if self._is_settled(op.partition, charge.offset):
                found[charge.offset] = None
                continue
            row = self._charged(charge, retries.read(w, flow, charge.offset), op.partition, stamp_us)
            found[charge.offset] = row
            if row is None:
                ranges.append((charge.offset, charge.offset + 1))
            else:
                retries.write(w, flow, charge.offset, row)
        for chunk, value in bits.chunks_of(ranges).items():
            acks.write(w, flow, chunk, acks.read(w, flow, chunk) | value)
        for offset in list(self._rows(w, flow)):
            if any(first <= offset < end for first, end in ranges):
                retries.delete(w, flow, offset)
        self._advance(w, op.partition)
        self.store.commit()
        return found

    def _is_settled(self, partition: int, offset: int) -> bool:
        return offset < self.floor(partition) or offset in self.settled(partition)

    @staticmethod
    def _rows(w: Writer, flow: bytes) -> list[int]:
        return [offset for offset, _ in retries.scan(w, flow)]

    def _charged(
        self, charge: Charge, had: RetryRow | None, partition: int, stamp_us: int
    ) -> RetryRow | None:
        row = had or RetryRow(0, 0, State.WAITING, stamp_us, stamp_us, charge.lane)
        cause = charge.cause
        counts = cause not in (log_pb2.RETRY_CAUSE_PARK, log_pb2.RETRY_CAUSE_LET_GO)
        attempts = row.attempts + counts
        most = self.definition.max_attempts
        if cause == log_pb2.RETRY_CAUSE_REJECT or (
            0 < most <= attempts and cause != log_pb2.RETRY_CAUSE_PARK
        ):
            return None  # a dead letter
        state, due = State.WAITING, stamp_us
        if cause == log_pb2.RETRY_CAUSE_LOST:
            state = State.SUSPECT
        elif cause == log_pb2.RETRY_CAUSE_PARK:
            state = State.PARKED_FOR_GOOD if charge.delay_ms is None else State.PARKED
            due = retries.NEVER_US if charge.delay_ms is None else stamp_us + charge.delay_ms * 1_000
        elif cause != log_pb2.RETRY_CAUSE_LET_GO:
            identity = _flow(partition) + charge.offset.to_bytes(8)
            delay = charge.delay_ms
            due += 1_000 * (backoff_ms(self.definition, identity, attempts) if delay is None else delay)
        return RetryRow(attempts, row.losses, state, due, row.first_failed_us, row.lane)

    def _advance(self, w: Writer, partition: int) -> None:
        floor = groups.committed(w, GROUP, TOPIC, partition) or 0
        flow = _flow(partition)
        while acks.read(w, flow, floor // bits.CHUNK_BITS) >> floor % bits.CHUNK_BITS & 1:
            floor += 1
        acks.drop(w, flow, 1_000, floor // bits.CHUNK_BITS)
        retries.drop(w, flow, 1_000, floor)
        groups.commit_offset(w, GROUP, TOPIC, partition, floor)

    def raise_floor(self, partition: int, floor: int) -> None:
        w = self.store.writer()
        groups.commit_offset(w, GROUP, TOPIC, partition, max(floor, self.floor(partition)))
        self._advance(w, partition)
        self.store.commit()


class OneGroup:
    """What ``Delivering`` asks for; members of a partition in order own by number."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.settings = DeliverySettings(credit_linger=0.0)
        self.aside: Holder | None = None
        self.flows: dict[int, Flow] = {}
        self.owners: dict[int, Holder] = {}
        self.effects: list[Effect] = []

    def open(self, rows: Rows, partition: int) -> Flow:
        flow = open_flow((TOPIC, partition), "t", self.definition)
        rows.load(flow)
        self.flows[partition] = flow
        return flow

    def flows_of(self, holder: Holder) -> list[Flow]:
        if self.definition.ordering == Ordering.PARTITION:
            return [flow for number, flow in self.flows.items() if self.owners.get(number) is holder]
        return list(self.flows.values())

    def tell(self, effect: Effect) -> None:
        self.effects.append(effect)


@dataclass
class Sent:
    """A record as a member gets it."""

    flow: Flow
    offset: int
    key: bytes
    value: bytes
    attempts: int
    whole: bool

    @property
    def place(self) -> tuple[int, int]:
        return self.flow.key[1], self.offset


def unpack(parcel: Parcel) -> list[Sent]:
    """The records of a parcel, in the order in which they stand in it."""
    sent: list[Sent] = []
    for flow, slices in parcel.whole:
        for it in slices:
            batch = decode_batch(it.data)
            base = it.row.base_offset
            sent += [
                Sent(flow, offset, batch.keys[offset - base], batch.values[offset - base], 0, True)
                for offset in range(it.first, it.last + 1)
            ]
    for picked in parcel.sparse:
        batch = decode_batch(picked.batch)
        attempts = picked.attempts or [0] * batch.count
        sent += [
            Sent(picked.flow, *record, False)
            for record in zip(picked.offsets, batch.keys, batch.values, attempts, strict=True)
        ]
    assert len(sent) == parcel.records
    return sent


class World:
    """A log, a group over it, and its members; for directed tests."""

    def __init__(self, definition: Definition, count: int = 1) -> None:
        self.log = Log(count)
        self.rows = Rows(self.log.store, definition)
        self.group = OneGroup(definition)
        self.cache = BatchCache()
        self.now = 0.0
        self.stamp_us = 1_000_000
        for number in range(count):
            self.group.open(self.rows, number)

    @property
    def flow(self) -> Flow:
        return self.group.flows[0]

    def member(self, name: str = "m", credits: int = 1_000, **more: object) -> Holder:
        """A member; the first one owns all partitions."""
        holder = Holder(name, credits, **more)  # type: ignore[arg-type]
        for number in self.group.flows:
            self.group.owners.setdefault(number, holder)
        return holder

    def append(self, *keys: bytes, partition: int = 0, size: int = 0) -> bytes:
        data = self.log.append(partition, keys, size)
        self.group.flows[partition].touch()
        return data

    def parcel(self, holder: Holder, room: int = ROOM) -> Parcel | None:
        with self.log.store.read() as reader:
            return next_delivery(reader, self.group, holder, self.cache, room, self.now, self.stamp_us)

    def offsets(self, holder: Holder, room: int = ROOM) -> list[int]:
        """What a member is sent of the first partition."""
        parcel = self.parcel(holder, room)
        return [] if parcel is None else [it.offset for it in unpack(parcel)]

    def apply(
        self,
        charges: Iterable[Charged | None],
        cause: log_pb2.RetryCause = log_pb2.RETRY_CAUSE_NACK,
        delay_ms: int | None = None,
        partition: int = 0,
    ) -> None:
        """Propose charges, have them applied, and tell the flow."""
        wanted = [Charge(it.offset, cause, it.lane, delay_ms) for it in charges if it is not None]
        found = self.rows.apply(Op(partition, charges=wanted), self.stamp_us)
        tell_results(self.group.flows[partition], found)


def tell_results(flow: Flow, found: dict[int, RetryRow | None]) -> None:
    for offset, row in found.items():
        if row is None:
            flow.settled_in_log([(offset, offset + 1)])
        else:
            flow.result(offset, row.attempts, row.state, row.due_us)


def defined(ordering: Ordering, **more: object) -> Definition:
    return Definition(topics=("t",), ordering=ordering, **more)  # type: ignore[arg-type]


def _flow(partition: int) -> bytes:
    return flow_keys.flow_key(GROUP, TOPIC, partition)
