"""Groups and the records they put off: what both clients offer, and the calls behind it."""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Iterable
from typing import Any, TypeVar

from holdfast.client.connection import Connection, Method, Tries
from holdfast.client.groups import (
    GroupDefinition,
    GroupInfo,
    RecordPlace,
    RetryingRecord,
    from_group,
    from_retry,
    to_definition,
    to_place,
)
from holdfast.client.lag import PartitionLag, read_lags
from holdfast.client.positions import Place, to_partitions, to_position
from holdfast.errors import UnknownGroupError
from holdfast.v1 import groups_pb2

_T = TypeVar("_T")

_PUT_GROUP: Method[groups_pb2.PutGroupRequest, groups_pb2.Group] = Method(
    "Groups", "PutGroup", groups_pb2.Group
)
_GET_GROUP: Method[groups_pb2.GetGroupRequest, groups_pb2.Group] = Method(
    "Groups", "GetGroup", groups_pb2.Group
)
_LIST_GROUPS: Method[groups_pb2.ListGroupsRequest, groups_pb2.ListGroupsResponse] = Method(
    "Groups", "ListGroups", groups_pb2.ListGroupsResponse
)
_SEEK_GROUP: Method[groups_pb2.SeekGroupRequest, groups_pb2.Group] = Method(
    "Groups", "SeekGroup", groups_pb2.Group
)
_DELETE_GROUP: Method[groups_pb2.DeleteGroupRequest, groups_pb2.DeleteGroupResponse] = Method(
    "Groups", "DeleteGroup", groups_pb2.DeleteGroupResponse
)
_LIST_RETRIES: Method[groups_pb2.ListRetriesRequest, groups_pb2.ListRetriesResponse] = Method(
    "Groups", "ListRetries", groups_pb2.ListRetriesResponse
)
_RESTORE: Method[groups_pb2.RestoreRequest, groups_pb2.RestoreResponse] = Method(
    "Groups", "Restore", groups_pb2.RestoreResponse
)

#: Records one answer of ``retries`` has at most, and one request of ``restore`` names.
_PAGE = 1_000


