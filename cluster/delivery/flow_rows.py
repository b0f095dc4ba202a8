"""One partition as a group consumes it: what is settled, leased, waiting, and not read yet.

::

    floor ------------- settled bits ------------- cursor ------- end of the partition
      |  unsettled: leased | waiting, parked | deferred, returned  |  not read yet

Below the cursor every unsettled offset is in exactly one of these places. At or
above it something is known only of offsets below ``seen``: what an earlier
leader handed out, and what members kept from it.

This is the half of a flow that the log speaks to; ``flow.py`` has the members' half.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.effects import Pause, PauseReason
from holdfast.cluster.delivery.leases import Holder, Leases
from holdfast.cluster.delivery.outcomes import Charged
from holdfast.cluster.delivery.retrying import Retrying
from holdfast.cluster.delivery.runs import Range
from holdfast.cluster.delivery.settled import Settled
from holdfast.cluster.group_definition import Definition
from holdfast.storage.retries import RetryRow, State


class FlowRows(ABC):
    """What all kinds of ordering have in common.

    Args:
        key: topic id and partition.
        topic: the topic's name.
        definition: of the group; see ``redefine``.
    """

    leases: Leases

    def __init__(self, key: PartitionKey, topic: str, definition: Definition) -> None:
        self.key = key
        self.topic = topic
        #: The generation since which the present owner owns; 0: flows of this kind have none.
        self.fence = 0
        #: The floor the log holds, which lags behind ``window.floor``; the group sets it from results.
        self.durable = 0
        self.window = Settled()
        self.retrying = Retrying()
        #: The first offset never looked at.
        self.cursor = 0
        #: Nothing at all is known of offsets from here on; never below the cursor.
        self.seen = 0
        #: The cursor came to the end of the log; ``touch`` says that it has grown.
        self.at_end = False
        #: Why it stands still, as last told; dispatch keeps it.
        self.pause: Pause | None = None
        self._extended: dict[int, float] = {}
        self._releases: dict[int, tuple[Holder, int]] = {}
        self._dying: list[int] = []
        self.max_unacked = 0
        self.max_retrying = 0
        self.redefine(definition)

    def load(
        self, floor: int, chunks: Iterable[tuple[int, int]], rows: Iterable[tuple[int, RetryRow]]
    ) -> None:
        """Begin with what is stored; of a flow of which nothing was handed out.

        Args:
            chunks: ``(chunk, bits)``, as ``storage.acks`` has them.
            rows: ``(offset, row)``, as ``storage.retries`` has them.
        """
        self.durable = floor
        self.window.load(floor, chunks)
        self.retrying.load((offset, row) for offset, row in rows if offset not in self.window)
        self._dying = [offset for offset in self.retrying if self.retrying.exhausted(offset)]
        self.cursor = self.window.floor
        self.seen = max(self.window.top, self.retrying.top)
        self.at_end = False

    def reload(
        self,
        floor: int,
        chunks: Iterable[tuple[int, int]],
        rows: Iterable[tuple[int, RetryRow]],
        charged: Collection[int],
    ) -> None:
        """Compare with what is stored, once the outcome of all that was proposed is decided.

        What is settled here stays so, whether or not it is stored yet; leases stay.

        Args:
            charged: records for which a charge is still to be proposed.
        """
        stored = dict(rows)
        self.window.merge(floor, chunks)
        self.raise_floor(self.window.floor)
        for offset in list(self.retrying):
            if offset in self.window:
                self._forget_row(offset)
            elif offset not in stored and offset not in charged:
                self.uncharge(offset)
        for offset, row in stored.items():
            if offset not in self.window and offset not in charged:
                self.result(offset, row.attempts, row.state, row.due_us, row.lane)

    def seek(self, floor: int) -> None:
        """The group's position was set: what was settled and waited is forgotten, leases are void.

        A key whose record somebody works on stays taken until that is over.
        """
        self.durable = floor
        self.window.load(floor, ())
        self.retrying.load(())
        self.cursor = self.seen = floor
        self.at_end = False
        self._dying.clear()
        self._extended.clear()
        self._releases.clear()
        self._void_leases()

    def redefine(self, definition: Definition) -> None:
        """The group has this definition from now on; its ordering is the same for ever."""
        self.max_unacked = definition.max_unacked
        self.max_retrying = definition.max_retrying
        self.retrying.max_attempts = definition.max_attempts
        for offset in self.retrying:
            self._arm(offset)

    def touch(self) -> None:
        """Records were appended to the partition."""
        self.at_end = False

    # -- what became of what was proposed -----------------------------------

    def result(self, offset: int, attempts: int, state: State, due_us: int, lane: int = 0) -> None:
        """The row of a record that was charged, as it is now; of one that is gone: ``settled_in_log``.

        Args:
            lane: as stored; 0: the one known here.
        """
        if offset in self.window:
            self._forget_row(offset)
            return
        self.retrying.put(offset, attempts, state, due_us, lane)
        self.seen = max(self.seen, offset + 1)
        self._arm(offset)

    def settled_in_log(self, ranges: Iterable[Range]) -> None:
        """These are settled, and durable: dead letters, and what was settled elsewhere.

        Leases of them go on until they end by themselves.
        """
        for first, end in ranges:
            self.window.add_range(first, end)
            for offset in self.retrying.within(first, end):
                self._forget_row(offset)
        self._advance()

    def raise_floor(self, floor: int) -> bool:
        """Everything below is settled: trimmed, or so in the log; True when the floor moved.

        Leases of it go on until they end by themselves.
        """
        moved = self.window.raise_floor(floor)
        for offset in self.retrying.below(self.window.floor):
            self._forget_row(offset)
        self._advance()
        return moved

    def uncharge(self, offset: int) -> None:
        """A charge will not be made: the record is as it was, and handed out again."""
        row = self.retrying.get(offset)
        if row is None:
            return
        row.charged = False
        if row.stored:
            self._arm(offset)
            return
        self.retrying.drop(offset)
        if self.leases.at(offset) is None:
            self._unfail(offset, row.lane)

    def take_dying(self) -> list[Charged]:
        """Records that have had all their attempts: charge them as let go, dead."""
        dying, self._dying = self._dying, []
        return [self._recharge(offset) for offset in dying if self.retrying.exhausted(offset)]

    def let_go(self, stamp_us: int) -> list[Charged]:
        """Records whose park is over: charge them as let go."""
        return [self._recharge(offset) for offset in self.retrying.over_parks(stamp_us)]

    def spend(self, first: int, end: int) -> None:
        """``at_most_once``: a run is settled before it is handed out; nobody holds it."""
        self.window.add_range(first, end)
        self.cursor = max(self.cursor, end)
        self.seen = max(self.seen, end)
        self._advance()

    # -- what may go out ----------------------------------------------------

    @property
    def idle(self) -> bool:
        """There is nothing to hand out, whoever asks, until something happens."""
        return self.at_end and not len(self.retrying)

    @property
    def room(self) -> int:
        """How many records may be read on."""
        if self.retries_full:
            return 0
        return max(0, self.max_unacked - (self.cursor - self.window.floor))

    @property
    def retries_full(self) -> bool:
        """So many records failed and wait that no new ones are handed out."""
        return len(self.retrying) >= self.max_retrying and self.cursor >= self.seen

    def standing(self) -> Pause | None:
        """Why no new records go out though there may be some; None: they do."""
        if self.at_end:
            return None
        if self.cursor - self.window.floor >= self.max_unacked:
            return Pause(PauseReason.MAX_UNACKED, self.window.floor)
        if self.retries_full:
            return Pause(PauseReason.RETRIES_FULL, next(iter(self.retrying)))
        return None

    def next_due_us(self) -> int | None:
        """When something is due again (stamp clock), to hand out or to let go; None: nothing waits."""
        return self.retrying.next_due_us()

    # -- what each kind of ordering does ------------------------------------

    @abstractmethod
    def _arm(self, offset: int) -> None:
        """The row of a record may have changed: it goes out when due, if it is its turn."""

    @abstractmethod
    def _unfail(self, offset: int, lane: int) -> None:
        """A record nobody holds has no row any more: it may go out."""

    @abstractmethod
    def _void_leases(self) -> None:
        """A seek made all leases void."""

    @abstractmethod
    def _leave(self, offset: int, lane: int) -> None:
        """A settled record that waited leaves its lane."""

    # -- helpers ------------------------------------------------------------

    def _advance(self) -> None:
        self.window.advance()
        if self.cursor < self.window.floor:
            self.cursor = self.window.floor
            self.seen = max(self.seen, self.cursor)

    def _recharge(self, offset: int) -> Charged:
        row = self.retrying.get(offset)
        lane = 0 if row is None else row.lane
        self.retrying.charge(offset, lane)
        return Charged(offset, lane)

    def _forget_row(self, offset: int) -> None:
        """A record that failed is settled by now."""
        row = self.retrying.drop(offset)
        if row is not None:
            self._leave(offset, row.lane)
