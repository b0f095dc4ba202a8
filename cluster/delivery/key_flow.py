"""A partition by key: a lane for each key, one record of it out at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.batch_cache import Columns
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.lanes import Lanes
from holdfast.cluster.delivery.leases import Holder, Lease, RecordLeases
from holdfast.cluster.delivery.outcomes import Outcome
from holdfast.cluster.delivery.runs import Range, ranges_from
from holdfast.cluster.group_definition import Definition
from holdfast.storage.damage import DamagedRowError


class KeyFlow(Flow):
    """``ordering=key``. A record without a key has a lane of its own, 0."""

    leases: RecordLeases

    def __init__(self, key: PartitionKey, topic: str, definition: Definition) -> None:
        self.leases = RecordLeases()
        self.lanes = Lanes()
        #: Records without a key, handed out once and given back without a failure.
        self.returned: deque[int] = deque()
        #: Leased before a seek: such a lease settles nothing, and holds its lane.
        self._ghosts: set[int] = set()
        super().__init__(key, topic, definition)

    # -- handing out --------------------------------------------------------

    def next_ready(self) -> int | None:
        """A record that was handed out or passed over before, and may go out now."""
        while self.returned:
            if self.returned[0] not in self.window:
                return self.returned[0]
            self.returned.popleft()
        lanes = self.lanes
        while lanes.ready:
            queue = lanes.queues[lanes.ready[0]]
            if queue and queue[0] not in self.window:
                return queue[0]
            self._open(lanes.ready.popleft())  # its first record was trimmed
        return None

    def pick_ready(
        self, find: Callable[[int], Columns], holder: Holder, lease: int, most: int, room: int
    ) -> tuple[list[tuple[int, Columns]], int]:
        """Hand out what ``next_ready`` finds, one after the other.

        Args:
            find: the batch that holds a record; it may raise.
            most, room: see ``pick``.

        Returns:
            Each record with its batch, and their bytes.
        """
        lanes, held = self.lanes, self.leases.held
        picked: list[tuple[int, Columns]] = []
        used = 0
        columns: Columns | None = None
        while len(picked) < most and used < room:
            offset = self.next_ready()
            if offset is None:
                break
            if columns is None or not columns.base <= offset < columns.end:
                try:
                    columns = find(offset)
                except DamagedRowError:
                    if not picked:
                        raise
                    break
            if self.returned:
                lane = 0
                self.returned.popleft()
            else:
                lane = lanes.ready.popleft()
                lanes.take(lane)
            held[offset] = (holder, lease, lane)
            picked.append((offset, columns))
            used += columns.size_of(offset - columns.base)
        holder.in_flight += len(picked)
        return picked, used

    def hand_out(self, offset: int, holder: Holder, lease: int) -> None:
        """See ``Flow``."""
        row = self.retrying.get(offset)
        assert row is not None, "what failed has a row"
        self.retrying.disarm(offset)
        if row.lane:
            self.lanes.take(row.lane)
        self.leases.add(holder, offset, lease, row.lane)

    def pick(
        self, columns: Columns, stop: int, holder: Holder, lease: int, most: int, room: int
    ) -> tuple[list[int], int]:
        """Go on from the cursor through a batch: hand out what has a free lane, defer what has not.

        Args:
            stop: where to end, within the batch.
            most: records to hand out.
            room: bytes; the record that goes beyond it is the last.

        Returns:
            The offsets handed out, and their bytes.
        """
        queues, held, defer = self.lanes.queues, self.leases.held, self.lanes.defer
        lanes, size_of = columns.lanes, columns.size_of
        base, seen, offset = columns.base, self.seen, self.cursor
        picked: list[int] = []
        used = 0
        while offset < stop and len(picked) < most and used < room:
            lane = lanes[offset - base]
            if offset < seen and self._known(offset, lane):
                offset += 1
                continue
            if lane:
                if lane in queues:
                    defer(lane, offset)
                    offset += 1
                    continue
                queues[lane] = None
            held[offset] = (holder, lease, lane)
            picked.append(offset)
            used += size_of(offset - base)
            offset += 1
        self.cursor = offset
        self.seen = max(seen, offset)
        holder.in_flight += len(picked)
        return picked, used

    def _known(self, offset: int, lane: int) -> bool:
        """The cursor passes a record of which something is known: settled, held, or failed."""
        if offset in self.window:
            return True
        if offset in self.leases.held:
            if offset in self._ghosts:
                self.lanes.defer(lane, offset)
            return True
        row = self.retrying.get(offset)
        if row is None:
            return False
        row.lane = lane  # a row of a group that had another ordering does not know it
        self.cursor = offset + 1
        if lane:
            if lane in self.lanes.queues:
                self.lanes.defer(lane, offset)
                return True
            self.lanes.queues[lane] = [offset]
            self.lanes.waiting[lane] = offset
        self._arm(offset)
        return True

    # -- what members say -----------------------------------------------------

    def settle(self, holder: Holder, lease: int, ranges: Iterable[Range]) -> Outcome:
        """See ``Flow``: the same, without an object for each record where nothing special is the matter."""
        held, queues = self.leases.held, self.lanes.queues
        plain = not (self._ghosts or self._extended or self._releases or self.lanes.shared)
        floor = self.window.floor
        done: list[int] = []
        rest: list[Range] = []
        for first, end in ranges:
            if not plain or first < floor or end - first > len(held):
                rest.append((first, end))
                continue
            for offset in range(first, end):
                entry = held.get(offset)
                if entry is None or entry[0] is not holder or (lease and lease != entry[1]):
                    rest.append((offset, offset + 1))
                    continue
                del held[offset]
                done.append(offset)
                lane = entry[2]
                if offset in self.retrying:
                    self.retrying.drop(offset)
                if lane:
                    if queues[lane] is None:
                        del queues[lane]
                    else:
                        self._open(lane)
        holder.in_flight -= len(done)
        self.window.add_offsets(done)
        outcome = super().settle(holder, lease, rest)  # moves the floor, too
        return Outcome(ranges_from(sorted(done)) + outcome.settled, outcome.refused)

    # -- see Flow -----------------------------------------------------------

    @property
    def idle(self) -> bool:
        """See ``Flow``."""
        return super().idle and not self.returned and not self.lanes.ready

    def suspected(self, holder: Holder) -> list[Lease]:
        """See ``Flow``: every record it holds is the first of its lane."""
        return [it for it in self.leases.of(holder) if not self._is_ghost(it)]

    def next_suspect(self, holder: Holder, stamp_us: int) -> int | None:
        """See ``Flow``."""
        return self.retrying.next_suspect(stamp_us)

    def _again(self, ended: list[Lease]) -> None:
        for it in ended:
            if self._is_ghost(it):
                self._end_ghost(it)
            elif it.lane:
                self._give_back(it)
            elif it.first >= self.cursor:
                pass  # kept from an earlier stream: the cursor will come to it
            elif it.first in self.retrying:
                self._arm(it.first)
            else:
                self.returned.append(it.first)

    def _fail(self, ended: Lease) -> None:
        if ended.lane:
            self._give_back(ended)

    def _give_back(self, it: Lease) -> None:
        """A record is first in its lane again; one that the cursor has not come to will be."""
        if it.first < self.cursor:
            self.lanes.defer(it.lane, it.first)
        self._open(it.lane)

    def _arm(self, offset: int) -> None:
        row = self.retrying.get(offset)
        if row is None or offset in self.leases.held:
            return
        if self.retrying.exhausted(offset):
            self.retrying.disarm(offset)
            self._dying.append(offset)
        elif offset < self.cursor and (not row.lane or self.lanes.waiting.get(row.lane) == offset):
            self.retrying.arm(offset)

    def _unfail(self, offset: int, lane: int) -> None:
        if offset >= self.cursor:
            return
        if not lane:
            self.returned.append(offset)
        elif self.lanes.waiting.get(lane) == offset:
            self._open(lane)

    def _open(self, lane: int) -> None:
        shared = self.lanes.shared
        if lane in shared:
            shared[lane] -= 1
            if not shared[lane]:
                del shared[lane]
            return
        waits_for = self.lanes.open(lane, self.window.__contains__, self.retrying.__contains__)
        if waits_for is not None:
            self._arm(waits_for)

    def _leave(self, offset: int, lane: int) -> None:
        if lane and self.lanes.waiting.get(lane) == offset:
            self._open(lane)

    def _may_hold(self, lease: Lease) -> bool:
        lane = lease.lane
        if lane in self.lanes.queues:
            # It was handed the second after it had settled the first; that has not been heard here.
            mine = any(it.lane == lane and not it.lease for it in self.leases.of(lease.holder))
            if not mine or self.lanes.queues[lane] is not None:
                return False
            self.lanes.shared[lane] = self.lanes.shared.get(lane, 0) + 1
        elif lane:
            self.lanes.hold(lane)
        return True

    def _is_ghost(self, it: Lease) -> bool:
        return it.first in self._ghosts or super()._is_ghost(it)

    def _end_ghost(self, it: Lease) -> None:
        self._ghosts.discard(it.first)
        super()._end_ghost(it)

    def _void_leases(self) -> None:
        self.lanes = Lanes()
        self.returned.clear()
        self._ghosts.clear()
        for it in list(self.leases):
            if it.lane:
                if it.lane in self.lanes.queues:
                    self.lanes.shared[it.lane] = self.lanes.shared.get(it.lane, 0) + 1
                else:
                    self.lanes.hold(it.lane)
                self._ghosts.add(it.first)
                self.seen = max(self.seen, it.end)
            else:
                self.leases.take(it.holder, 0, it.first, it.end)
