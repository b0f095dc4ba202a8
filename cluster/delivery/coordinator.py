"""All groups a leader coordinates, and the bounds over them."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.group import Group
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.ports import EventSink
from holdfast.errors import HoldfastError, LimitExceededError

_GENERATION_BITS = 32


class Coordinator:
    """The groups of one leader in one term; thrown away with either.

    Args:
        term: generations start from it, so that they grow from leader to leader.
        settings: the bounds.
        emit: where events go.
    """

    def __init__(self, term: int, settings: DeliverySettings, emit: EventSink | None = None) -> None:
        self.term = term
        self.groups: dict[str, Group] = {}
        self._settings = settings
        self._emit = emit
        self._readers: dict[PartitionKey, dict[Group, None]] = {}  # ordered, so that a run can be repeated
        self._generation = term << _GENERATION_BITS

    def group(self, name: str) -> Group:
        """The group, made when it is not there.

        Raises:
            LimitExceededError: too many groups have members.
        """
        found = self.groups.get(name)
        if found is None:
            if len(self.groups) >= self._settings.max_groups:
                raise LimitExceededError(
                    f"{len(self.groups)} groups are active on this broker, the most it coordinates"
                )
            found = Group(name, self._generation, self._settings, self._emit, self._readers)
            self.groups[name] = found
        return found

    def forget_if_idle(self, group: Group) -> None:
        if group.idle and self.groups.get(group.name) is group:
            del self.groups[group.name]
            # A group of this name that comes back must not repeat a generation.
            self._generation = max(self._generation, group.generation)

    def discard(self, group: Group, error: HoldfastError) -> None:
        """The group cannot go on: end its sessions with this error and forget it."""
        group.close(error)
        self.forget_if_idle(group)

    def reads(self, keys: Iterable[PartitionKey]) -> bool:
        """Whether a group has one of these partitions; from any thread."""
        readers = self._readers
        return any(key in readers for key in keys)

    def touch(self, keys: Iterable[PartitionKey]) -> None:
        """Records were appended to these partitions."""
        readers = self._readers
        if readers:
            for key in keys:
                for group in readers.get(key, ()):
                    group.touch(key)

    def end_all(self, error: HoldfastError) -> None:
        """Leadership is lost, or the broker stops: every session ends with this error."""
        for group in self.groups.values():
            for member in group.members.values():
                member.end(error)
