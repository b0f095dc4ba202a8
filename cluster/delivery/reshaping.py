"""From joins, leaves and hand-overs to entries: one ReshapeOp of a group in flight takes all that waits.

No timer gathers them: those that come while an operation is in flight go with the next one.

A partition that is to move from a member whose stream is there *drains* first: the member is told, is
sent nothing more of it and ends what runs. It moves when nothing of it is leased any more, or when the
time for that is over. What nobody owns moves at once, and so does what nothing is leased of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.membership import Membership
from holdfast.cluster.delivery.quota import share_out
from holdfast.v1 import log_pb2


class Owned(Protocol):
    """What is looked at of a partition."""

    @property
    def owner(self) -> str: ...

    @property
    def leased(self) -> bool:
        """Records of it are with a member."""
        ...


@dataclass(eq=False, slots=True)
class Reshape:
    """One operation in flight, and the same framed."""

    op: log_pb2.ReshapeOp
    framed: bytes


class Reshaping:
    """How one group's members and owners are to change.

    Args:
        group: its name.
        members: who is there.
        within: how long a member may take to end what runs in a partition that moves, in seconds.
    """

    def __init__(self, group: str, members: Membership, within: float) -> None:
        self.in_flight: Reshape | None = None
        #: Partitions whose owner is changed by the operation in flight.
        self.moving: frozenset[PartitionKey] = frozenset()
        #: Members who are let go by the operation in flight: who comes back now comes anew.
        self.leaving: frozenset[str] = frozenset()
        #: Partitions that are to move, and by when they do at the latest.
        self.draining: dict[PartitionKey, float] = {}
        self._group = group
        self._members = members
        self.within = within
        self._targets: dict[PartitionKey, str] = {}
        self._worked_out_for: object = None
        #: Something that should move could not, when it was looked at last.
        self.held_up = False

    def review(
        self, now: float, partitions: Sequence[PartitionKey], flows: Mapping[PartitionKey, Owned]
    ) -> tuple[list[PartitionKey], list[PartitionKey]]:
        """Work out who should own what, and let go what has to move.

        Targets change when members or partitions do, not when a hand-over is done: so a
        member that was asked for one partition is not asked for another instead.

        Returns:
            Partitions their owners are to be told to let go; those they may keep after all.
        """
        members = self._members_after()
        basis = (members, tuple(partitions))
        if basis != self._worked_out_for:
            self._worked_out_for = basis
            owners = {key: flows[key].owner for key in partitions if key in flows}
            self._targets = share_out(members, partitions, owners)
        asked: list[PartitionKey] = []
        for key, target in self._targets.items():
            flow = flows.get(key)
            if flow is None or flow.owner == target or not flow.owner or key in self.draining:
                continue
            if flow.leased and self._tellable(flow.owner):
                self.draining[key] = now + self.within
                asked.append(key)
        kept = [
            key
            for key in self.draining
            if key not in flows or self._targets.get(key, flows[key].owner) == flows[key].owner
        ]
        for key in kept:
            del self.draining[key]
        return asked, kept

    def collect(
        self,
        now: float,
        generation: int,
        flows: Mapping[PartitionKey, Owned],
        concerned: Callable[[PartitionKey], bool],
        opens: Iterable[log_pb2.FlowStart],
        topics_seen: Iterable[int],
    ) -> Reshape | None:
        """Everything that may change now as one operation; None when there is nothing.

        Args:
            generation: of the group's rows as they are known here.
            concerned: whether what is settled in a partition is on its way under its present fence.
            opens: partitions without a position, and where they start.
            topics_seen: topics the group meets for the first time.
        """
        if self.in_flight is not None:
            return None
        joins, leaves = self._members.wanted()
        op = log_pb2.ReshapeOp(
            group=self._group,
            expected=generation,
            join=joins,
            leave=leaves,
            open=opens,
            topics_seen=topics_seen,
        )
        self.held_up = False
        opened = {(start.topic_id, start.partition) for start in op.open}
        members = self._members_after()
        for key, target in self._targets.items():
            flow = flows.get(key)
            if flow is None:
                ready = key in opened
            elif flow.owner == target:
                continue
            else:
                ready = not concerned(key) and self._may_go(key, flow, members, now)
            if ready:
                op.owners.add(topic_id=key[0], partition=key[1], member=target)
            else:
                self.held_up = True
        if not (op.join or op.leave or op.owners or op.open or op.topics_seen):
            return None
        self.moving = frozenset((owner.topic_id, owner.partition) for owner in op.owners)
        self.leaving = frozenset(op.leave)
        self.in_flight = Reshape(op, encode_op(log_pb2.Op(reshape=op)))
        return self.in_flight

    def ended(self) -> log_pb2.ReshapeOp:
        """The operation in flight is answered, one way or another."""
        it, self.in_flight = self.in_flight, None
        if it is None:
            raise ValueError("no operation is in flight")
        self.moving, self.leaving = frozenset(), frozenset()
        return it.op

    def changed(self, op: log_pb2.ReshapeOp) -> None:
        """It was applied."""
        for owner in op.owners:
            self.draining.pop((owner.topic_id, owner.partition), None)

    def reset(self) -> None:
        """The rows were read anew: nothing that was worked out holds."""
        self._worked_out_for = None

    def next_time(self, now: float) -> float | None:
        """When the next hand-over's time is over; what is over already waits for an answer."""
        return min((at for at in self.draining.values() if at > now), default=None)

    def _may_go(self, key: PartitionKey, flow: Owned, members: frozenset[str], now: float) -> bool:
        if flow.owner not in members:
            return True
        if self._members.awaits(flow.owner):
            return False  # what an earlier leader handed it is known only to itself
        if not flow.leased:
            return True
        at = self.draining.get(key)
        return at is not None and now >= at

    def _tellable(self, member: str) -> bool:
        session = self._members.sessions.get(member)
        return session is not None and session.ended is None

    def _members_after(self) -> frozenset[str]:
        joins, leaves = self._members.wanted()
        return frozenset(self._members.seats.keys() - leaves | {row.id for row in joins})
