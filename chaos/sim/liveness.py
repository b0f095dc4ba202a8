"""Do groups make progress? At rest, what a group's members were promised has to reach them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.chaos.sim.cluster import SimCluster, SimNode
from holdfast.chaos.sim.services import Front
from holdfast.storage import groups, partitions, topics
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Reader

#: The store is looked at this often, in virtual seconds.
_EVERY_S = 0.01


class Progress:
    """What groups have committed, against the ends of the partitions they read.

    Args:
        front: the cluster and its services.
        reads: group -> names of the topics that its living members read.
    """

    def __init__(self, front: Front, reads: Mapping[str, Sequence[str]]) -> None:
        self._front = front
        self._cluster: SimCluster = front.cluster
        self._reads = reads
        self._look_at = 0.0

    def complete(self) -> bool:
        """Every group has committed everything; looked at now and then, not at every step."""
        now = self._cluster.world.now
        if not self._reads or now < self._look_at:
            return not self._reads
        self._look_at = now + _EVERY_S
        leader = self._leader()
        if leader is None:
            return False
        try:
            return not self._behind(leader)
        except DamagedRowError:
            # The leader's disk has to be replaced before it can say where a group is: not judged.
            return True

    def stuck(self) -> list[str]:
        """For people: what is not committed, and what the leader's coordinator knows about it."""
        leader = self._leader()
        if leader is None:
            return ["no leader"]
        try:
            return [self._facts(leader, *place) for place in self._behind(leader)]
        except DamagedRowError:
            return []

    def _leader(self) -> SimNode | None:
        leader = self._cluster.leader()
        return None if leader is None or leader.engine is None else leader

    def _behind(self, leader: SimNode) -> list[tuple[str, str, tuple[int, int], int | None, int]]:
        """Group, topic, key, committed offset and log end, of all that is not committed."""
        with leader.store.read() as reader:
            return [
                (group, name, key, committed, end)
                for group, names in self._reads.items()
                for name in names
                for key, end in _ends(reader, name)
                if (committed := groups.committed(reader, group, *key)) is None or committed < end
            ]

    def _facts(
        self, leader: SimNode, group: str, topic: str, key: tuple[int, int], committed: int | None, end: int
    ) -> str:
        place = f"group {group} {topic}[{key[1]}]: committed {committed} of {end}"
        process = self._front.processes.get(leader.node_id)
        host = None if process is None else process.services.subscribe._host
        coordinator = None if host is None else host.plain
        if coordinator is None or group not in coordinator.groups:
            return f"{place}; {leader.node_id} coordinates no such group"
        known = coordinator.groups[group]
        flow = known.flows.get(key)
        members = [
            f"{member.name or member.id} credits={member.credits} owns={sorted(member.owned)}"
            f" assignment_due={member.assignment_due} ended={member.ended!r}"
            for member in known.members.values()
        ]
        if flow is not None:
            window = flow.window
            place += (
                f"; acked to {window.committed} and {window.gaps} ranges above, handed out to"
                f" {window.next_offset} since {window.base}, durable={flow.durable} ready={flow.ready}"
                f" paused={flow.paused} committing={flow.committing} dirty={flow.dirty}"
                f" owner={None if flow.owner is None else flow.owner.name or flow.owner.id}"
            )
        return f"{place}; generation {known.generation} on {leader.node_id}; members: {members}"


def _ends(reader: Reader, name: str) -> list[tuple[tuple[int, int], int]]:
    row = topics.find(reader, name)
    if row is None:
        return []
    keys = [(row.id, number) for number in range(row.partitions)]
    states = [(key, partitions.read_state(reader, *key)) for key in keys]
    return [(key, state.next_offset) for key, state in states if state is not None]
