"""The Groups service: definitions and positions of consumer groups.

Any node takes any call. Writes go through the log, in bounded steps where there is
much to do; whoever coordinates the group hears of them when they are applied. Reads
first make sure of what was acknowledged, and fall back to what this node knows when
no leader answers. Groups of the brokers' own are not shown and cannot be named.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import grpc

from holdfast.cluster import group_definition
from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.positions import first_record_at, resolve
from holdfast.cluster.delivery.reading import PartitionRef
from holdfast.cluster.ports import Clock
from holdfast.cluster.state.group_ops import check_dead_letter_topic
from holdfast.cluster.state.group_view import definition_of, group_message, unknown_group
from holdfast.cluster.state.names import HIDDEN_PREFIX, MAX_NAME, check_name, is_hidden
from holdfast.errors import NoLeaderError, UnknownPartitionError, UnknownTopicError
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.services.handlers import unary
from holdfast.rpc.services.topic_cache import TopicCache, unknown_topic
from holdfast.rpc.status import invalid
from holdfast.storage import groups, partitions, topics
from holdfast.storage.port import Reader, Store
from holdfast.storage.topics import TopicRow
from holdfast.v1 import bus_pb2, groups_pb2, log_pb2

logger = logging.getLogger(__name__)

SERVICE = groups_pb2.DESCRIPTOR.services_by_name["Groups"].full_name

#: Groups, or records, in one answer.
MAX_PAGE = 1_000


class GroupsService:
    """Calls of ``holdfast.v1.Groups`` about groups; ``timeout`` is in seconds everywhere.

    Args:
        max_record_bytes: the largest record of a topic that sets no limit of its own.
    """

    def __init__(
        self, store: Store, bridge: EngineBridge, cache: TopicCache, clock: Clock, max_record_bytes: int
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._cache = cache
        self._clock = clock
        self._max_record_bytes = max_record_bytes

    def handlers(self, default_timeout: float) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What a server registers."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "PutGroup": unary(groups_pb2.PutGroupRequest, self.put_group, default_timeout),
                "GetGroup": unary(groups_pb2.GetGroupRequest, self.get_group, default_timeout),
                "ListGroups": unary(groups_pb2.ListGroupsRequest, self.list_groups, default_timeout),
                "SeekGroup": unary(groups_pb2.SeekGroupRequest, self.seek_group, default_timeout),
                "DeleteGroup": unary(groups_pb2.DeleteGroupRequest, self.delete_group, default_timeout),
            },
        )

    # -- definitions ------------------------------------------------------------

    async def put_group(self, request: groups_pb2.PutGroupRequest, timeout: float) -> groups_pb2.Group:
        """Make a group or redefine it; topics that are new to it must be there.

        Raises:
            InvalidArgumentError: a field of the definition, which is named.
            UnknownTopicError: a topic or the dead-letter topic is not there.
            GroupConflictError: the group cannot become this; ``field`` says why.
            LimitExceededError: as many groups as there may be.
        """
        check_name(request.name, what="group", field="name")
        if not request.HasField("definition"):
            raise invalid("definition", "a group needs a definition: at least its topics or patterns")
        definition = group_definition.check(request.definition)
        await self._bridge.barrier(timeout)
        with self._store.read() as reader:
            row = groups.read(reader, request.name)
            has = None if row is None else definition_of(row)
            known = () if has is None else has.topics
            for topic in definition.topics:
                if topic not in known and topics.find(reader, topic) is None:
                    raise _missing(topic)
            check_dead_letter_topic(reader, definition, self._max_record_bytes)
        op = log_pb2.Op()
        op.put_group.group = request.name
        op.put_group.definition.CopyFrom(group_definition.to_message(definition))
        op.put_group.create_only = request.create_only
        result, _ = await self._bridge.submit(encode_op(op), timeout)
        return result.group

    async def get_group(self, request: groups_pb2.GetGroupRequest, timeout: float) -> groups_pb2.Group:
        """A group with its members and partitions; linearizable when a leader answers.

        Raises:
            UnknownGroupError: there is none of this name.
        """
        check_name(request.name, what="group", field="name")
        await self._catch_up(timeout)
        with self._store.read() as reader:
            return group_message(reader, request.name)

    async def list_groups(
        self, request: groups_pb2.ListGroupsRequest, timeout: float
    ) -> groups_pb2.ListGroupsResponse:
        """A page of groups by name; linearizable when a leader answers.

        Raises:
            InvalidArgumentError: ``limit`` or ``after`` cannot be.
        """
        limit = page_limit(request.limit)
        if len(request.after) > len(HIDDEN_PREFIX) + MAX_NAME:
            raise invalid("after", "after is no name of a group: hand in what `next` said")
        await self._catch_up(timeout)
        answer = groups_pb2.ListGroupsResponse()
        with self._store.read() as reader:
            names = _visible(reader, request.after, limit + 1)
            for name in names[:limit]:
                answer.groups.append(group_message(reader, name, members=False, partitions=False))
        if len(names) > limit:
            answer.next = names[limit - 1]
        return answer

    async def delete_group(
        self, request: groups_pb2.DeleteGroupRequest, timeout: float
    ) -> groups_pb2.DeleteGroupResponse:
        """Delete a group and all it holds; a call that ends early has deleted a part, and can be repeated.

        Raises:
            UnknownGroupError: there is none of this name.
            FailedPreconditionError: it has members.
        """
        check_name(request.name, what="group", field="name")
        op = log_pb2.Op(delete_group=log_pb2.DeleteGroupOp(group=request.name))
        left = self._deadline(timeout)
        while True:
            result, _ = await self._bridge.submit(encode_op(op), left())
            if not result.more:
                return groups_pb2.DeleteGroupResponse()

    # -- positions ----------------------------------------------------------------

    async def seek_group(self, request: groups_pb2.SeekGroupRequest, timeout: float) -> groups_pb2.Group:
        """Set positions; a call that ends early has set a part of them, and can be repeated.

        Raises:
            UnknownGroupError, UnknownTopicError, UnknownPartitionError: nothing to seek in.
            OffsetOutOfRangeError: an offset is not there; the range is named.
            InvalidArgumentError: where to is not said, or a partition is named twice.
        """
        check_name(request.name, what="group", field="name")
        if request.to.WhichOneof("position") is None:
            raise invalid("to", "to is missing: earliest, latest, a time, an offset or offsets by partition")
        left = self._deadline(timeout)
        await self._bridge.barrier(left())
        topic = await self._cache.find(request.topic, left())
        numbers = _partitions(request, topic)
        pending = await self._bridge.read_repaired(
            lambda: self._positions(request.name, topic, numbers, request.to), left()
        )
        while pending:
            op = log_pb2.Op()
            op.seek_group.group = request.name
            for partition, offset in pending.items():
                op.seek_group.flows.add(topic_id=topic.id, partition=partition, offset=offset)
            result, _ = await self._bridge.submit(encode_op(op), left())
            for done in result.group.partitions:
                pending.pop(done.partition, None)
        with self._store.read() as reader:
            return group_message(reader, request.name)

    def _positions(
        self, group: str, topic: TopicRow, numbers: Iterable[int], to: bus_pb2.Position
    ) -> dict[int, int]:
        """The offset that is meant in each partition, now."""
        found: dict[int, int] = {}
        with self._store.read() as reader:
            if not groups.exists(reader, group):
                raise unknown_group(group)
            for partition in numbers:
                state = partitions.read_state(reader, topic.id, partition)
                if state is None:
                    raise unknown_topic(topic.name)
                ref = PartitionRef(topic.name, topic.id, partition)
                offset = resolve(reader, ref, state, to, "record")
                if to.WhichOneof("position") == "time_us":
                    offset = first_record_at(reader, ref, offset, to.time_us)
                found[partition] = offset
        return found

    # -- parts --------------------------------------------------------------------------

    async def _catch_up(self, timeout: float) -> None:
        try:
            await self._bridge.barrier(timeout)
        except NoLeaderError:
            logger.debug("no leader: groups are read as this node knows them")

    def _deadline(self, timeout: float) -> Callable[[], float]:
        """How many seconds of ``timeout`` are left, from now on."""
        end = self._clock.monotonic() + timeout
        return lambda: max(end - self._clock.monotonic(), 0.0)


def page_limit(asked: int) -> int:
    """How many a page may have.

    Raises:
        InvalidArgumentError: more than there may be.
    """
    if asked > MAX_PAGE:
        raise invalid("limit", f"limit is {asked}; up to {MAX_PAGE} are allowed, and 0 means that")
    return asked or MAX_PAGE


def _visible(reader: Reader, after: str, limit: int) -> list[str]:
    """Names of groups, those of the brokers' own left out."""
    found: list[str] = []
    while len(found) < limit:
        names = groups.list_groups(reader, after, limit)
        found += [name for name in names if not is_hidden(name)]
        if len(names) < limit:
            break
        after = names[-1]
    return found[:limit]


