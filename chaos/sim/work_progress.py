"""Does a defined group come to its end? Only what is parked for good may be left."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.chaos.sim.cluster import SimNode
from holdfast.chaos.sim.groups_at_rest import settled_ranges
from holdfast.chaos.sim.services import Front
from holdfast.chaos.sim.workers import TOPIC
from holdfast.storage import flow_keys, groups, partitions, retries, topics
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Reader

#: The store is looked at this often, in virtual seconds.
_EVERY_S = 0.02


class WorkProgress:
    """What the group has settled, against the ends of its topic's partitions."""

    def __init__(self, front: Front, group: str) -> None:
        self._front = front
        self._group = group
        self._look_at = 0.0

    def complete(self) -> bool:
        """All is settled or parked for good; looked at now and then, not at every step."""
        now = self._front.cluster.world.now
        if now < self._look_at:
            return False
        self._look_at = now + _EVERY_S
        try:
            return not self.stuck()
        except DamagedRowError:
            # The leader's disk has to be replaced before it can say where a group is: not judged.
            return True

    def stuck(self) -> list[str]:
        """For people: what is not settled, partition by partition."""
        leader = self._front.cluster.leader()
        if leader is None or leader.engine is None:
            return ["no leader"]
        with leader.store.read() as reader:
            return [*self._behind(reader, leader)]

    def _behind(self, reader: Reader, leader: SimNode) -> Iterator[str]:
        topic = topics.find(reader, TOPIC)
        for number in range(0 if topic is None else topic.partitions):
            assert topic is not None
            state = partitions.read_state(reader, topic.id, number)
            end = 0 if state is None else state.next_offset
            if not end:
                continue
            floor = groups.committed(reader, self._group, topic.id, number) or 0
            flow = flow_keys.flow_key(self._group, topic.id, number)
            settled = settled_ranges(reader, flow)
            waiting = dict(retries.scan(reader, flow))
            parked = sum(row.state is retries.State.PARKED_FOR_GOOD for row in waiting.values())
            left = end - floor - sum(stop - first for first, stop in settled)
            if left > parked:
                now_us = leader.clock.wall_us()
                rows = {
                    offset: (row.state.name, row.attempts, f"due in {(row.due_us - now_us) / 1e6:.1f} s")
                    for offset, row in list(waiting.items())[:5]
                }
                yield (
                    f"group {self._group} {TOPIC}[{number}]: {left} of {end} are not settled, {parked} of"
                    f" them parked for good; floor {floor}, above it {settled[:5]};"
                    f" {len(waiting)} wait: {rows}"
                )
