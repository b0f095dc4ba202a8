"""What every replica holds once the cluster has come to rest, read from each node's own store."""

from __future__ import annotations

import hashlib

import grpc

from holdfast.chaos.checker.history import History, Replica
from holdfast.chaos.drills.scene import Target
from holdfast.client.options import CHANNEL_OPTIONS
from holdfast.errors import DeadlineExceededError
from holdfast.records import decode_batch
from holdfast.v1 import bus_pb2, bus_pb2_grpc, cluster_pb2, cluster_pb2_grpc


async def read_replicas(target: Target, topic: str, history: History, timeout: float = 30.0) -> None:
    """Note a ``Replica`` of every partition and node.

    Each node is asked for its digests once it has applied all that is
    committed anywhere, and for its batches by a plain replay, which brokers
    serve from their own store.

    Raises:
        grpc.aio.AioRpcError: a node does not answer.
        DeadlineExceededError: a node knows no partition of the topic.
    """
    channels = {
        node: grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        for node, address in target.endpoints.items()
    }
    try:
        index = 0
        for channel in channels.values():
            status = await cluster_pb2_grpc.ClusterStub(channel).GetStatus(
                cluster_pb2.GetStatusRequest(), timeout=timeout, wait_for_ready=True
            )
            index = max(index, status.commit_index)
        for node, channel in channels.items():
            digests = await cluster_pb2_grpc.ClusterStub(channel).GetDigest(
                cluster_pb2.GetDigestRequest(topic=topic, min_applied_index=index), timeout=timeout
            )
            if not digests.partitions:
                raise DeadlineExceededError(f"{node} knows no partition of {topic}")
            for partition in digests.partitions:
                records, content = await _content(channel, topic, partition, timeout)
                history.add(
                    Replica(
                        node=node,
                        topic=topic,
                        partition=partition.partition,
                        start_offset=partition.start_offset,
                        end_offset=partition.end_offset,
                        digest=partition.digest.hex(),
                        records=records,
                        content=content,
                    )
                )
    finally:
        for channel in channels.values():
            await channel.close(None)


async def _content(
    channel: grpc.aio.Channel, topic: str, partition: cluster_pb2.PartitionDigest, timeout: float
) -> tuple[list[tuple[int, str]], str]:
    """All records of one partition as this node stores them, and a hash over the stored bytes."""
    records: list[tuple[int, str]] = []
    stored = hashlib.sha256()
    request = bus_pb2.ReplayRequest(
        topic=topic, partitions=[partition.partition], format=bus_pb2.FORMAT_BATCHES
    )
    request.start.earliest = True
    call = bus_pb2_grpc.EventBusStub(channel).Replay(request, timeout=timeout)
    async for response in call:
        for batch in response.batches:
            stored.update(b"%d %d %d " % (batch.base_offset, batch.append_time_us, len(batch.batch)))
            stored.update(batch.batch)
            values = decode_batch(batch.batch).values
            for offset in range(batch.first_offset, batch.last_offset + 1):
                records.append((offset, values[offset - batch.base_offset].decode()))
    return records, stored.hexdigest()
