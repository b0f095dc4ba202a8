"""The Cluster service: what this node knows of itself and its cluster."""

from __future__ import annotations

from typing import Protocol

import grpc

from holdfast.cluster.ports import Clock
from holdfast.cluster.results import EngineStatus, Role
from holdfast.cluster.state.digest import read_digests
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.clock import SystemClock
from holdfast.rpc.services.handlers import unary
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.rpc.topology import Topology
from holdfast.storage import journal
from holdfast.storage.port import Store
from holdfast.v1 import cluster_pb2

SERVICE = cluster_pb2.DESCRIPTOR.services_by_name["Cluster"].full_name

_ROLES = {
    Role.FOLLOWER: cluster_pb2.ROLE_FOLLOWER,
    Role.CANDIDATE: cluster_pb2.ROLE_CANDIDATE,
    Role.LEADER: cluster_pb2.ROLE_LEADER,
}


class StatusSource(Protocol):
    def status(self) -> EngineStatus: ...


class ClusterService:
    """All calls of ``holdfast.v1.Cluster``."""

    def __init__(
        self,
        store: Store,
        bridge: EngineBridge,
        engine: StatusSource,
        cache: TopicCache,
        topology: Topology,
        version: str,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._engine = engine
        self._cache = cache
        self._topology = topology
        self._version = version
        self._clock: Clock = clock or SystemClock()
        self._started = self._clock.monotonic()

    def handlers(self, default_timeout: float) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What a server registers."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetStatus": unary(cluster_pb2.GetStatusRequest, self.get_status, default_timeout),
                "GetDigest": unary(cluster_pb2.GetDigestRequest, self.get_digest, default_timeout),
            },
        )

    async def get_status(
        self, request: cluster_pb2.GetStatusRequest, timeout: float
    ) -> cluster_pb2.ClusterStatus:
        """This node's view; never waits for another node."""
        status = self._engine.status()
        usage = self._store.usage()
        topology = self._topology
        answer = cluster_pb2.ClusterStatus(
            cluster_id=topology.cluster_id,
            node_id=topology.node_id,
            version=self._version,
            role=_ROLES[status.role],
            leader_id=status.leader_id or "",
            leader_address=topology.client_address(status.leader_id) or "",
            term=status.term,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            first_log_index=status.first_log_index,
            last_log_index=status.last_log_index,
            uptime_seconds=self._clock.monotonic() - self._started,
            data_bytes=usage.used,
            quota_bytes=usage.quota,
            accepting_writes=status.accepting_writes,
            joining=status.joining,
        )
        peers = {peer.node_id: peer for peer in status.peers}
        leading = status.role is Role.LEADER
        for node_id in topology.node_ids:
            member = answer.members.add(
                node_id=node_id,
                client_address=topology.client_address(node_id) or "",
                peer_address=topology.peer_address(node_id) or "",
            )
            if node_id == topology.node_id:
                member.connected = True
                member.match_index = status.durable_index
            elif node_id in peers:
                member.connected = peers[node_id].connected
                member.match_index = peers[node_id].match_index
                if leading:
                    member.lag_entries = max(0, status.last_log_index - member.match_index)
        return answer

    async def get_digest(
        self, request: cluster_pb2.GetDigestRequest, timeout: float
    ) -> cluster_pb2.GetDigestResponse:
        """Digests of this replica's partitions, from one snapshot of its store.

        Raises:
            UnknownTopicError: no such topic.
            DeadlineExceededError: ``min_applied_index`` was not reached in time.
        """
        if request.min_applied_index:
            await self._bridge.wait_applied(request.min_applied_index, timeout)
        await self._bridge.settle(timeout)
        if request.topic:
            await self._cache.find(request.topic, timeout)
        with self._store.read() as reader:
            return cluster_pb2.GetDigestResponse(
                node_id=self._topology.node_id,
                applied_index=journal.read_meta(reader).applied_index,
                partitions=read_digests(reader, request.topic),
            )
