"""Listing dead letters, and the steps that take them off the list.

What is listed is what the hidden group of the topic has not settled; redriving and
discarding settle it, by transactions. No clock, no I/O but a reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import xxhash

from holdfast.cluster.delivery import dead_letters
from holdfast.cluster.delivery.dead_letters import Letter
from holdfast.cluster.delivery.reading import PartitionRef, Slice, read_step
from holdfast.cluster.group_definition import Definition, check
from holdfast.errors import HoldfastError, RedriveLoopError, UnknownTopicError
from holdfast.records import decode_batch
from holdfast.storage import acks, bits, flow_keys, groups, partitions
from holdfast.storage.port import Reader
from holdfast.storage.topics import TopicRow
from holdfast.v1 import groups_pb2, log_pb2

#: Redriven so often, a record is not redriven again without force.
MAX_REDRIVES = 3
#: How long the answer of a step is known, in milliseconds: longer than a step is tried for.
KEEP_MS = 60_000

#: Index rows looked at for one page.
_MAX_ROWS = 1_024


class Found(msgspec.Struct, frozen=True):
    """A dead letter and where it lies."""

    partition: int
    offset: int
    dead_us: int
    letter: Letter


@dataclass(slots=True)
class Page:
    """Some dead letters of a partition, and where the next page begins."""

    next_offset: int
    found: list[Found] = field(default_factory=list)
    bytes: int = 0


def read_page(
    reader: Reader, ref: PartitionRef, offset: int, end: int, max_records: int, max_bytes: int
) -> Page | None:
    """The dead letters listed from ``offset`` on, before ``end``; None when the topic is gone.

    A page may be empty and not the last.

    Raises:
        DamagedRowError: the batch at ``offset`` is damaged.
    """
    group = dead_letters.group_of(ref.topic)
    state = partitions.read_state(reader, ref.topic_id, ref.partition)
    if state is None:
        return None
    floor = groups.committed(reader, group, ref.topic_id, ref.partition) or 0
    step = read_step(
        reader,
        ref,
        max(offset, floor, state.start_offset),
        stop=end,
        max_bytes=max_bytes,
        max_records=max_records,
        max_rows=_MAX_ROWS,
    )
    if step is None:
        return None
    settled = _Settled(reader, flow_keys.flow_key(group, ref.topic_id, ref.partition))
    page = Page(step.next_offset)
    for item in step.slices:
        _add(page, item, ref.partition, settled)
    return page


class Filter(msgspec.Struct, frozen=True):
    """Which dead letters are meant: those that fit everything that is set."""

    group: str = ""
    origin_topic: str = ""
    error: str = ""  # part of the text of one of the errors
    key: bytes = b""
    from_us: int = 0
    to_us: int = 0
    offsets: frozenset[int] = frozenset()
    partition: int | None = None

    @classmethod
    def of(cls, message: groups_pb2.DeadLetterFilter) -> Filter:
        return cls(
            message.group,
            message.origin_topic,
            message.error_contains,
            message.key,
            message.from_us,
            message.to_us,
            frozenset(message.offsets),
            message.partition if message.HasField("partition") else None,
        )

    def fits(self, found: Found) -> bool:
        death = found.letter.death
        return (
            (not self.group or death.group == self.group)
            and (not self.origin_topic or death.topic == self.origin_topic)
            and (not self.error or any(self.error in text for _, text in death.errors))
            and (not self.key or found.letter.record.key == self.key)
            and (not self.from_us or found.dead_us >= self.from_us)
            and (not self.to_us or found.dead_us < self.to_us)
            and (not self.offsets or found.offset in self.offsets)
            and (self.partition is None or found.partition == self.partition)
        )


class GroupFacts(msgspec.Struct, frozen=True):
    """What the loop guard knows of a group."""

    generation: int = 0  # 0: there is no such group
    definition: Definition | None = None

    @classmethod
    def read(cls, reader: Reader, group: str) -> GroupFacts:
        row = groups.read(reader, group) if group else None
        if row is None or not row.definition:
            return cls(0 if row is None else row.generation)
        return cls(row.generation, check(log_pb2.GroupRow.FromString(row.definition).definition))

    def reads(self, topic: str) -> bool:
        return self.definition is not None and self.definition.reads(topic)


class Redrive(msgspec.Struct, frozen=True):
    """Where dead letters go.

    Attributes:
        dead: the dead-letter topic.
        to: the topic all go to; empty: each one's origin.
        force: redrive what has come back before.
    """

    dead: TopicRow
    to: str = ""
    force: bool = False

    def target(self, letter: Letter) -> str:
        return self.to or letter.death.topic

    def refusal(self, found: Found, target: TopicRow | None, facts: GroupFacts) -> HoldfastError | None:
        """Why a dead letter stays where it is; None: it may go."""
        letter = found.letter
        name = self.target(letter)
        place = {"topic": self.dead.name, "partition": str(found.partition), "offset": str(found.offset)}
        if not name:
            return UnknownTopicError(
                "the record does not say which topic it came from; name one to redrive it to", metadata=place
            )
        if name == self.dead.name:
            return RedriveLoopError(
                f"{name!r} is the dead-letter topic itself; redrive to another topic", metadata=place
            )
        if target is None:
            return UnknownTopicError(
                f"there is no topic {name!r} any more; create it, or redrive to another one",
                metadata=place | {"target": name},
            )
        if self.force:
            return None
        if letter.redrives >= MAX_REDRIVES:
            return RedriveLoopError(
                f"the record has been redriven {letter.redrives} times and came back each time; "
                "mend what fails, then force it, or discard it",
                metadata=place | {"redrives": str(letter.redrives)},
            )
        before = letter.death.generation
        comes_back = facts.definition is not None and facts.definition.dead_letter_topic == self.dead.name
        if letter.redrives and comes_back and facts.reads(name) and before and facts.generation == before:
            return RedriveLoopError(
                f"the members of group {letter.death.group!r} are still those that failed with it "
                "after a redrive; restart them with what mends it, then redrive again, or force it",
                metadata=place | {"group": letter.death.group, "generation": str(before)},
            )
        return None

    def step(
        self,
        chosen: Sequence[Found],
        targets: Mapping[str, TopicRow],
        facts: Mapping[str, GroupFacts],
    ) -> tuple[log_pb2.Op, list[bytes]]:
        """One transaction: the records go to their targets and off the list."""
        op = settle_step(self.dead, chosen, self.to)
        batches: list[bytes] = []
        by_target: dict[str, list[Found]] = {}
        for found in chosen:
            by_target.setdefault(self.target(found.letter), []).append(found)
        for name in sorted(by_target):
            target = targets[name]
            placed = []
            for found in by_target[name]:
                death = found.letter.death
                known = facts.get(death.group, GroupFacts())
                for_group = bool(death.group) and (name == death.topic or known.reads(name))
                record = dead_letters.redriven(found.letter, for_group=for_group)
                origin = death.partition if death.topic else found.partition
                placed.append((dead_letters.partition_of(record, origin, target.partitions), record))
            append, blobs = dead_letters.append_op(target.id, placed)
            op.transact.appends.append(append)
            batches += blobs
        return op, batches


def settle_step(dead: TopicRow, chosen: Iterable[Found], to: str = "") -> log_pb2.Op:
    """A transaction that takes dead letters off the list, and does nothing else.

    Its id follows from what it takes and where that goes: a step that is tried again is the same
    transaction, and no two that differ have one id.
    """
    by_partition: dict[int, list[int]] = {}
    for found in chosen:
        by_partition.setdefault(found.partition, []).append(found.offset)
    op = log_pb2.Op()
    settle = op.transact.consume.add(group=dead_letters.group_of(dead.name))
    for partition in sorted(by_partition):
        base, runs = runs_of(sorted(by_partition[partition]))
        settle.flows.add(topic_id=dead.id, partition=partition, base=base, runs=runs)
    op.transact.keep_ms = KEEP_MS
    identity = settle.SerializeToString(deterministic=True) + b"\0" + to.encode()
    op.transact.transaction_id = xxhash.xxh3_128_digest(identity)
    return op


def runs_of(offsets: Sequence[int]) -> tuple[int, list[int]]:
    """Offsets, ascending and at least one, as base and runs: gap, length, gap, length, ..."""
    base = first = offsets[0]
    runs: list[int] = []
    end = base  # of the run before
    for at, offset in enumerate(offsets):
        if at + 1 == len(offsets) or offsets[at + 1] != offset + 1:
            runs += (first - end, offset + 1 - first)
            end = offset + 1
            first = offsets[at + 1] if at + 1 < len(offsets) else end
    return base, runs


def still_listed(reader: Reader, dead: TopicRow, chosen: Iterable[Found]) -> list[Found]:
    """Those that nobody has taken off the list."""
    group = dead_letters.group_of(dead.name)
    listed: dict[int, tuple[int, _Settled]] = {}
    left = []
    for found in chosen:
        number = found.partition
        if number not in listed:
            floor = groups.committed(reader, group, dead.id, number) or 0
            listed[number] = floor, _Settled(reader, flow_keys.flow_key(group, dead.id, number))
        floor, settled = listed[number]
        if found.offset >= floor and found.offset not in settled:
            left.append(found)
    return left


class _Settled:
    """Which offsets of a flow are settled above its floor."""

    def __init__(self, reader: Reader, flow: bytes) -> None:
        self._reader = reader
        self._flow = flow
        self._chunks: dict[int, int] = {}

    def __contains__(self, offset: int) -> bool:
        chunk, bit = divmod(offset, bits.CHUNK_BITS)
        if chunk not in self._chunks:
            self._chunks[chunk] = acks.read(self._reader, self._flow, chunk)
        return bool(self._chunks[chunk] >> bit & 1)


def _add(page: Page, item: Slice, partition: int, settled: _Settled) -> None:
    """Add what of a slice is listed."""
    wanted = [offset for offset in range(item.first, item.last + 1) if offset not in settled]
    if not wanted:
        return
    row = item.row
    batch = decode_batch(item.data)
    for offset in wanted:
        record = dead_letters.column(batch, offset - row.base_offset)
        page.found.append(Found(partition, offset, row.append_time_us, dead_letters.read(record)))
        page.bytes += record.size
