"""One hand-out: reads what a member may be given, leases it to it, and packs the parcel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.cluster.delivery.batch_cache import BatchCache, Columns
from holdfast.cluster.delivery.deep_flow import DeepFlow
from holdfast.cluster.delivery.effects import Effect, PauseChanged, Trimmed, Vanished
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.key_flow import KeyFlow
from holdfast.cluster.delivery.leases import Holder
from holdfast.cluster.delivery.outcomes import Run, Single
from holdfast.cluster.delivery.parcels import Parcel, Pick, as_slices, cut, is_small_part
from holdfast.cluster.delivery.pool_flow import PoolFlow
from holdfast.cluster.delivery.reading import PartitionRef, Slice, Step, read_step
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.group_definition import Definition, Semantics
from holdfast.storage import partitions
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Reader

#: Records looked at in one call without handing any out; then others run first.
MOST_LOOKED_AT = 16_384
#: Runs given back that are shorter than this go out together, cut.
_SHORT_RUN = 64


class Delivering(Protocol):
    """What dispatch has to know of a group."""

    definition: Definition
    settings: DeliverySettings
    #: The member that takes suspects, one after the other, and nothing else; dispatch keeps it.
    aside: Holder | None

    def flows_of(self, holder: Holder) -> Sequence[Flow]:
        """The flows it may be sent records of now, always in the same order."""
        ...

    def tell(self, effect: Effect) -> None:
        """Take note; it is called in the middle of a hand-out, and must not change flows or members."""
        ...


class HandOut:
    """One call of ``next_delivery``.

    Whatever reads, and so may fail, comes before what it reads is leased.

    Args:
        room: bytes of the message.
        lingered: until when a batch was to wait for credits, when one was.
    """

    def __init__(
        self,
        reader: Reader,
        group: Delivering,
        holder: Holder,
        cache: BatchCache,
        room: int,
        now: float,
        stamp_us: int,
        lingered: float | None,
    ) -> None:
        self._reader = reader
        self._group = group
        self._holder = holder
        self._cache = cache
        self._room = room
        self._now = now
        self._stamp_us = stamp_us
        self._lingered = lingered
        self._looked_at = 0
        self._end = 0  # of the flow at hand: its log's
        self._lease = holder.lease + 1
        self._parcel = Parcel()
        #: Stored batches of picks, for a client that takes no others.
        self._stored: dict[Columns, bytes] = {}

    # -- the whole ----------------------------------------------------------

    def suspect(self, flows: Sequence[Flow]) -> Parcel | None:
        """One record that a member died of, and nothing else."""
        for flow in flows:
            if not self._look_at(flow):
                continue
            offset = flow.next_suspect(self._holder, self._stamp_us)
            if offset is not None:
                self._pick_one(flow, offset)
                self._holder.alone = True
                return self._done()
        return None

    def from_all(self, flows: Sequence[Flow]) -> Parcel | None:
        """What there is, of one flow after the other, up to credits and bytes."""
        holder = self._holder
        turn = holder.turn % len(flows)
        for at in (*range(turn, len(flows)), *range(turn)):
            if holder.credits <= 0 or self._left <= 0 or self._looked_at >= MOST_LOOKED_AT:
                break
            holder.turn = at
            try:
                if self._look_at(flows[at]):
                    self._from(flows[at])
            except DamagedRowError:
                if not self._parcel.records:
                    raise
                break  # what is whole goes first; the damaged one is next
            holder.turn = at + 1
        return self._done()

    @property
    def _left(self) -> int:
        """Bytes left of the message."""
        return self._room - self._parcel.bytes

    def _done(self) -> Parcel | None:
        parcel, holder = self._parcel, self._holder
        if not parcel.records:
            return parcel if self._looked_at >= MOST_LOOKED_AT else None
        if not parcel.spent:
            holder.lease = parcel.lease = self._lease
            longest = self._group.definition.max_lease_ms
            if longest:
                holder.ages.note(parcel.lease, self._now, longest / 1_000)
        return parcel

    # -- one flow -----------------------------------------------------------

    def _look_at(self, flow: Flow) -> bool:
        """Move the flow past what retention removed; False when there is nothing to hand out of it."""
        if flow.idle:
            return False
        state = partitions.read_state(self._reader, *flow.key)
        if state is None:
            self._group.tell(Vanished(flow))
            return False
        before = flow.window.floor
        if state.start_offset > before:
            flow.raise_floor(state.start_offset)
            self._group.tell(Trimmed(flow, before, flow.window.floor))
        self._end = state.next_offset
        flow.at_end = flow.cursor >= self._end
        return True

    def _from(self, flow: Flow) -> None:
        if isinstance(flow, KeyFlow):
            self._picks(flow)
        elif isinstance(flow, PoolFlow):
            if not self._picks(flow):
                self._run(flow, flow.front())
        elif isinstance(flow, DeepFlow):
            front = flow.front(self._holder, self._stamp_us)
            if isinstance(front, Single):
                self._pick_one(flow, front.offset)
            elif front is not None:
                self._run(flow, front)
        pause = flow.standing()
        if pause != flow.pause:
            flow.pause = pause
            self._group.tell(PauseChanged(flow, pause))

    # -- picks --------------------------------------------------------------

    def _pick_one(self, flow: Flow, offset: int) -> None:
        """A record that failed, by itself."""
        columns = self._columns(flow, offset)
        flow.hand_out(offset, self._holder, self._lease)
        self._send(flow, [(offset, columns)])

    def _picks(self, flow: KeyFlow | PoolFlow) -> bool:
        """Hand out what goes record by record; True when there was any."""
        picks: list[Pick] = []
        try:
            used = self._pick_due(flow, picks)
            if isinstance(flow, KeyFlow):
                used = self._pick_ready(flow, picks, used)
                self._pick_fresh(flow, picks, used)
            else:
                self._pick_returned(flow, picks, used)
        except DamagedRowError:
            if not picks:
                raise
        if picks:
            self._send(flow, picks)
        return bool(picks)

    def _fits(self, picks: list[Pick], used: int) -> bool:
        return len(picks) < self._holder.credits and used < self._left

    def _pick_due(self, flow: Flow, picks: list[Pick]) -> int:
        """What failed and is due; how many bytes that is."""
        used = 0
        while self._fits(picks, used):
            offset = flow.retrying.next_due(self._stamp_us)
            if offset is None:
                break
            columns = self._columns(flow, offset)
            flow.hand_out(offset, self._holder, self._lease)
            picks.append((offset, columns))
            used += columns.size_of(offset - columns.base)
        return used

    def _pick_ready(self, flow: KeyFlow, picks: list[Pick], used: int) -> int:
        """The first records of lanes that opened, and what was given back."""
        most = self._holder.credits - len(picks)
        found, size = flow.pick_ready(
            lambda offset: self._columns(flow, offset), self._holder, self._lease, most, self._left - used
        )
        picks += found
        return used + size

    def _pick_returned(self, flow: PoolFlow, picks: list[Pick], used: int) -> None:
        """Short runs that were given back; a long one, or a fresh one, goes by itself."""
        while flow.returned and self._fits(picks, used):
            run = flow.front()
            if run.fresh or run.stop is None or run.stop - run.first >= _SHORT_RUN:
                break
            end = min(run.stop, run.first + self._holder.credits - len(picks))
            found = [(offset, self._columns(flow, offset)) for offset in range(run.first, end)]
            flow.hand_out_run(run.first, end, self._holder, self._lease)
            picks += found
            used += sum(columns.size_of(offset - columns.base) for offset, columns in found)

    def _pick_fresh(self, flow: KeyFlow, picks: list[Pick], used: int) -> None:
        """What has not been read, from the cursor on, as far as its lanes are free."""
        while self._fits(picks, used) and self._looked_at < MOST_LOOKED_AT:
            at, room = flow.cursor, flow.room
            flow.at_end = at >= self._end
            if flow.at_end or room <= 0:
                break
            columns = self._columns(flow, at)
            stop = min(columns.end, at + room, at + MOST_LOOKED_AT)
            most = self._holder.credits - len(picks)
            offsets, size = flow.pick(columns, stop, self._holder, self._lease, most, self._left - used)
            picks += [(offset, columns) for offset in offsets]
            used += size
            self._looked_at += flow.cursor - at - len(offsets)

    def _columns(self, flow: Flow, offset: int) -> Columns:
        """The batch that holds a record.

        Raises:
            DamagedRowError: it is damaged.
        """
        columns = self._cache.at(self._reader, *flow.key, offset)
        if self._holder.whole_only and columns not in self._stored:
            self._stored[columns] = partitions.read_batch(self._reader, columns.row, verify=True)
        return columns

    def _send(self, flow: Flow, picks: list[Pick]) -> None:
        self._holder.credits -= len(picks)
        if self._holder.whole_only:
            self._parcel.add_whole(flow, as_slices(picks, self._stored))
        else:
            self._parcel.add_sparse(cut(flow, picks))

    # -- runs ---------------------------------------------------------------

    def _run(self, flow: DeepFlow | PoolFlow, run: Run) -> None:
        """Stored batches, from the run's first record on, untouched."""
        holder = self._holder
        most = min(holder.credits, flow.room) if run.fresh else holder.credits
        if most <= 0:
            return
        step = self._read(flow, run, most)
        if step is None or not step.slices:
            return
        slices = step.slices
        if self._waits_for_credits(step):
            slices.pop()
        if not holder.whole_only:
            for place, it in enumerate(slices):
                if is_small_part(it):
                    if not place:
                        self._cut_out(flow, it)
                    slices = slices[:place]
                    break
        if slices:
            self._take(flow, slices[0].first, slices[-1].last + 1)
            self._parcel.add_whole(flow, slices)

    def _read(self, flow: Flow, run: Run, most: int) -> Step | None:
        topic_id, partition = flow.key
        return read_step(
            self._reader,
            PartitionRef(flow.topic, topic_id, partition),
            run.first,
            stop=run.stop,
            max_bytes=self._left,
            max_records=most,
            max_rows=self._group.settings.max_rows_per_read,
        )

    def _waits_for_credits(self, step: Step) -> bool:
        """The last batch does not fit the credits: better to wait a little than to send it twice."""
        tail = step.slices[-1]
        if step.records < self._holder.credits or tail.last + 1 >= tail.row.next_offset:
            return False
        if self._lingered is None or len(step.slices) > 1:
            self._holder.linger_until = self._now + self._group.settings.credit_linger
            return True
        if self._now < self._lingered:
            self._holder.linger_until = self._lingered
            return True
        return False

    def _cut_out(self, flow: DeepFlow | PoolFlow, it: Slice) -> None:
        """A small part of a large batch, as a batch of its own."""
        columns = self._columns(flow, it.first)
        self._take(flow, it.first, it.last + 1)
        self._parcel.add_sparse(cut(flow, [(offset, columns) for offset in range(it.first, it.last + 1)]))

    def _take(self, flow: DeepFlow | PoolFlow, first: int, end: int) -> None:
        self._holder.credits -= end - first
        if self._group.definition.semantics == Semantics.AT_MOST_ONCE:
            flow.spend(first, end)
            self._parcel.spent.append((flow, (first, end)))
        else:
            flow.hand_out_run(first, end, self._holder, self._lease)
