"""One consumer group on its leader: who owns what, what was delivered and acked.

Sans-I/O: it reads no store, sends nothing and knows no clock. Its callers open
flows (which needs the store), send what members are due, and propose commits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast.cluster.delivery.assignment import PartitionKey, assign
from holdfast.cluster.delivery.events import DeliveryPaused, DeliveryResumed, GroupRebalanced, OffsetsTrimmed
from holdfast.cluster.delivery.members import AckRefusal, Flow, Member
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.delivery.window import AckWindow
from holdfast.cluster.ports import EventSink
from holdfast.errors import FencedError, HoldfastError, LimitExceededError, NotDeliveredError

#: Where a flow starts: its offset, and the committed offset the log holds, if any.
Opening = tuple[int, int | None]


class Group:
    """The coordinator of one group.

    Args:
        name: of the group.
        generation: counts up from here; the caller makes it higher under each
            leader, so that a generation means one assignment for ever.
        settings: the bounds.
        emit: where events go.
        readers: kept up to date with who reads what, for the coordinator.
    """

    def __init__(
        self,
        name: str,
        generation: int,
        settings: DeliverySettings,
        emit: EventSink | None = None,
        readers: dict[PartitionKey, dict[Group, None]] | None = None,
    ) -> None:
        self.name = name
        self.generation = generation
        self.members: dict[str, Member] = {}
        self.flows: dict[PartitionKey, Flow] = {}
        self._settings = settings
        self._emit = emit
        self._readers = {} if readers is None else readers
        self._partitions: dict[int, int] = {}
        self._by_name: dict[tuple[str, int], PartitionKey] = {}
        self._dirty: dict[PartitionKey, Flow] = {}
        self._members_ever = 0

    # -- membership ---------------------------------------------------------

    def new_member_id(self) -> str:
        """An id this group has not used yet; later ones sort later."""
        self._members_ever += 1
        return f"{self._members_ever:012d}"

    def join(
        self, member: Member, partitions: dict[int, int], opening: Callable[[PartitionKey], Opening]
    ) -> None:
        """Add a member and share the partitions out anew.

        Args:
            member: with the topics it reads.
            partitions: partition count of each of these topics.
            opening: where a partition nobody read so far starts.

        Raises:
            LimitExceededError: too many members, or partitions.
        """
        if len(self.members) >= self._settings.max_members_per_group:
            raise LimitExceededError(
                f"group {self.name!r} has {len(self.members)} members, the most one group may have"
            )
        wanted = self._partitions | partitions
        if sum(wanted.values()) > self._settings.max_partitions_per_group:
            raise LimitExceededError(
                f"group {self.name!r} would read {sum(wanted.values())} partitions;"
                f" the limit is {self._settings.max_partitions_per_group}"
            )
        keys = [(topic, number) for topic, count in partitions.items() for number in range(count)]
        # Everything that can fail comes before the first change.
        opened = {key: opening(key) for key in keys if key not in self.flows}
        for key, (start, durable) in opened.items():
            self._open(key, member.topics[key[0]], start, durable)
        self._partitions = wanted
        self.members[member.id] = member
        member.assignment_due = True
        self._rebalance()
        member.notify()

    def leave(self, member: Member) -> None:
        """Take the member out; its partitions go to the others from the acked prefix on."""
        if self.members.pop(member.id, None) is None:
            return
        for flow in member.owned.values():
            flow.owner = None
        self._partitions = {
            topic: count
            for topic, count in self._partitions.items()
            if any(topic in other.topics for other in self.members.values())
        }
        self._rebalance()
        member.owned.clear()
        self._close_unread()

    def drop_topic(self, topic_id: int, error: HoldfastError) -> None:
        """The topic is gone: end the sessions that read it and forget its flows."""
        for member in list(self.members.values()):
            if topic_id in member.topics:
                member.end(error)
                self.leave(member)
        for key in [key for key in self.flows if key[0] == topic_id]:
            self._forget(key)

    def close(self, error: HoldfastError) -> None:
        """End every session with this error and forget everything."""
        members = list(self.members.values())
        self.members.clear()
        self._partitions.clear()
        for key in list(self.flows):
            self._forget(key)
        for member in members:
            member.owned.clear()
            member.end(error)

    def _rebalance(self) -> None:
        members = {name: member.topics.keys() for name, member in self.members.items()}
        previous = {key: flow.owner.id for key, flow in self.flows.items() if flow.owner is not None}
        owners = assign(members, self._partitions, previous)
        moved = 0
        changed: dict[str, None] = {}  # in order, so that a run can be repeated
        for key, name in owners.items():
            flow = self.flows[key]
            if previous.get(key) == name:
                continue
            if flow.owner is not None:
                moved += 1
                changed[flow.owner.id] = None
                del flow.owner.owned[key]
                flow.owner.lost.add(key)
            changed[name] = None
            self._hand_over(flow, self.members[name])
        changed.update({name: None for name, member in self.members.items() if member.assignment_due})
        if not changed:
            return
        self.generation += 1
        for name in changed:
            self.members[name].assignment_due = True
            self.members[name].notify()
        if self._emit is not None:
            self._emit(GroupRebalanced(self.name, self.generation, len(self.members), len(owners), moved))

    def _hand_over(self, flow: Flow, member: Member) -> None:
        flow.owner = member
        flow.window.rewind()
        flow.ready = True
        flow.paused = False
        member.owned[flow.key] = flow
        member.lost.discard(flow.key)

    # -- flows --------------------------------------------------------------

    def _open(self, key: PartitionKey, topic: str, start: int, durable: int | None) -> None:
        flow = Flow(key, topic, AckWindow(start), durable)
        self.flows[key] = flow
        self._by_name[topic, key[1]] = key
        self._readers.setdefault(key, {})[self] = None
        self._note_dirty(flow)

    def _close_unread(self) -> None:
        """Forget flows nobody reads, once what was acked in them is durable.

        Earlier, a member that comes back could start, and then commit, below it.
        """
        for key, flow in list(self.flows.items()):
            if key[0] not in self._partitions and not flow.dirty and not flow.committing:
                self._forget(key)

    def _forget(self, key: PartitionKey) -> None:
        flow = self.flows.pop(key)
        self._by_name.pop((flow.topic, flow.partition), None)
        self._dirty.pop(key, None)
        readers = self._readers[key]
        readers.pop(self, None)
        if not readers:
            del self._readers[key]

    def touch(self, key: PartitionKey) -> None:
        """Records were appended to the partition."""
        flow = self.flows.get(key)
        if flow is not None and not flow.ready:
            flow.ready = True
            if flow.owner is not None:
                flow.owner.notify()

    @property
    def idle(self) -> bool:
        """No members and nothing left to commit: the group may be forgotten."""
        return not self.members and not self.flows

    # -- delivery -----------------------------------------------------------

    def grant(self, member: Member, records: int) -> None:
        """Further records the member may be sent.

        Raises:
            LimitExceededError: it holds too many credits already.
        """
        if member.credits + records > self._settings.max_credits:
            raise LimitExceededError(
                f"{member.credits} + {records} credits; a member may hold {self._settings.max_credits}"
            )
        member.credits += records
        member.notify()

    def room(self, flow: Flow) -> int:
        """Records of this flow its owner may be handed now, credits aside."""
        if flow.durable is None:
            return 0
        room = self._settings.max_unacked - flow.window.outstanding
        if room <= 0 and not flow.paused:
            flow.paused = True
            if self._emit is not None:
                window = flow.window
                self._emit(
                    DeliveryPaused(
                        self.name, flow.topic, flow.partition, window.committed, window.next_offset
                    )
                )
        return max(room, 0)

    def delivered(self, member: Member, flow: Flow, end: int, records: int) -> None:
        """The member is being sent ``records`` records, up to ``end`` (exclusive)."""
        if records > member.credits:
            raise ValueError(f"{records} records under {member.credits} credits")
        member.credits -= records
        flow.window.deliver(end)

    def trimmed(self, flow: Flow, start_offset: int) -> None:
        """Retention removed what lies below ``start_offset``: go on there."""
        committed = flow.window.committed
        if start_offset <= flow.window.next_offset and start_offset <= committed:
            return
        if flow.window.skip_to(start_offset):
            self._note_dirty(flow)
        if self._emit is not None:
            self._emit(OffsetsTrimmed(self.name, flow.topic, flow.partition, committed, start_offset))

    # -- acks ---------------------------------------------------------------

    def ack(self, member: Member, topic: str, partition: int, first: int, last: int) -> bool:
        """Take an ack; a refused one is queued for the member and changes nothing else.

        Returns:
            True when it was taken.
        """
        try:
            self._ack(member, topic, partition, first, last)
        except HoldfastError as error:
            member.refusals.append(AckRefusal(topic, partition, first, last, error))
            member.notify()
            return False
        return True

    def _ack(self, member: Member, topic: str, partition: int, first: int, last: int) -> None:
        key = self._by_name.get((topic, partition))
        flow = None if key is None else member.owned.get(key)
        if flow is None:
            if key is not None and key in member.lost:
                raise FencedError(
                    f"partition {partition} of {topic!r} has moved to another member;"
                    " what was not acknowledged is delivered there",
                    metadata={"generation": str(self.generation)},
                )
            raise NotDeliveredError(f"no records of partition {partition} of {topic!r} were delivered here")
        if not flow.window.ack(first, last):
            return
        self._note_dirty(flow)
        if flow.paused and flow.window.outstanding < self._settings.max_unacked:
            flow.paused = False
            member.notify()
            if self._emit is not None:
                self._emit(DeliveryResumed(self.name, flow.topic, flow.partition))

    # -- commits ------------------------------------------------------------

    @property
    def commit_due(self) -> bool:
        """Something is acked and neither durable nor on its way."""
        return bool(self._dirty)

    def collect_commit(self) -> list[tuple[Flow, int]]:
        """Take what is to be committed now, bounded; end it with ``commit_done`` or ``commit_failed``."""
        taken: list[tuple[Flow, int]] = []
        for key in list(self._dirty):
            if len(taken) >= self._settings.max_offsets_per_commit:
                break
            flow = self._dirty.pop(key)
            flow.committing = True
            taken.append((flow, flow.window.committed))
        return taken

    def commit_done(self, taken: Iterable[tuple[Flow, int]]) -> None:
        """These offsets are durable: tell the members that own the partitions."""
        for flow, offset in taken:
            flow.committing = False
            anchor = flow.durable is None
            flow.durable = offset
            self._note_dirty(flow)
            owner = flow.owner
            if owner is not None:
                if not anchor:
                    owner.committed[flow.key] = offset
                owner.notify()
        self._close_unread()

    def commit_failed(self, taken: Iterable[tuple[Flow, int]]) -> None:
        """These offsets may not be durable: they are due again."""
        for flow, _ in taken:
            flow.committing = False
            self._note_dirty(flow)

    def _note_dirty(self, flow: Flow) -> None:
        if flow.dirty and not flow.committing and flow.key in self.flows:
            self._dirty[flow.key] = flow
