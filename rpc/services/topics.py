"""The Topics service: definitions and limits.

Writes go through the log; reads first make sure of what was acknowledged, and
fall back to what this node knows when no leader answers (documented in
``list_topics`` and ``get_topic``).
"""

from __future__ import annotations

import logging

import grpc

from holdfast.cluster.commands import encode_op
from holdfast.cluster.state.names import check_name
from holdfast.cluster.state.results import topic_message
from holdfast.errors import FailedPreconditionError, NoLeaderError
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.services.handlers import unary
from holdfast.rpc.services.topic_cache import TopicCache, unknown_topic
from holdfast.rpc.status import invalid
from holdfast.storage import partitions, topics
from holdfast.storage.port import Reader, Store
from holdfast.storage.topics import TopicRow
from holdfast.v1 import log_pb2, topics_pb2

logger = logging.getLogger(__name__)

SERVICE = topics_pb2.DESCRIPTOR.services_by_name["Topics"].full_name


class TopicsService:
    """All calls of ``holdfast.v1.Topics``; ``timeout`` is in seconds everywhere."""

    def __init__(self, store: Store, bridge: EngineBridge, cache: TopicCache) -> None:
        self._store = store
        self._bridge = bridge
        self._cache = cache

    def handlers(self, default_timeout: float) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What a server registers."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "CreateTopic": unary(topics_pb2.CreateTopicRequest, self.create_topic, default_timeout),
                "GetTopic": unary(topics_pb2.GetTopicRequest, self.get_topic, default_timeout),
                "ListTopics": unary(topics_pb2.ListTopicsRequest, self.list_topics, default_timeout),
                "UpdateTopic": unary(topics_pb2.UpdateTopicRequest, self.update_topic, default_timeout),
                "DeleteTopic": unary(topics_pb2.DeleteTopicRequest, self.delete_topic, default_timeout),
            },
        )

    async def create_topic(self, request: topics_pb2.CreateTopicRequest, timeout: float) -> topics_pb2.Topic:
        """
        Raises:
            InvalidArgumentError: name, partition count or limits.
            TopicExistsError: and ``if_not_exists`` does not apply.
            LimitExceededError: as many topics as there may be.
        """
        check_name(request.name, what="topic", field="name")
        _check_limits(request.limits)
        op = log_pb2.Op()
        create = op.create_topic
        create.name = request.name
        create.partitions = request.partitions
        create.limits.CopyFrom(request.limits)
        create.if_not_exists = request.if_not_exists
        result, _ = await self._bridge.submit(encode_op(op), timeout)
        return result.topic

    async def get_topic(self, request: topics_pb2.GetTopicRequest, timeout: float) -> topics_pb2.Topic:
        """The topic with its partitions' offsets; linearizable when a leader answers.

        Raises:
            UnknownTopicError: no such topic.
        """
        check_name(request.name, what="topic", field="name")
        await self._catch_up(timeout)
        with self._store.read() as reader:
            row = topics.find(reader, request.name)
            if row is None:
                raise unknown_topic(request.name)
            return _describe(reader, row)

    async def list_topics(
        self, request: topics_pb2.ListTopicsRequest, timeout: float
    ) -> topics_pb2.ListTopicsResponse:
        """All topics by name; linearizable when a leader answers, else as this node knows them."""
        await self._catch_up(timeout)
        with self._store.read() as reader:
            found = [_describe(reader, row) for row in topics.scan_by_name(reader)]
        return topics_pb2.ListTopicsResponse(topics=found)

    async def update_topic(self, request: topics_pb2.UpdateTopicRequest, timeout: float) -> topics_pb2.Topic:
        """
        Raises:
            UnknownTopicError: no such topic.
            FailedPreconditionError: another partition count, which would re-route keys.
        """
        check_name(request.name, what="topic", field="name")
        _check_limits(request.limits)
        row = await self._cache.find(request.name, timeout)
        if request.partitions not in (0, row.partitions):
            raise FailedPreconditionError(
                f"topic {request.name!r} has {row.partitions} partitions; another count would re-route "
                "its keys: create a new topic instead",
                metadata={"field": "partitions"},
            )
        op = log_pb2.Op()
        op.update_topic.name = request.name
        op.update_topic.limits.CopyFrom(request.limits)
        result, _ = await self._bridge.submit(encode_op(op), timeout)
        return result.topic

    async def delete_topic(
        self, request: topics_pb2.DeleteTopicRequest, timeout: float
    ) -> topics_pb2.DeleteTopicResponse:
        """
        Raises:
            UnknownTopicError: no such topic.
        """
        check_name(request.name, what="topic", field="name")
        op = log_pb2.Op()
        op.delete_topic.name = request.name
        await self._bridge.submit(encode_op(op), timeout)
        return topics_pb2.DeleteTopicResponse()

    async def _catch_up(self, timeout: float) -> None:
        try:
            await self._bridge.barrier(timeout)
        except NoLeaderError:
            logger.debug("no leader: topics are read as this node knows them")


def _check_limits(limits: topics_pb2.TopicLimits) -> None:
    for field in ("retention_ms", "retention_bytes"):
        if getattr(limits, field) < 0:
            raise invalid(f"limits.{field}", f"limits.{field} is {getattr(limits, field)}; 0 means no limit")


def _describe(reader: Reader, row: TopicRow) -> topics_pb2.Topic:
    topic = topic_message(row)
    for partition in range(row.partitions):
        state = partitions.read_state(reader, row.id, partition)
        if state is not None:
            topic.partition_info.add(
                partition=partition,
                start_offset=state.start_offset,
                end_offset=state.next_offset,
                bytes=state.bytes,
            )
    return topic
