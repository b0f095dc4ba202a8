"""Groups on a leader, over the real state machine, a log that loses answers and leaders, clients that die."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from holdfast.cluster.commands import check_op, encode_entry, encode_op
from holdfast.cluster.delivery import dead_letters
from holdfast.cluster.delivery.batch_cache import BatchCache
from holdfast.cluster.delivery.burial import Burial
from holdfast.cluster.delivery.hello import check_start
from holdfast.cluster.delivery.live_group import LiveGroup
from holdfast.cluster.delivery.live_groups import LiveGroups
from holdfast.cluster.delivery.parcels import Parcel
from holdfast.cluster.delivery.runs import ranges_from, ranges_of, runs_of
from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.delivery.surroundings import Surroundings, Token
from holdfast.cluster.results import Completed
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.machine import StateMachine
from holdfast.errors import HoldfastError, OutcomeUnknownError
from holdfast.records import decode_batch, encode_batch
from holdfast.storage import acks, bits, flow_keys, flows, groups, journal, members, partitions, retries
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Reader
from holdfast.storage.retries import RetryRow
from holdfast.v1 import bus_pb2, log_pb2, topics_pb2

GROUP = "g"
T0 = 1_700_000_000_000_000
ROOM = 1 << 20

#: (topic, partition, offset)
Place = tuple[str, int, int]


class Handed(NamedTuple):
    """A record at a client."""

    slot: int
    lease: int
    attempts: int
    value: bytes
    key: bytes


class World:
    """A cluster of one: what is proposed is applied when ``step`` or ``run`` says so."""

    def __init__(
        self,
        topics: dict[str, int] | None = None,
        limits: StateLimits | None = None,
        settings: DeliverySettings | None = None,
    ) -> None:
        self.limits = limits or StateLimits()
        self.store = MemoryStore()
        self.machine = StateMachine(self.limits)
        self.stamped_us = T0
        self.settings = settings or DeliverySettings()
        self.now = 100.0
        self.queue: deque[tuple[bytes, Token | None]] = deque()
        self.proposed: list[log_pb2.Op] = []
        self.events: list[object] = []
        self.clients: dict[str, Client] = {}
        self.topics: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.values: dict[Place, bytes] = {}
        self.term = 0
        self.show_at_once = True
        for name, number in (topics or {"t": 3}).items():
            self.create(name, number)
        self.lead()

    # -- the log ------------------------------------------------------------

    @property
    def wall_us(self) -> int:
        return T0 + round(self.now * 1_000_000)

    def stamp_us(self) -> int:
        return max(self.wall_us, self.stamped_us)

    def apply(self, *ops: bytes) -> list[log_pb2.OpResult]:
        """One entry, stamped with the time it is."""
        self.stamped_us = self.stamp_us() + 1
        entry = encode_entry(self.stamped_us, ops)
        w, index = self.store.writer(), self.index + 1
        journal.append(w, index, 1, journal.EntryKind.COMMAND, entry)
        applied = self.machine.apply(w, index, entry)
        journal.set_commit(w, index)
        journal.set_applied(w, index)
        if self.show_at_once:
            self.show()
        return applied.results

    @property
    def index(self) -> int:
        return journal.read_meta(self.store.writer()).last_index

    def show(self) -> None:
        """Readers see all that is applied."""
        self.store.show()
        if hasattr(self, "leader"):
            self.leader.visible(self.index)

    def do(self, op: bytes) -> log_pb2.OpResult:
        (result,) = self.apply(op)
        assert not result.HasField("error"), result.error
        return result

    def create(self, name: str, partitions: int = 1, **limits: int) -> None:
        self.topics[name] = self.do(self._create(name, partitions, limits)).topic.id
        self.counts[name] = partitions
        if hasattr(self, "leader"):
            self.leader.topics_changed(self.index)

    def _create(self, name: str, partitions: int, limits: dict[str, int]) -> bytes:
        op = log_pb2.CreateTopicOp(name=name, partitions=partitions, limits=topics_pb2.TopicLimits(**limits))
        return encode_op(log_pb2.Op(create_topic=op))

    def delete(self, name: str) -> None:
        self.do(encode_op(log_pb2.Op(delete_topic=log_pb2.DeleteTopicOp(name=name))))
        self.leader.topics_changed(self.index)

    def trim(self, topic: str, partition: int, before: int) -> None:
        op = log_pb2.TrimOp(topic_id=self.topics[topic], partition=partition, before_offset=before)
        self.do(encode_op(log_pb2.Op(trim=op)))

    def publish(self, topic: str, partition: int, *keys: bytes) -> None:
        """One batch; values tell records apart."""
        first = self.end(topic, partition)
        values = [b"%s/%d/%d" % (topic.encode(), partition, first + i) for i in range(len(keys))]
        batch = encode_batch(values, keys)
        op = log_pb2.AppendOp(topic_id=self.topics[topic])
        op.batches.add(partition=partition, count=len(keys), length=len(batch))
        self.do(encode_op(log_pb2.Op(append=op), [batch]))
        for i, value in enumerate(values):
            self.values[topic, partition, first + i] = value
        self.leader.touch([(self.topics[topic], partition)])

    def end(self, topic: str, partition: int) -> int:
        return sum(1 for each in self.values if each[:2] == (topic, partition))

    # -- the leader ---------------------------------------------------------

    def lead(self) -> None:
        """A new leader: nothing of the old one is left but rows; every stream has ended."""
        for client in self.clients.values():
            client.cut()
        self.queue.clear()
        self.term += 1
        cache = BatchCache()
        around = Surroundings(
            settings=self.settings,
            limits=self.limits,
            read=self.store.read,
            propose=self._propose,
            stamp_us=self.stamp_us,
            cache=cache,
            letters=Burial(cache),
            emit=self.events.append,
            visible=self.index,
        )
        self.leader = LiveGroups(self.term, around, lambda: self.now)

    def _propose(self, framed: bytes, token: Token) -> None:
        self.proposed.append(check_op(framed))
        self.queue.append((framed, token))

    def step(self, fate: str | HoldfastError = "applied") -> log_pb2.Op:
        """The first proposal ends.

        Args:
            fate: ``applied``, ``lost`` (applied, and nobody knows), ``dropped`` (not, and nobody
                knows), ``late`` (nobody knows, and it is applied with the next step), or an error
                that says nothing was done.
        """
        framed, token = self.queue.popleft()
        op = check_op(framed)
        if token is None:
            self.apply(framed)
        elif isinstance(fate, HoldfastError):
            self.leader.answered(token, Completed(token, None, fate, 0))
        elif fate == "applied":
            show, self.show_at_once = self.show_at_once, False
            (result,) = self.apply(framed)
            self.show_at_once = show
            self.leader.answered(token, Completed(token, result, None, self.index))
            if show:
                self.show()
        else:
            if fate == "lost":
                self.apply(framed)
            elif fate == "late":
                self.queue.appendleft((framed, None))
            self.leader.answered(token, Completed(token, None, OutcomeUnknownError("lost"), 0))
        return op

    def run(self) -> None:
        """Everything that can happen without time does."""
        for _ in range(10_000):
            if self.queue:
                self.step()
            elif not any(client.pump() for client in list(self.clients.values())):
                return
        raise AssertionError("it never ends")

    def advance(self, seconds: float, *, running: bool = True) -> None:
        """Time passes; what is due happens when it is."""
        end = self.now + seconds
        if running:
            self.run()
        for _ in range(100_000):
            at = self.leader.tick()
            if running:
                self.run()
                at = self.leader.tick()
            if at is None or at > end:
                break
            self.now = max(at, self.now)
        else:
            raise AssertionError("time stands still")
        self.now = end
        self.leader.tick()
        if running:
            self.run()

    def settle_down(self) -> None:
        """As much time as acks take to become durable."""
        self.advance(0.1)

    # -- looking ------------------------------------------------------------

    @property
    def group(self) -> LiveGroup:
        return self.leader.groups[GROUP]

    def read(self, what: Callable[[Reader], Any]) -> Any:
        with self.store.read() as reader:
            return what(reader)

    def members(self) -> list[str]:
        return [member for member, _ in self.read(lambda r: list(members.scan(r, GROUP)))]

    def owners(self, topic: str = "t") -> dict[int, str]:
        living = self.members()
        rows = self.read(lambda r: list(flows.scan(r, GROUP)))
        return {
            n: row.owner
            for topic_id, n, row in rows
            if topic_id == self.topics[topic] and row.owner in living
        }

    def floor(self, topic: str = "t", partition: int = 0) -> int | None:
        found: int | None = self.read(lambda r: groups.committed(r, GROUP, self.topics[topic], partition))
        return found

    def settled(self, topic: str = "t", partition: int = 0) -> set[int]:
        """All that is settled in the log."""
        flow = flow_keys.flow_key(GROUP, self.topics[topic], partition)
        floor = self.floor(topic, partition) or 0
        above = {
            offset
            for chunk, value in self.read(lambda r: list(acks.scan(r, flow)))
            for first, end in bits.ranges_of(chunk, value)
            for offset in range(first, end)
        }
        return set(range(floor)) | above

    def retries(self, topic: str = "t", partition: int = 0) -> dict[int, RetryRow]:
        """Rows of failed records."""
        flow = flow_keys.flow_key(GROUP, self.topics[topic], partition)
        floor = self.floor(topic, partition) or 0
        return {at: row for at, row in self.read(lambda r: list(retries.scan(r, flow))) if at >= floor}

    def letters(self, topic: str) -> list[dead_letters.Letter]:
        """What lies in partition 0 of a dead-letter topic."""
        found: list[dead_letters.Letter] = []
        with self.store.read() as reader:
            for row in partitions.index_scan(reader, self.topics[topic], 0, 0):
                batch = decode_batch(partitions.read_batch(reader, row))
                found += [dead_letters.read(dead_letters.column(batch, i)) for i in range(row.count)]
        return found

    def seek(self, topic: str, partition: int, offset: int) -> None:
        op = log_pb2.SeekGroupOp(group=GROUP)
        op.flows.add(topic_id=self.topics[topic], partition=partition, offset=offset)
        self.do(encode_op(log_pb2.Op(seek_group=op)))
        self.leader.changed([GROUP], self.index)

    def define(self, **fields: Any) -> None:
        """Somebody redefines the group."""
        op = log_pb2.PutGroupOp(group=GROUP, definition=definition(**fields))
        self.do(encode_op(log_pb2.Op(put_group=op)))
        self.leader.changed([GROUP], self.index)

    def reshapes(self) -> list[log_pb2.ReshapeOp]:
        return [op.reshape for op in self.proposed if op.WhichOneof("op") == "reshape"]


class Client:
    """A member's process: it takes what it is sent and settles what it is told to."""

    def __init__(self, world: World, member: str, *, connect: bool = True, **start: Any) -> None:
        self.world = world
        self.member = member
        self.start = {"credits": 1_000, "concurrency": 1, **start}
        self.session: Session | None = None
        self.welcome: bus_pb2.Welcome | None = None
        self.slots: dict[int, tuple[str, int]] = {}
        self.assignments: list[bus_pb2.Assignment] = []
        self.told: list[bus_pb2.SubscribeResponse] = []
        self.handed: dict[Place, Handed] = {}
        self.seen: list[Place] = []  # everything, in order of delivery
        self.attempts: dict[Place, int] = {}
        self.error: HoldfastError | None = None
        self.numbers = 0
        world.clients[member] = self
        if connect:
            self.connect()

    def connect(self, holding: Iterable[Place] = ()) -> None:
        """A new stream."""
        start = bus_pb2.SubscribeStart(group=GROUP, protocol=2, member_id=self.member, **self.start)
        held = sorted(holding)
        for topic, partition in dict.fromkeys(place[:2] for place in held):
            at = [place[2] for place in held if place[:2] == (topic, partition)]
            base, runs = runs_of(ranges_from(at))
            start.holding.add(topic=topic, partition=partition, base=base, runs=runs)
        self.handed = {}
        self.slots, self.error, self.welcome = {}, None, None
        hello = check_start(start, max_credits=self.world.settings.max_credits)
        self.session = self.world.leader.join(hello, lambda: None)

    def cut(self) -> None:
        """The stream is gone, with the leader or otherwise; what is being worked on still is."""
        self.session = None

    def disconnect(self, *, orderly: bool = False, garbage: bool = False) -> None:
        """The stream ends."""
        if self.session is not None:
            self.world.leader.leave(self.session, orderly=orderly, garbage=garbage)
            self.cut()

    def pump(self) -> bool:
        """Take what there is; False: nothing."""
        session, leader = self.session, self.world.leader
        if session is None:
            return False
        some = False
        while (message := leader.next_message(session)) is not None:
            some = True
            self._hear(message)
        if session.ended is not None:
            self.error = session.ended
            self.disconnect()
            return True
        if session.willing:
            with self.world.store.read() as reader:
                parcel = leader.next_parcel(reader, session, ROOM)
            if parcel is not None:
                self._take(parcel)
                some = True
        return some

    def _hear(self, message: bus_pb2.SubscribeResponse) -> None:
        self.told.append(message)
        kind = message.WhichOneof("kind")
        if kind == "welcome":
            self.welcome = message.welcome
            for held in message.welcome.kept:
                for first, end in ranges_of(held.base, held.runs):
                    for offset in range(first, end):
                        place = (held.topic, held.partition, offset)
                        self.handed[place] = Handed(0, 0, 0, self.world.values[place], b"")
        elif kind == "assignment":
            assert self.welcome is not None
            self.assignments.append(message.assignment)
            self.slots = {each.slot: (each.topic, each.partition) for each in message.assignment.partitions}
            mine = set(self.slots.values())
            for place, it in list(self.handed.items()):
                if (it.slot and it.slot not in self.slots) or place[:2] not in mine:
                    del self.handed[place]

    def _take(self, parcel: Parcel) -> None:
        group = self.world.group
        for flow, slices in parcel.whole:
            slot = group.places.by_key[flow.key].slot
            for it in slices:
                batch = decode_batch(it.data)
                for offset in range(it.first, it.last + 1):
                    at = offset - it.row.base_offset
                    keys = batch.keys[at] if batch.has_keys else b""
                    self._get(flow.topic, flow.key[1], offset, slot, parcel.lease, 0, batch.values[at], keys)
        for picked in parcel.sparse:
            batch = decode_batch(picked.batch)
            slot = group.places.by_key[picked.flow.key].slot
            for i, offset in enumerate(picked.offsets):
                attempts = picked.attempts[i] if picked.attempts else 0
                key = batch.keys[i] if batch.has_keys else b""
                flow = picked.flow
                self._get(flow.topic, flow.key[1], offset, slot, parcel.lease, attempts, batch.values[i], key)

    def _get(
        self,
        topic: str,
        partition: int,
        offset: int,
        slot: int,
        lease: int,
        attempts: int,
        value: bytes,
        key: bytes,
    ) -> None:
        place = (topic, partition, offset)
        assert self.world.values[place] == value
        assert self.slots.get(slot) == (topic, partition)
        self.handed[place] = Handed(slot, lease, attempts, value, key)
        self.attempts[place] = attempts
        self.seen.append(place)

    def slot(self, topic: str, partition: int) -> int:
        return next(slot for slot, place in self.slots.items() if place == (topic, partition))

    def settle(self, **parts: Any) -> int:
        """Send a Settle; its number."""
        assert self.session is not None
        self.numbers += 1
        self.world.leader.settle(self.session, bus_pb2.Settle(number=self.numbers, **parts))
        return self.numbers

    def ack(self, *places: Place) -> int:
        """Ack what was handed out."""
        acks = []
        for place in places:
            it = self.handed.pop(place)
            slot = it.slot or self.slot(*place[:2])
            acks.append(bus_pb2.OffsetRuns(slot=slot, lease=it.lease, base=place[2], runs=[0, 1]))
        return self.settle(acks=acks)

    def nack(self, place: Place, kind: int = bus_pb2.NACK_KIND_RETRY, **fields: Any) -> int:
        it = self.handed.pop(place)
        nack = bus_pb2.Nack(
            slot=it.slot or self.slot(*place[:2]),
            lease=it.lease,
            offset=place[2],
            kind=kind,  # type: ignore[arg-type]
            **fields,
        )
        return self.settle(nacks=[nack])

    def beat(self) -> None:
        assert self.session is not None
        self.world.leader.hear(self.session)

    def got(self, kind: str) -> list[Any]:
        """All messages of a kind."""
        return [getattr(each, kind) for each in self.told if each.WhichOneof("kind") == kind]

    def settled(self) -> dict[int, list[tuple[int, int, str]]]:
        """Numbers answered, with what was refused: first and last offset, reason."""
        return {
            each.number: [(r.first_offset, r.last_offset, r.error.reason) for r in each.refusals]
            for each in self.got("settled")
        }

    def revoked(self) -> list[tuple[str, int]]:
        slots = {p.slot: (p.topic, p.partition) for a in self.assignments for p in a.partitions}
        return [slots[slot] for each in self.got("revoking") for slot in each.slots]


def definition(
    topics: Iterable[str] = ("t",), ordering: int = bus_pb2.ORDERING_PARTITION, **fields: Any
) -> bus_pb2.GroupDefinition:
    return bus_pb2.GroupDefinition(topics=topics, ordering=ordering, **fields)  # type: ignore[arg-type]
