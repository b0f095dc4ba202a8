"""A partition in no order: runs for whoever asks, every record a lane of its own."""

from __future__ import annotations

from collections import deque

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.leases import Holder, Lease, RunLeases
from holdfast.cluster.delivery.outcomes import Run
from holdfast.cluster.delivery.runs import Range
from holdfast.cluster.group_definition import Definition


class PoolFlow(Flow):
    """``ordering=none``."""

    leases: RunLeases

    def __init__(self, key: PartitionKey, topic: str, definition: Definition) -> None:
        self.leases = RunLeases()
        #: Handed out once, given back without a failure; what is settled of it by now does not count.
        self.returned: deque[Range] = deque()
        super().__init__(key, topic, definition)

    def front(self) -> Run:
        """What may be handed out next, but for records that failed: given back, or at the cursor."""
        while self.returned:
            low, end = self.returned[0]
            first = self.window.next_open(low)
            if first < end:
                stop = self.window.next_settled(first)
                return Run(first, end if stop is None else min(stop, end), fresh=False)
            self.returned.popleft()
        while True:
            offset = self.window.next_open(self.cursor)
            self.cursor = offset
            if offset >= self.seen:
                self.seen = offset
                return Run(offset, None)
            held = self.leases.at(offset)
            if held is not None:
                self.cursor = held.end
            elif offset in self.retrying:
                self.cursor = offset + 1
                self._arm(offset)
            else:
                return Run(offset, self._stop(offset))

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
        if self.returned:
            self.returned[0] = (end, self.returned[0][1])
        else:
            self.cursor = end
            self.seen = max(self.seen, end)

    def hand_out(self, offset: int, holder: Holder, lease: int) -> None:
        """See ``Flow``."""
        self.retrying.disarm(offset)
        self.leases.add(holder, offset, offset + 1, lease)

    @property
    def idle(self) -> bool:
        """See ``Flow``."""
        return super().idle and not self.returned

    def suspected(self, holder: Holder) -> list[Lease]:
        """See ``Flow``."""
        floor = self.window.floor
        return [
            it._replace(first=max(it.first, floor)) for it in self.leases.of(holder) if not self._is_ghost(it)
        ]

    def next_suspect(self, holder: Holder, stamp_us: int) -> int | None:
        """See ``Flow``."""
        return self.retrying.next_suspect(stamp_us)

    def _again(self, ended: list[Lease]) -> None:
        for it in ended:
            # What the cursor has not come to, kept from an earlier stream, it will come to.
            at, end = it.first, min(it.end, self.cursor)
            for offset in self.retrying.within(at, end):
                if at < offset:
                    self._return(at, offset)
                at = offset + 1
                self._arm(offset)
            if at < end and not self._is_ghost(it):
                self._return(at, end)

    def _return(self, first: int, end: int) -> None:
        if self.returned and self.returned[-1][1] == first:
            first = self.returned.pop()[0]
        self.returned.append((first, end))

    def _fail(self, ended: Lease) -> None:
        pass

    def _arm(self, offset: int) -> None:
        if self.leases.at(offset) is not None:
            return
        if self.retrying.exhausted(offset):
            self.retrying.disarm(offset)
            self._dying.append(offset)
        elif offset < self.cursor:
            self.retrying.arm(offset)

    def _unfail(self, offset: int, lane: int) -> None:
        if offset < self.cursor:
            self._return(offset, offset + 1)

    def _void_leases(self) -> None:
        for holder in self.leases.holders:
            self.leases.drop(holder)
        self.returned.clear()
