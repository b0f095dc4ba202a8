"""RabbitMQ: the quorum queue, fsynced by a majority, and the stream, in the page caches of a majority."""

from __future__ import annotations

from benchmarks.peers.rabbitmq_quorum import QuorumClient, QuorumCluster
from benchmarks.peers.rabbitmq_stream import StreamClient, StreamCluster, SubEntryClient, SubEntryCluster

CLUSTERS = {cluster.name: cluster for cluster in (QuorumCluster, StreamCluster, SubEntryCluster)}
CLIENTS = {
    "rabbitmq-quorum": QuorumClient,
    "rabbitmq-stream": StreamClient,
    "rabbitmq-stream-sub": SubEntryClient,
}
