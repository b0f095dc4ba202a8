"""One group over the state machine: its rows, its flows, and what its members are sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from holdfast.cluster.commands import encode_entry, encode_op
from holdfast.cluster.delivery.batch_cache import BatchCache
from holdfast.cluster.delivery.dispatch import next_delivery, open_flow
from holdfast.cluster.delivery.effects import Effect
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.leases import Holder
from holdfast.cluster.delivery.outcomes import Charged
from holdfast.cluster.delivery.parcels import Parcel
from holdfast.cluster.delivery.runs import Range, runs_of
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.group_definition import Definition, Ordering, to_message
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.machine import StateMachine
from holdfast.cluster.state.retry_rules import next_row
from holdfast.records import decode_batch, encode_batch
from holdfast.storage import acks, bits, flow_keys, groups, journal, partitions, retries
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.retries import RetryRow, State
from holdfast.v1 import log_pb2

TOPIC = 1
GROUP = "g"
ROOM = 1 << 20


class Log:
    """One topic, with a topic for dead letters, and a group over it: entries, applied as on a replica."""

    def __init__(self, definition: Definition, count: int = 1) -> None:
        self.definition = definition
        self.store = MemoryStore()
        self.records: dict[int, list[tuple[bytes, bytes]]] = {number: [] for number in range(count)}
        self._machine = StateMachine(StateLimits(max_retries=1_000))
        self._index = 1
        #: The time of the last entry.
        self.stamp_us = 1
        for name, size in (("t", count), ("dead", 1)):
            self._run(log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name=name, partitions=size)))
        put = log_pb2.PutGroupOp(group=GROUP, definition=to_message(definition))
        self._run(log_pb2.Op(put_group=put))

    def _run(self, op: log_pb2.Op, batches: Sequence[bytes] = (), stamp_us: int = 0) -> log_pb2.OpResult:
        """Apply an operation that succeeds."""
        self.stamp_us = max(self.stamp_us, stamp_us)
        entry = encode_entry(self.stamp_us, [encode_op(op, batches)])
        w = self.store.writer()
        self._index += 1
        journal.append(w, self._index, 1, journal.EntryKind.COMMAND, entry)
        (result,) = self._machine.apply(w, self._index, entry).results
        assert not result.HasField("error"), result.error
        self.store.commit()
        return result

    # -- records ------------------------------------------------------------

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
        data = encode_batch(values, keys, [7 + first + i for i in range(len(keys))], headers)
        op = log_pb2.Op(append=_append(TOPIC, partition, len(keys), len(data)))
        self._run(op, [data], self.stamp_us + 1)
        self.records[partition] += zip(keys, values, strict=True)
        return data

    def trim(self, partition: int, before: int) -> int:
        """Drop whole batches below an offset; where the partition starts now."""
        op = log_pb2.TrimOp(topic_id=TOPIC, partition=partition, before_offset=before)
        self._run(log_pb2.Op(trim=op))
        return self.start(partition)

    def start(self, partition: int) -> int:
        with self.store.read() as r:
            state = partitions.read_state(r, TOPIC, partition)
            assert state is not None
            return state.start_offset

    def dead(self) -> int:
        """How many dead letters there are."""
        with self.store.read() as r:
            state = partitions.read_state(r, TOPIC + 1, 0)
            assert state is not None
            return state.next_offset

    # -- rows ---------------------------------------------------------------

    def floor(self, partition: int) -> int:
        with self.store.read() as r:
            return groups.committed(r, GROUP, TOPIC, partition) or 0

    def settled(self, partition: int) -> set[int]:
        """Everything settled in a partition."""
        floor = self.floor(partition)
        return set(range(floor)) | {
            offset
            for chunk, value in self._chunks(partition)
            for first, end in bits.ranges_of(chunk, value)
            for offset in range(first, end)
        }

    def retries(self, partition: int) -> dict[int, RetryRow]:
        """The rows that mean anything; those below the floor go with later steps."""
        floor = self.floor(partition)
        with self.store.read() as r:
            return {at: row for at, row in retries.scan(r, _flow(partition)) if at >= floor}

    def _chunks(self, partition: int) -> list[tuple[int, int]]:
        with self.store.read() as r:
            return list(acks.scan(r, _flow(partition)))

    def load(self, flow: Flow) -> None:
        """Fill an empty flow."""
        number = flow.key[1]
        flow.load(self.floor(number), self._chunks(number), self.retries(number).items())

    def reload(self, flow: Flow, charged: set[int]) -> None:
        number = flow.key[1]
        flow.reload(self.floor(number), self._chunks(number), self.retries(number).items(), charged)

    def seek(self, partition: int, floor: int) -> None:
        op = log_pb2.SeekGroupOp(group=GROUP)
        op.flows.add(topic_id=TOPIC, partition=partition, offset=floor)
        while self._run(log_pb2.Op(seek_group=op)).more:
            pass

    def raise_floor(self, partition: int, floor: int) -> None:
        settle = log_pb2.FlowSettle(topic_id=TOPIC, partition=partition, floor=floor)
        self._run(log_pb2.Op(settle=log_pb2.SettleOp(group=GROUP, flows=[settle])))

    def apply(self, op: Op, stamp_us: int, *, buries: bool = True) -> log_pb2.FlowState:
        """Settle; what it gave.

        Args:
            buries: records that are to die do; else there is no room for dead letters.
        """
        rows, settled = self.retries(op.partition), self.settled(op.partition)
        base, runs = runs_of(op.ranges)
        flow = log_pb2.FlowSettle(topic_id=TOPIC, partition=op.partition, base=base, runs=runs)
        letters: list[bytes] = []
        for charge in op.charges:
            if charge.cause == log_pb2.RETRY_CAUSE_REJECT and not buries:
                continue  # it waits until there is room
            item = flow.retries.add(
                offset=charge.offset, cause=charge.cause, delay_ms=charge.delay_ms, lane=charge.lane
            )
            _, last = next_row(rows.get(charge.offset), item, self.definition, _flow(op.partition), stamp_us)
            if last and buries and charge.offset not in settled:
                item.dead = True
                letters.append(encode_batch([self.records[op.partition][charge.offset][1]]))
        dead = [_append(TOPIC + 1, 0, 1, len(letter)) for letter in letters]
        settle = log_pb2.SettleOp(group=GROUP, flows=[flow], dead=dead)
        result = self._run(log_pb2.Op(settle=settle), letters, stamp_us)
        return result.settle.flows[0]


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


def tell(flow: Flow, state: log_pb2.FlowState) -> None:
    """Tell a flow what became of what was charged."""
    for it in state.retries:
        if it.state == log_pb2.RECORD_STATE_NONE:
            flow.settled_in_log([(it.offset, it.offset + 1)])
        else:
            flow.result(it.offset, it.attempts, State(it.state), it.due_us)


def _append(topic_id: int, partition: int, count: int, length: int) -> log_pb2.AppendOp:
    op = log_pb2.AppendOp(topic_id=topic_id)
    op.batches.add(
        partition=partition, count=count, length=length, min_timestamp_us=7, max_timestamp_us=7 + count
    )
    return op


class OneGroup:
    """What ``Delivering`` asks for; members of a partition in order own by number."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.settings = DeliverySettings(credit_linger=0.0)
        self.aside: Holder | None = None
        self.flows: dict[int, Flow] = {}
        self.owners: dict[int, Holder] = {}
        self.effects: list[Effect] = []

    def open(self, log: Log, partition: int) -> Flow:
        flow = open_flow((TOPIC, partition), "t", self.definition)
        log.load(flow)
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
        self.log = Log(definition, count)
        self.group = OneGroup(definition)
        self.cache = BatchCache()
        self.now = 0.0
        self._stamp_us = 1_000_000
        for number in range(count):
            self.group.open(self.log, number)

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

    @property
    def stamp_us(self) -> int:
        """The stamp clock; set, it never goes back."""
        return max(self._stamp_us, self.log.stamp_us)

    @stamp_us.setter
    def stamp_us(self, value: int) -> None:
        self._stamp_us = value

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
        tell(self.group.flows[partition], self.log.apply(Op(partition, charges=wanted), self.stamp_us))


def defined(ordering: Ordering, **more: object) -> Definition:
    return Definition(topics=("t",), ordering=ordering, **more)  # type: ignore[arg-type]


def _flow(partition: int) -> bytes:
    return flow_keys.flow_key(GROUP, TOPIC, partition)