def _partitions(request: groups_pb2.SeekGroupRequest, topic: TopicRow) -> list[int]:
    """The partitions that are meant: with offsets by partition those, and no others."""
    named = sorted(request.to.offsets.offsets) if request.to.HasField("offsets") else []
    numbers = list(request.partitions)
    if request.to.HasField("offsets"):
        if not named:
            raise invalid("to", "to names no partition's offset")
        if numbers and sorted(numbers) != named:
            raise invalid("partitions", "partitions and the offsets by partition name different ones")
        numbers = named
    if len(set(numbers)) != len(numbers):
        raise invalid("partitions", "a partition is named twice")
    for number in numbers:
        check_number(topic, number)
    return numbers or list(range(topic.partitions))


def check_number(topic: TopicRow, partition: int) -> None:
    """
    Raises:
        UnknownPartitionError: the topic has fewer partitions.
    """
    if partition >= topic.partitions:
        raise UnknownPartitionError(
            f"topic {topic.name!r} has partitions 0 to {topic.partitions - 1}, not {partition}",
            metadata={"topic": topic.name, "partition": str(partition)},
        )


def _missing(topic: str) -> UnknownTopicError:
    return UnknownTopicError(
        f"no topic {topic!r}; create it first, or name a pattern that it will match",
        metadata={"field": "topics", "topic": topic},
    )
