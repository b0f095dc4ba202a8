"""Topics and the cluster: calls that are made now and then."""

from __future__ import annotations

import asyncio

import grpc

from holdfast.client.connection import (
    CREATE_TOPIC,
    DELETE_TOPIC,
    GET_DIGEST,
    GET_STATUS,
    GET_TOPIC,
    LIST_TOPICS,
    UPDATE_TOPIC,
    Connection,
    Endpoint,
    Tries,
)
from holdfast.client.failures import from_rpc
from holdfast.client.times import from_us
from holdfast.client.types import ClusterInfo, MemberInfo, PartitionDigest, PartitionInfo, TopicInfo
from holdfast.errors import HoldfastError, TopicExistsError, UnknownTopicError
from holdfast.v1 import cluster_pb2, topics_pb2

_ROLES = {
    cluster_pb2.ROLE_LEADER: "leader",
    cluster_pb2.ROLE_FOLLOWER: "follower",
    cluster_pb2.ROLE_CANDIDATE: "candidate",
}


class Admin:
    """Administrative calls; all are tried again until they are answered or time is up."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create_topic(
        self,
        name: str,
        partitions: int,
        limits: topics_pb2.TopicLimits,
        if_not_exists: bool,
        timeout: float | None,
    ) -> TopicInfo:
        tries = Tries()
        request = topics_pb2.CreateTopicRequest(
            name=name, partitions=partitions, limits=limits, if_not_exists=if_not_exists
        )
        try:
            return _topic(await self._connection.call(CREATE_TOPIC, request, timeout, tries))
        except TopicExistsError:
            if not tries.uncertain:
                raise
            # An earlier try of ours may have made it; if so, it looks as we asked.
            found = await self.topic(name, timeout)
            if partitions and found.partitions != partitions:
                raise
            return found

    async def topic(self, name: str, timeout: float | None) -> TopicInfo:
        return _topic(await self._connection.call(GET_TOPIC, topics_pb2.GetTopicRequest(name=name), timeout))

    async def topics(self, timeout: float | None) -> list[TopicInfo]:
        answer = await self._connection.call(LIST_TOPICS, topics_pb2.ListTopicsRequest(), timeout)
        return [_topic(topic) for topic in answer.topics]

    async def update_topic(
        self, name: str, limits: topics_pb2.TopicLimits, timeout: float | None
    ) -> TopicInfo:
        request = topics_pb2.UpdateTopicRequest(name=name, limits=limits)
        return _topic(await self._connection.call(UPDATE_TOPIC, request, timeout))

    async def delete_topic(self, name: str, timeout: float | None) -> None:
        tries = Tries()
        request = topics_pb2.DeleteTopicRequest(name=name)
        try:
            await self._connection.call(DELETE_TOPIC, request, timeout, tries)
        except UnknownTopicError:
            if not tries.uncertain:
                raise  # else an earlier try has done it

    async def status(self, timeout: float | None) -> ClusterInfo:
        """What the broker that answers first knows."""
        return _cluster(await self._connection.call(GET_STATUS, cluster_pb2.GetStatusRequest(), timeout))

    async def digest(
        self, topic: str, min_applied_index: int, timeout: float | None
    ) -> list[PartitionDigest]:
        request = cluster_pb2.GetDigestRequest(topic=topic, min_applied_index=min_applied_index)
        answer = await self._connection.call(GET_DIGEST, request, timeout)
        return [
            PartitionDigest(part.topic, part.partition, part.start_offset, part.end_offset, part.digest)
            for part in answer.partitions
        ]

    async def statuses(self, timeout: float) -> dict[str, ClusterInfo | HoldfastError]:
        """Every known broker's own view, or why it gave none, by address."""
        endpoints = self._connection.endpoints
        answers = await asyncio.gather(*[_ask(endpoint, timeout) for endpoint in endpoints])
        return {endpoint.address: answer for endpoint, answer in zip(endpoints, answers, strict=True)}


async def _ask(endpoint: Endpoint, timeout: float) -> ClusterInfo | HoldfastError:
    try:
        return _cluster(await endpoint.unary(GET_STATUS, cluster_pb2.GetStatusRequest(), timeout))
    except grpc.aio.AioRpcError as failure:
        return from_rpc(failure, endpoint.address)


def _topic(topic: topics_pb2.Topic) -> TopicInfo:
    return TopicInfo(
        name=topic.name,
        partitions=topic.partitions,
        max_record_bytes=topic.limits.max_record_bytes,
        retention_ms=topic.limits.retention_ms,
        retention_bytes=topic.limits.retention_bytes,
        created_at=from_us(topic.created_at_us),
        partition_info=tuple(
            [
                PartitionInfo(part.partition, part.start_offset, part.end_offset, part.bytes)
                for part in topic.partition_info
            ]
        ),
        idempotency_ttl_ms=topic.limits.idempotency_ttl_ms,
    )


def _cluster(status: cluster_pb2.ClusterStatus) -> ClusterInfo:
    return ClusterInfo(
        cluster_id=status.cluster_id,
        node_id=status.node_id,
        version=status.version,
        role=_ROLES.get(status.role, "unknown"),
        leader_id=status.leader_id or None,
        leader_address=status.leader_address or None,
        term=status.term,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        first_log_index=status.first_log_index,
        last_log_index=status.last_log_index,
        members=tuple(
            [
                MemberInfo(
                    member.node_id,
                    member.client_address,
                    member.peer_address,
                    member.connected,
                    member.match_index,
                    member.lag_entries,
                )
                for member in status.members
            ]
        ),
        uptime_seconds=status.uptime_seconds,
        data_bytes=status.data_bytes,
        quota_bytes=status.quota_bytes,
        accepting_writes=status.accepting_writes,
    )