class GroupCalls:
    """The part of ``Client`` that is about groups."""

    @property
    def _connected(self) -> Connection:
        raise NotImplementedError

    async def create_group(
        self, name: str, definition: GroupDefinition, *, timeout: float | None = None
    ) -> GroupInfo:
        """Make a group before anybody joins it; be content with one that is just the same.

        Args:
            name: 1 to 249 characters of ``[A-Za-z0-9._-]``.
            definition: its topics must be there, and its dead-letter topic.

        Raises:
            GroupConflictError: there is one that is defined otherwise; ``metadata["field"]``.
            InvalidArgumentError: a field makes no sense.
            UnknownTopicError: a topic is not there.
        """
        return await self._put_group(name, definition, create_only=True, timeout=timeout)

    async def put_group(
        self, name: str, definition: GroupDefinition, *, timeout: float | None = None
    ) -> GroupInfo:
        """Make a group, or replace its definition at once, also under its members.

        Fields that are None become the default. What the group has settled stays.

        Raises:
            GroupConflictError: it is there with another ``semantics`` or ``ordering``.
            InvalidArgumentError: a field makes no sense.
            UnknownTopicError: a topic is not there.
        """
        return await self._put_group(name, definition, create_only=False, timeout=timeout)

    async def group(self, name: str, *, timeout: float | None = None) -> GroupInfo:
        """A group, its members and where it stands in its partitions.

        Raises:
            UnknownGroupError: there is none of this name.
        """
        request = groups_pb2.GetGroupRequest(name=name)
        return from_group(await self._connected.call(_GET_GROUP, request, timeout))

    async def groups(self, *, timeout: float | None = None) -> list[GroupInfo]:
        """All groups by name, without members and partitions.

        Raises:
            HoldfastError: no broker answered in time.
        """
        found: list[GroupInfo] = []
        after = ""
        while True:
            request = groups_pb2.ListGroupsRequest(after=after)
            answer = await self._connected.call(_LIST_GROUPS, request, timeout)
            found += [from_group(group) for group in answer.groups]
            after = answer.next
            if not after:
                return found

    async def seek_group(
        self,
        name: str,
        topic: str,
        to: Place,
        *,
        partitions: Collection[int] = (),
        timeout: float | None = None,
    ) -> GroupInfo:
        """Have a group go on elsewhere in a topic; members go on there by themselves.

        What it had settled behind the new place is handed out again, and records
        that waited there for another attempt begin anew.

        Args:
            to: "earliest", "latest", an offset, an aware datetime, or offsets by
                partition: then only in those.
            partitions: numbers; empty: all.

        Raises:
            UnknownGroupError, UnknownTopicError, UnknownPartitionError: nothing to seek in.
            OffsetOutOfRangeError: the offset is not there; ``metadata`` has the range.
        """
        request = groups_pb2.SeekGroupRequest(
            name=name, topic=topic, partitions=to_partitions(partitions), to=to_position(to, "to")
        )
        return from_group(await self._connected.call(_SEEK_GROUP, request, timeout))

    async def delete_group(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a group with its definition and positions; records stay in their topics.

        Raises:
            UnknownGroupError: there is none of this name.
            FailedPreconditionError: it has members.
        """
        tries = Tries()
        request = groups_pb2.DeleteGroupRequest(name=name)
        try:
            await self._connected.call(_DELETE_GROUP, request, timeout, tries)
        except UnknownGroupError:
            if not tries.uncertain:
                raise  # else an earlier try has done it

    async def lag(
        self, group: str | None = None, *, linearizable: bool = False, timeout: float | None = None
    ) -> list[PartitionLag]:
        """How far groups are behind in each partition, in records and in seconds.

        Exact as of what the broker that answers has applied; any broker answers,
        and a healthy follower is milliseconds behind.

        Args:
            group: None: all groups.
            linearizable: count everything that was acknowledged before the call: costs a
                round to the leader.

        Raises:
            UnknownGroupError: there is none of this name.
        """
        pages = read_lags(self._connected, group or "", linearizable=linearizable, timeout=timeout)
        return [lag async for lag in pages]

    async def retries(
        self,
        group: str,
        *,
        parked: bool = False,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> list[RetryingRecord]:
        """A group's records that wait for another attempt or are parked, by place.

        Args:
            parked: only those that are parked.
            limit: at most so many; None: all.

        Raises:
            UnknownGroupError: there is none of this name.
        """
        found: list[RetryingRecord] = []
        request = groups_pb2.ListRetriesRequest(group=group, parked_only=parked)
        while limit is None or len(found) < limit:
            request.limit = _PAGE if limit is None else min(_PAGE, limit - len(found))
            answer = await self._connected.call(_LIST_RETRIES, request, timeout)
            found += [from_retry(retry) for retry in answer.retries]
            if not answer.HasField("next"):
                break
            request.after.CopyFrom(answer.next)
        return found

    async def restore(
        self,
        group: str,
        places: Iterable[RecordPlace] | None = None,
        *,
        discard: bool = False,
        timeout: float | None = None,
    ) -> int:
        """Have parked records handed out again, or settle them.

        Args:
            places: records from ``retries``, or (topic, partition, offset); None:
                all that are parked.
            discard: settle them instead: nobody will handle them.

        Returns:
            How many there were; those that are not parked are left alone. After a
            failed try of the call it may be fewer than were restored.

        Raises:
            UnknownGroupError, UnknownTopicError, UnknownPartitionError: nothing of that name.
        """
        if places is None:
            return await self._restore(group, [], discard, timeout)
        named = [to_place(place) for place in places]
        restored = 0
        for at in range(0, len(named), _PAGE):
            restored += await self._restore(group, named[at : at + _PAGE], discard, timeout)
        return restored

    async def _put_group(
        self, name: str, definition: GroupDefinition, *, create_only: bool, timeout: float | None
    ) -> GroupInfo:
        request = groups_pb2.PutGroupRequest(
            name=name, definition=to_definition(definition), create_only=create_only
        )
        return from_group(await self._connected.call(_PUT_GROUP, request, timeout))

    async def _restore(
        self, group: str, places: list[groups_pb2.RetryPlace], discard: bool, timeout: float | None
    ) -> int:
        request = groups_pb2.RestoreRequest(group=group, places=places, discard=discard)
        return (await self._connected.call(_RESTORE, request, timeout)).records


class SyncGroupCalls:
    """The part of ``SyncClient`` that is about groups; arguments and errors are those of ``Client``'s."""

    _client: GroupCalls

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        raise NotImplementedError

    def create_group(
        self, name: str, definition: GroupDefinition, *, timeout: float | None = None
    ) -> GroupInfo:
        """See ``Client.create_group``."""
        return self._run(self._client.create_group(name, definition, timeout=timeout))

    def put_group(self, name: str, definition: GroupDefinition, *, timeout: float | None = None) -> GroupInfo:
        """See ``Client.put_group``."""
        return self._run(self._client.put_group(name, definition, timeout=timeout))

    def group(self, name: str, *, timeout: float | None = None) -> GroupInfo:
        """See ``Client.group``."""
        return self._run(self._client.group(name, timeout=timeout))

    def groups(self, *, timeout: float | None = None) -> list[GroupInfo]:
        """See ``Client.groups``."""
        return self._run(self._client.groups(timeout=timeout))

    def seek_group(self, name: str, topic: str, to: Place, **options: Any) -> GroupInfo:
        """Options are those of ``Client.seek_group``."""
        return self._run(self._client.seek_group(name, topic, to, **options))

    def delete_group(self, name: str, *, timeout: float | None = None) -> None:
        """See ``Client.delete_group``."""
        self._run(self._client.delete_group(name, timeout=timeout))

    def lag(self, group: str | None = None, **options: Any) -> list[PartitionLag]:
        """Options are those of ``Client.lag``."""
        return self._run(self._client.lag(group, **options))

    def retries(self, group: str, **options: Any) -> list[RetryingRecord]:
        """Options are those of ``Client.retries``."""
        return self._run(self._client.retries(group, **options))

    def restore(self, group: str, places: Iterable[RecordPlace] | None = None, **options: Any) -> int:
        """Options are those of ``Client.restore``."""
        return self._run(self._client.restore(group, places, **options))
