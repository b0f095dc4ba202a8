"""A partition in order: one deep lane, handed to its owner in runs."""

from __future__ import annotations

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.effects import Pause, PauseReason
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.leases import Holder, Lease, RunLeases
from holdfast.cluster.delivery.outcomes import Run, Single
from holdfast.cluster.group_definition import Definition
from holdfast.storage.retries import State

_LAST = (1 << 63) - 1


class DeepFlow(Flow):
    """``ordering=partition``.

    Nothing is ever passed over: what fails is the cursor's next record again, and everything handed
    out behind it is void. Below the cursor every unsettled record is leased.
    """

    leases: RunLeases

    def __init__(self, key: PartitionKey, topic: str, definition: Definition) -> None:
        self.leases = RunLeases()
        super().__init__(key, topic, definition)

    def front(self, holder: Holder, stamp_us: int) -> Run | Single | None:
        """What the owner may be handed next; None: the first record waits, or is parked.

        A transaction that an owner before it left behind is decided first.
        """
        if any(it.lender is not None and it.lender is not holder for it in self.leases.holders):
            return None
        while True:
            offset = self.window.next_open(self.cursor)
            self.cursor = offset
            if offset >= self.seen:
                self.seen = offset
                return Run(offset, None)
            held = self.leases.at(offset)
            if held is None:
                break
            if held.holder is not holder:
                return None  # a transaction decides what comes next
            self.cursor = held.end
        row = self.retrying.get(offset)
        if row is None:
            return Run(offset, self._stop(offset))
        return Single(offset) if row.is_due(stamp_us) and not self.retrying.exhausted(offset) else None

    def _stop(self, offset: int) -> int | None:
        """The first offset behind this one that does not go out with it."""
        found = (
            self.window.next_settled(offset),
            self.retrying.next_from(offset),
            self.leases.next_from(offset),
        )
        return min((at for at in found if at is not None), default=None)

    def hand_out_run(self, first: int, end: int, holder: Holder, lease: int) -> None:
        """The run of ``front``, or the first part of it, goes to ``holder``."""
        self.leases.add(holder, first, end, lease)
        self.cursor = end
        self.seen = max(self.seen, end)

    def hand_out(self, offset: int, holder: Holder, lease: int) -> None:
        """See ``Flow``; ``offset`` is the cursor."""
        self.hand_out_run(offset, offset + 1, holder, lease)

    def standing(self) -> Pause | None:
        """See ``Flow``; the partition also stands still behind a parked record."""
        offset = self.window.next_open(self.cursor)
        row = self.retrying.get(offset)
        if row is not None and row.parked and self.leases.at(offset) is None:
            return Pause(PauseReason.PARKED, offset)
        return super().standing()

    def suspected(self, holder: Holder) -> list[Lease]:
        """See ``Flow``: the first record it holds; it works them off one by one."""
        for it in self.leases.of(holder):
            offset = self.window.next_open(it.first)
            if offset < it.end:
                return [it._replace(first=offset, end=offset + 1)]
        return []

    def next_suspect(self, holder: Holder, stamp_us: int) -> int | None:
        """See ``Flow``."""
        if not len(self.retrying):
            return None
        front = self.front(holder, stamp_us)
        if not isinstance(front, Single):
            return None
        row = self.retrying.get(front.offset)
        return front.offset if row is not None and row.state == State.SUSPECT else None

    def next_due_us(self) -> int | None:
        """See ``Flow``: besides parks, nothing but the record at the cursor waits for its turn."""
        parks = super().next_due_us()
        row = self.retrying.get(self.window.next_open(self.cursor))
        if row is None or row.parked or row.charged:
            return parks
        return row.due_us if parks is None else min(row.due_us, parks)

    def _again(self, ended: list[Lease]) -> None:
        first = min((it.first for it in ended if not self._is_ghost(it)), default=None)
        if first is not None:
            self._back_to(first)

    def _fail(self, ended: Lease) -> None:
        self._back_to(ended.first)

    def _back_to(self, offset: int) -> None:
        for holder in self.leases.holders:
            if holder.lender is None:
                for it in self.leases.take(holder, 0, offset, _LAST):
                    self._forget_extension(it)
        self.cursor = max(min(self.cursor, offset), self.window.floor)
        self.at_end = False

    def _may_resume(self, lease: Lease) -> bool:
        # Void when an earlier record failed meanwhile: it comes again behind that one.
        return lease.first < self.cursor

    def _arm(self, offset: int) -> None:
        self.at_end = False
        if self.retrying.exhausted(offset) and self.leases.at(offset) is None:
            self._dying.append(offset)

    def _unfail(self, offset: int, lane: int) -> None:
        self.cursor = min(self.cursor, offset)
        self.at_end = False

    def _void_leases(self) -> None:
        for holder in self.leases.holders:
            self.leases.drop(holder)
