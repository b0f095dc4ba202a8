"""The partitions of a group on its leader: flow, owner, and the number members know each by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.dispatch import open_flow
from holdfast.cluster.delivery.flow import Flow
from holdfast.cluster.delivery.leases import Holder
from holdfast.cluster.group_definition import Definition


@dataclass(eq=False, slots=True)
class Place:
    """One partition.

    Attributes:
        owner: member id; empty: nobody, or the group's partitions have no owners.
        slot: its number; another one under each owner, and never given out twice.
    """

    flow: Flow
    slot: int
    owner: str = ""

    @property
    def key(self) -> PartitionKey:
        return self.flow.key

    @property
    def leased(self) -> bool:
        """Records of it are with somebody."""
        return next(iter(self.flow.leases), None) is not None

    def holders(self) -> list[Holder]:
        """Who has records of it, transactions apart, in an order that can be repeated."""
        found = {it.holder: None for it in self.flow.leases if it.holder.lender is None}
        return list(found)


class Places:
    """All partitions of a group, by key, slot and name."""

    def __init__(self) -> None:
        self.by_key: dict[PartitionKey, Place] = {}
        self._by_slot: dict[int, Place] = {}
        self._by_name: dict[tuple[str, int], Place] = {}
        self._last_slot = 0

    def __iter__(self) -> Iterator[Place]:
        return iter(self.by_key.values())

    def get(self, key: PartitionKey) -> Place | None:
        return self.by_key.get(key)

    def named(self, topic: str, partition: int) -> Place | None:
        return self._by_name.get((topic, partition))

    def at(self, slot: int) -> Place | None:
        """The partition that is known by a number now."""
        return self._by_slot.get(slot)

    def was_given(self, slot: int) -> bool:
        """Somebody knew a partition by this number once."""
        return 0 < slot <= self._last_slot

    def add(self, key: PartitionKey, topic: str, definition: Definition) -> Place:
        """A partition the group reads from now on."""
        place = Place(open_flow(key, topic, definition), 0)
        self.by_key[key] = place
        self._by_name[topic, key[1]] = place
        self._number(place)
        return place

    def give(self, place: Place, owner: str) -> None:
        """A partition has another owner."""
        place.owner = owner
        self._number(place)

    def remove(self, key: PartitionKey) -> Place:
        """The group does not read it any more; whoever has records of it has none."""
        place = self.by_key.pop(key)
        self._by_slot.pop(place.slot, None)
        self._by_name.pop((place.flow.topic, key[1]), None)
        for holder in place.holders():
            place.flow.leases.drop(holder)
        return place

    def _number(self, place: Place) -> None:
        self._by_slot.pop(place.slot, None)
        self._last_slot += 1
        place.slot = self._last_slot
        self._by_slot[place.slot] = place
