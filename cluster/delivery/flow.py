"""What members say of one partition, and what becomes of what they hold.

What a call settles or charges it returns: the caller has it proposed, and tells
the flow what became of it (``result``, ``settled_in_log``, ``uncharge``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.flow_rows import FlowRows
from holdfast.cluster.delivery.leases import Holder, Lease, Refused, in_delivery_order
from holdfast.cluster.delivery.outcomes import Charged, Nacked, Outcome, expired
from holdfast.cluster.delivery.runs import Range, count
from holdfast.errors import AlreadySettledError, NotDeliveredError
from holdfast.storage.retries import State
from holdfast.v1 import bus_pb2

#: A record given back so often by one session is taken to have failed: it would go round for ever.
MOST_RELEASES = 100


class Flow(FlowRows):
    """One partition of a group; see ``DeepFlow``, ``KeyFlow``, ``PoolFlow`` and ``dispatch.open_flow``."""

    # -- what members say ---------------------------------------------------

    def settle(self, holder: Holder, lease: int, ranges: Iterable[Range]) -> Outcome:
        """Settle records that ``holder`` has under ``lease``; 0: whichever it has them under.

        Once more is harmless. What is refused changes nothing.
        """
        settled: list[Range] = []
        refused: list[Refused] = []
        for first, last in ranges:
            end = last
            if end > self.seen:
                refused.append(self._refused(max(first, self.seen), end, lease, holder))
                end = self.seen
            ended = self.leases.take(holder, lease, first, end) if first < end else []
            for it in ended:
                self._settle_lease(it, settled, refused)
            if sum(it.end - it.first for it in ended) < end - first:
                refused += [
                    self._refused(low, high, lease, holder)
                    for low, high in self.window.open_ranges(first, end)
                ]
        self._advance()
        return Outcome(settled, refused)

    def settle_below(self, holder: Holder, below: int) -> Outcome:
        """Settle everything ``holder`` has below an offset."""
        settled: list[Range] = []
        refused: list[Refused] = []
        for it in self.leases.take(holder, 0, 0, below):
            self._settle_lease(it, settled, refused)
        self._advance()
        return Outcome(settled, refused)

    def nack(
        self, holder: Holder, lease: int, offset: int, kind: bus_pb2.NackKind = bus_pb2.NACK_KIND_RETRY
    ) -> Nacked:
        """A record failed, is parked, rejected, or given back as it was (released).

        Its lane waits; of a partition in order everything behind the record is void.
        A release of what ``holder`` does not have is harmless.
        """
        releases = kind == bus_pb2.NACK_KIND_RELEASE
        ended = self.leases.take(holder, lease, offset, offset + 1)
        if not ended:
            if releases and 0 <= offset < self.seen:
                return Nacked()
            return Nacked(refused=self._refused(offset, offset + 1, lease, holder))
        it = ended[0]
        self._forget_extension(it)
        if self._is_ghost(it) or (releases and not self._goes_round(holder, offset)):
            self._again([it])
            return Nacked()
        return Nacked(charge=self._charge(it))

    def extend(self, holder: Holder, lease: int, ranges: Iterable[Range], until: float) -> list[Refused]:
        """What ``holder`` has of these stays with it until then (monotonic seconds), heard of or not."""
        refused: list[Refused] = []
        for first, end in ranges:
            held = self.leases.take(holder, lease, first, end)
            for it in held:
                self.leases.restore(it)
                self._extended.update(dict.fromkeys(range(it.first, it.end), until))
            refused += [self._refused(low, high, lease, holder) for low, high in _missing(first, end, held)]
        return refused

    # -- what becomes of members --------------------------------------------

    def drop_member(
        self,
        holder: Holder,
        suspects: Collection[int] = (),
        *,
        now: float | None = None,
        through: int | None = None,
    ) -> list[Charged]:
        """The leases of ``holder`` are over; see ``suspects_of`` for whom to charge.

        Args:
            suspects: records charged; all others are handed out again free of charge.
            now: leave it what it has extended beyond this time; None: nothing.
            through: only leases up to this one, see ``Ages.over``; None: all.

        Returns:
            What is to be proposed.
        """
        failed: list[Lease] = []
        again: list[Lease] = []
        kept: list[Lease] = []
        for it in self.leases.drop(holder):
            if through is not None and it.lease > through:
                kept.append(it)
                continue
            at = it.first
            for offset in self._marked(it, suspects, now):
                if at < offset:
                    again.append(it._replace(first=at, end=offset))
                at = offset + 1
                one = it._replace(first=offset, end=at)
                if now is not None and self._extended.get(offset, now) > now:
                    kept.append(one)
                elif self._is_ghost(one):
                    again.append(one)
                else:
                    failed.append(one)
            if at < it.end:
                again.append(it._replace(first=at))
        for it in kept:
            self.leases.restore(it)
        for it in again:
            self._forget_extension(it)
        # What is kept may be void by this: of a partition in order, behind what failed or is given back.
        charged = [self._charge(it) for it in failed]
        self._again(again)
        return charged

    def hold(
        self,
        holder: Holder,
        ranges: Iterable[Range],
        stamp_us: int,
        lane: Callable[[int], int],
        before: Holder | None = None,
    ) -> list[Range]:
        """``holder`` comes back and still works on these: what of them is its own, under lease 0.

        That is what it held on its stream before, or else what nobody was given since.

        Args:
            ranges: below the end of the log; see ``dispatch.take_up``, which sees to that.
            lane: of a record, see ``lanes.lane_of``; asked of those only that nobody was given.
            before: its stream before, when this leader knew it.
        """
        kept: list[Range] = []
        for first, end in ranges:
            if before is not None:
                for it in self.leases.take(before, 0, first, end):
                    self.leases.restore(it._replace(holder=holder, lease=0))
                    kept.append((it.first, it.end))
                    holder.alone = holder.alone or before.alone
            for low, high in list(self.window.open_ranges(max(first, self.cursor), end)):
                for offset in range(low, high):
                    row = self.retrying.get(offset)
                    if self.leases.at(offset) is not None or (row is not None and not row.is_due(stamp_us)):
                        continue
                    it = Lease(holder, offset, offset + 1, 0, lane(offset))
                    if self._may_hold(it):
                        self.leases.restore(it)
                        self.seen = max(self.seen, offset + 1)
                        holder.alone = holder.alone or (row is not None and row.state == State.SUSPECT)
                        kept.append((offset, offset + 1))
        return sorted(kept)

    # -- transactions -------------------------------------------------------

    def lend(self, holder: Holder, lease: int, ranges: Iterable[Range], to: Holder) -> list[Refused]:
        """A transaction consumes these: until it is decided nothing else ends their leases.

        All or nothing: when something is refused, nothing was lent.

        Args:
            to: stands for the transaction, with ``holder`` as its lender; ``settle_lent`` or
                ``take_back`` ends it.
        """
        lent: list[Lease] = []
        refused: list[Refused] = []
        for first, end in ranges:
            held = self.leases.take(holder, lease, first, end)
            refused += [
                self._refused(low, high, lease, holder, once=True) for low, high in _missing(first, end, held)
            ]
            refused += [expired(it.first, it.end) for it in held if self._is_ghost(it)]
            lent += held
        for it in lent:
            self.leases.restore(it if refused else it._replace(holder=to))
        return refused

    def settle_lent(self, to: Holder) -> list[Range]:
        """The transaction is applied: what it consumed is settled, and durable."""
        settled: list[Range] = []
        for it in self.leases.drop(to):
            self._settle_lease(it, settled, [])
        self._advance()
        return settled

    def take_back(self, to: Holder, holder: Holder | None) -> None:
        """The transaction will never be applied: ``holder`` has its records again; None: it is gone."""
        again: list[Lease] = []
        for it in self.leases.drop(to):
            if holder is not None and self._may_resume(it):
                self.leases.restore(it._replace(holder=holder))
            else:
                self._forget_extension(it)
                again.append(it)
        self._again(again)

    # -- what each kind of ordering does ------------------------------------

    @abstractmethod
    def suspected(self, holder: Holder) -> list[Lease]:
        """What ``holder`` may have begun: the records that were first in their lanes."""

    @abstractmethod
    def next_suspect(self, holder: Holder, stamp_us: int) -> int | None:
        """A record lost with a member that ``holder`` may be handed now."""

    @abstractmethod
    def hand_out(self, offset: int, holder: Holder, lease: int) -> None:
        """A record that failed, and is due, goes out again."""

    @abstractmethod
    def _again(self, ended: list[Lease]) -> None:
        """These leases, ascending, are over, and it is as if they had never been."""

    @abstractmethod
    def _fail(self, ended: Lease) -> None:
        """The lease of a record is over, and its row is charged: its lane waits."""

    def _open(self, lane: int) -> None:
        """A record left its lane."""

    def _leave(self, offset: int, lane: int) -> None:
        """See ``FlowRows``; without lanes there is nothing to leave."""

    def _may_hold(self, lease: Lease) -> bool:
        """Nothing is in the way of a member that goes on with a record; its lane is taken."""
        return True

    def _may_resume(self, lease: Lease) -> bool:
        """A member that had lent a record goes on with it."""
        return True

    def _is_ghost(self, it: Lease) -> bool:
        """What the lease is of is settled, or was handed out before a seek: it only holds its lane."""
        return it.end <= self.window.floor or (it.end == it.first + 1 and it.first in self.window)

    def _end_ghost(self, it: Lease) -> None:
        if it.lane:
            self._open(it.lane)

    # -- helpers ------------------------------------------------------------

    def _settle_lease(self, it: Lease, settled: list[Range], refused: list[Refused]) -> None:
        """A lease that ended with its records handled."""
        self._forget_extension(it)
        if self._releases:
            for offset in range(it.first, it.end):
                self._releases.pop(offset, None)
        if self._is_ghost(it):
            if it.first not in self.window:
                refused.append(expired(it.first, it.end))
            self._end_ghost(it)
            return
        settled.append((max(it.first, self.window.floor), it.end))
        self.window.add_range(it.first, it.end)
        if len(self.retrying):
            for offset in self.retrying.within(it.first, it.end):
                self.retrying.drop(offset)
        if it.lane:
            self._open(it.lane)

    def _charge(self, it: Lease) -> Charged:
        self.retrying.charge(it.first, it.lane)
        self._releases.pop(it.first, None)
        self._forget_extension(it)
        self._fail(it)
        return Charged(it.first, it.lane)

    def _forget_extension(self, it: Lease) -> None:
        if self._extended:
            for offset in range(it.first, it.end):
                self._extended.pop(offset, None)

    def _marked(self, it: Lease, suspects: Collection[int], now: float | None) -> list[int]:
        """The records of a lease that are not simply handed out again, ascending."""
        marked = {offset for offset in suspects if it.first <= offset < it.end}
        if now is not None:
            marked |= {
                offset
                for offset, until in self._extended.items()
                if until > now and it.first <= offset < it.end
            }
        return sorted(marked)

    def _goes_round(self, holder: Holder, offset: int) -> bool:
        """Note a release; True when this session has given the record back too often."""
        by, times = self._releases.get(offset, (holder, 0))
        times = times + 1 if by is holder else 1
        self._releases[offset] = (holder, times)
        return times >= MOST_RELEASES

    def _refused(self, first: int, end: int, lease: int, holder: Holder, *, once: bool = False) -> Refused:
        """Why ``holder`` cannot have said this of ``first`` up to ``end``.

        Args:
            once: settled records are refused as well.
        """
        if once and end <= self.seen and next(self.window.open_ranges(first, end), None) is None:
            settled = AlreadySettledError(
                f"offsets {first}..{end - 1} are settled already",
                metadata={"topic": self.topic, "partition": str(self.key[1]), "offset": str(first)},
            )
            return Refused(first, end - 1, settled)
        if first >= self.seen or lease > holder.lease:
            foreign = NotDeliveredError(f"offsets {first}..{end - 1} were not delivered to this member")
            return Refused(first, end - 1, foreign)
        return expired(first, end)


def suspects_of(holder: Holder, flows: Iterable[Flow]) -> dict[PartitionKey, set[int]]:
    """The records that may be to blame when ``holder`` dies or falls silent, per partition.

    Those it can have begun: the first ones in the order of their hand-out, as many as it
    handles at once. Nobody knows that of a client of protocol 0: it is never charged.
    """
    if holder.whole_only:
        return {}
    known = list(flows)
    held = [(number, flow.suspected(holder)) for number, flow in enumerate(known)]
    found: dict[PartitionKey, set[int]] = {}
    for number, offset in in_delivery_order(held, holder.concurrency):
        found.setdefault(known[number].key, set()).add(offset)
    return found


def _missing(first: int, end: int, held: list[Lease]) -> list[Range]:
    """What of ``first`` up to ``end`` is not among these leases, which ascend."""
    if count((it.first, it.end) for it in held) == end - first:
        return []
    missing: list[Range] = []
    at = first
    for it in held:
        if at < it.first:
            missing.append((at, it.first))
        at = it.end
    if at < end:
        missing.append((at, end))
    return missing
