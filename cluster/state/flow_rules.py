"""A group in one partition as an operation changes it: its floor, what is settled above, what waits.

Every operation that moves a floor or settles records goes this way: open, say
what is wanted, ``close``, and once nothing can be refused any more, ``write``.

* A record is settled once, however often that is said. Settled are those below
  the floor and those whose bit is set.
* The floor moves up only, and on through whatever is settled.
* What a step leaves below the floor, bits and waiting records, means nothing; later steps delete it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from holdfast.cluster.state.catalog import partition_state
from holdfast.cluster.state.context import EntryContext
from holdfast.cluster.state.flow_checks import check_within, too_large
from holdfast.errors import (
    FencedError,
    InvalidArgumentError,
    LimitExceededError,
    UnknownTopicError,
)
from holdfast.storage import acks, bits, flow_keys, flows, groups, retries
from holdfast.storage.flows import FlowRow
from holdfast.storage.partitions import PartitionState
from holdfast.storage.port import Table
from holdfast.storage.retries import RetryRow
from holdfast.storage.topics import TopicRow

#: Offsets from the first one up to, not including, the second.
Range = tuple[int, int]


class FlowEdit:
    """What an operation does to one flow; nothing is written before ``write``.

    Attributes:
        key: what the keys of the flow's rows start with.
        row: the flow's, as it was found.
        state: of the partition.
        floor: as far as it has been moved.
    """

    __slots__ = (
        "_above",
        "_added",
        "_asked",
        "_chunks",
        "_committed",
        "_context",
        "_dirty",
        "_found",
        "_new",
        "_planned",
        "_ranges",
        "floor",
        "group",
        "key",
        "partition",
        "row",
        "state",
        "topic",
    )

    def __init__(
        self, context: EntryContext, group: str, topic: TopicRow, partition: int, state: PartitionState
    ) -> None:
        self._context = context
        self.group, self.topic, self.partition, self.state = group, topic, partition, state
        self.key = flow_keys.flow_key(group, topic.id, partition)
        self.row = flows.read(context.w, group, topic.id, partition)
        self._committed = groups.committed(context.w, group, topic.id, partition)
        self.floor = self._committed or 0
        self._asked = False
        self._chunks: dict[int, int] = {}  # as they are to be
        self._dirty: set[int] = set()
        self._added = 0  # bits set here
        self._above = self.row.settled_above
        self._ranges: list[Range] = []  # settled here, above the floor of that moment
        self._found: dict[int, RetryRow | None] = {}
        self._planned: dict[int, RetryRow] = {}
        self._new = 0  # rows of records that had none

    # -- what is wanted -----------------------------------------------------

    def settle(self, ranges: Iterable[Range], *, coming: int = 0) -> int:
        """Settle records; the ranges ascend and do not overlap. How many chunks of bits that concerned.

        Args:
            coming: to where the operation will raise the floor afterwards.

        Raises:
            LimitExceededError: too far above the floor.
            InvalidArgumentError: more chunks than an operation may concern.
        """
        above = []
        for first, end in ranges:
            if first <= self.floor:
                self.floor = max(self.floor, end)
            else:
                above.append((first, end))
        if not above:
            return 0
        self._check_window(above[-1][1], coming)
        concerned = bits.count_chunks(above)
        if concerned > self._context.limits.max_settle_runs:
            raise too_large(concerned, "chunks of runs", self._context.limits.max_settle_runs)
        for chunk, value in bits.chunks_of(above).items():
            before = self._chunk(chunk)
            after = before | value
            if after != before:
                self._chunks[chunk] = after
                self._dirty.add(chunk)
                self._added += after.bit_count() - before.bit_count()
        self._ranges += above
        return concerned

    def raise_floor(self, offset: int) -> None:
        """Everything below ``offset`` is settled; the floor does not go back."""
        self._asked = True
        self.floor = max(self.floor, offset)

    def put_retry(self, offset: int, row: RetryRow) -> None:
        """A record that is not settled waits, or waits otherwise."""
        self.retry(offset)
        self._planned[offset] = row

    # -- what is so, and what of it is wanted already -----------------------

    def is_settled(self, offset: int) -> bool:
        if offset < self.floor:
            return True
        chunk, bit = divmod(offset, bits.CHUNK_BITS)
        return bool(self._chunk(chunk) >> bit & 1)

    def first_settled(self, ranges: Iterable[Range]) -> int | None:
        """The first of these records that is settled; None: none is."""
        for first, end in ranges:
            if first < min(end, self.floor):
                return first
            found = self._first_bit(first, end)
            if found is not None:
                return found
        return None

    def retry(self, offset: int) -> RetryRow | None:
        """The row of a record that waits; None: it is settled, or has none."""
        if self.is_settled(offset):
            return None
        planned = self._planned.get(offset)
        if planned is not None:
            return planned
        if offset not in self._found:
            # Without rows of the flow there is nothing to look for.
            waits = self.row.retrying > 0
            self._found[offset] = retries.read(self._context.w, self.key, offset) if waits else None
        return self._found[offset]

    # -- the end ------------------------------------------------------------

    def close(self) -> None:
        """Everything is said: the floor goes on through what is settled."""
        before = self._committed or 0
        self._above = self.row.settled_above + self._added
        if self._above:
            self._go_on()
            if self.floor > before:
                self._above -= self._count(before, self.floor)
        waiting = [offset for offset in self._planned if not self.is_settled(offset)]
        self._new = sum(1 for offset in waiting if self._found[offset] is None)

    @property
    def new_flows(self) -> int:
        """1 when the flow is to have a row and has none."""
        return int(self.row == flows.EMPTY and bool(self._above or self._new))

    @property
    def new_offsets(self) -> int:
        """1 when the group is to have an offset in the partition and has none."""
        changed = self._asked or self.floor or self._above or self._new
        return int(self._committed is None and bool(changed))

    def write(self) -> None:
        """Make it so, after ``close``. At most a step of what lies below the floor is deleted."""
        w, group, topic_id, partition = self._context.w, self.group, self.topic.id, self.partition
        before = self._committed or 0
        self._write_chunks(before)
        waiting = self.row.retrying + self._write_retries()
        settled = self.floor > before or self._added > 0
        at_us = self._context.time_us if settled else self.row.settled_at_us
        row = _or_none(FlowRow(self.row.fence, self._above, waiting, at_us, self.row.owner))
        if row != self.row:
            flows.write(w, group, topic_id, partition, row)
        if self.new_offsets or self.floor > before:
            groups.commit_offset(w, group, topic_id, partition, self.floor)

    # -- bits ---------------------------------------------------------------

    def _chunk(self, chunk: int) -> int:
        value = self._chunks.get(chunk)
        if value is None:
            # With nothing settled above the floor no chunk has a bit that means anything.
            value = acks.read(self._context.w, self.key, chunk) if self.row.settled_above else 0
            self._chunks[chunk] = value
        return value

    def _held(self, low: int, high: int) -> dict[int, int]:
        """The chunks from ``low`` to ``high`` that have bits, however far these lie apart."""
        if low == high:
            return {low: self._chunk(low)}
        stored = acks.scan(self._context.w, self.key, low, high + 1) if self.row.settled_above else ()
        known = {chunk: value for chunk, value in self._chunks.items() if low <= chunk <= high}
        return dict(stored) | known

    def _first_bit(self, first: int, end: int) -> int | None:
        """The first bit that is set from ``first`` up to ``end``."""
        if first >= end or not (self.row.settled_above or self._added):
            return None
        held = self._held(first // bits.CHUNK_BITS, (end - 1) // bits.CHUNK_BITS)
        for chunk in sorted(held):
            base = chunk * bits.CHUNK_BITS
            skipped = max(first - base, 0)
            value = held[chunk] >> skipped << skipped
            if value:
                found = base + bits.trailing_zeros(value)
                return found if found < end else None
        return None

    def _check_window(self, end: int, coming: int) -> None:
        limit = self._context.limits.max_settled_ahead
        if end > max(self.floor, self.state.start_offset, coming) + limit:
            raise LimitExceededError(
                f"group {self.group!r} would settle records {limit} behind the first open one of "
                f"{self.topic.name!r} partition {self.partition}, {self.floor}; settle the oldest first",
                metadata={
                    "limit": str(limit),
                    "topic": self.topic.name,
                    "partition": str(self.partition),
                    "floor": str(self.floor),
                },
            )

    def _go_on(self) -> None:
        while True:
            chunk, bit = divmod(self.floor, bits.CHUNK_BITS)
            ones = bits.trailing_ones(self._chunk(chunk) >> bit)
            self.floor += ones
            if bit + ones < bits.CHUNK_BITS:
                return

    def _count(self, first: int, end: int) -> int:
        """Bits that are set from ``first``, where the floor was, up to ``end``; none is set below."""
        low = first // bits.CHUNK_BITS
        high, high_bit = divmod(end, bits.CHUNK_BITS)
        total = 0
        for chunk, value in self._held(low, high).items():
            passed = value & ((1 << high_bit) - 1) if chunk == high else value
            total += passed.bit_count()
        return total

    def _write_chunks(self, before: int) -> None:
        w = self._context.w
        lowest, bit = divmod(self.floor, bits.CHUNK_BITS)
        if self.floor > before:
            value = self._chunk(lowest)
            above = value >> bit << bit
            if above != value:
                self._chunks[lowest] = above
                self._dirty.add(lowest)
        for chunk in sorted(self._dirty):
            if chunk >= lowest:
                acks.write(w, self.key, chunk, self._chunks[chunk])
        if lowest > before // bits.CHUNK_BITS:
            acks.drop(w, self.key, self._context.limits.step_rows, below=lowest)

    # -- records that wait --------------------------------------------------

    def _write_retries(self) -> int:
        """How many rows there are more, or fewer."""
        w, limits = self._context.w, self._context.limits
        gone = 0
        if self.row.retrying:
            for offset in self._settled_rows(limits.max_settle_runs):
                gone += retries.delete(w, self.key, offset)
            gone += retries.drop(w, self.key, limits.step_rows, below=self.floor)
        for offset, row in sorted(self._planned.items()):
            if not self.is_settled(offset):
                retries.write(w, self.key, offset, row)
        return self._new - gone

    def _settled_rows(self, limit: int) -> list[int]:
        """Offsets of up to ``limit`` rows of records that have been settled here."""
        w, ranges = self._context.w, self._ranges
        if not ranges:
            return []
        if self.row.retrying <= len(ranges):
            first, end = min(ranges)[0], max(end for _, end in ranges)
            found = (offset for offset in retries.offsets(w, self.key, first, end) if self.is_settled(offset))
        else:
            found = (offset for first, end in ranges for offset in retries.offsets(w, self.key, first, end))
        return list(islice(found, limit))


def open_flow(
    context: EntryContext, group: str, topic_id: int, partition: int, fence: int = 0
) -> FlowEdit | None:
    """A flow to be changed; None: the topic or the partition is gone.

    Args:
        fence: the owner's; 0: not compared.

    Raises:
        FencedError: another one owns it.
    """
    try:
        topic = context.catalog.topic(context.w, topic_id)
    except UnknownTopicError:
        return None
    if partition >= topic.partitions:
        return None
    known = context.catalog.states.get((topic_id, partition))
    edit = FlowEdit(context, group, topic, partition, known or partition_state(context.w, topic, partition))
    if fence and fence != edit.row.fence:
        raise FencedError(
            f"{topic.name!r} partition {partition} has been given to another member of group {group!r}",
            metadata={"topic": topic.name, "partition": str(partition), "generation": str(edit.row.fence)},
        )
    return edit


def ranges_of(edit: FlowEdit, base: int, runs: Sequence[int]) -> list[Range]:
    """Runs of offsets, gap and length in turn from ``base`` on, as ranges that ascend.

    Raises:
        InvalidArgumentError: they are no such runs.
        OffsetOutOfRangeError: they reach past the end of the partition.
    """
    if base < 0 or len(runs) % 2:
        raise InvalidArgumentError(
            "runs are pairs of a gap and a length, from a base that is not negative",
            metadata={"field": "runs"},
        )
    found = []
    at = base
    for gap, length in zip(runs[::2], runs[1::2], strict=True):
        first = at + gap
        at = first + length
        if length:
            found.append((first, at))
    if runs:
        check_within(edit.topic, edit.partition, edit.state, at)
    return found


def check_room(context: EntryContext, edits: Iterable[FlowEdit]) -> None:
    """Whether the rows that closed edits make may be made.

    Raises:
        LimitExceededError: as many partitions are read by groups as there may be.
    """
    edits = list(edits)
    w, limit = context.w, context.limits.max_flows
    for table, new in (
        (Table.FLOWS, sum(edit.new_flows for edit in edits)),
        (Table.OFFSETS, sum(edit.new_offsets for edit in edits)),
    ):
        if new and w.count(table) + new > limit:
            raise LimitExceededError(
                f"groups read {limit} partitions, that is the limit; delete groups that are not used",
                metadata={"limit": str(limit)},
            )


def _or_none(row: FlowRow) -> FlowRow:
    """The row, or none when all it has to say is a time."""
    return row if row.settled_above or row.retrying or row.fence or row.owner else flows.EMPTY
