"""Transactions as operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from holdfast.cluster.commands import encode_op
from holdfast.records import encode_batch
from holdfast.v1 import log_pb2

KEEP_MS = 60_000

#: Topic id, partition.
Place = tuple[int, int]


def runs_of(offsets: Iterable[int], base: int) -> list[int]:
    """Gaps and lengths, one run per offset: what may be written shorter need not be."""
    runs: list[int] = []
    at = base
    for offset in sorted(offsets):
        runs += (offset - at, 1)
        at = offset + 1
    return runs


def transaction(
    number: int,
    appends: Sequence[tuple[int, Mapping[int, Sequence[bytes]]]] = (),
    consume: Sequence[tuple[str, Mapping[Place, Iterable[int]]]] = (),
    *,
    fences: Mapping[tuple[str, int, int], int] | None = None,
    keep_ms: int = KEEP_MS,
    marks: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """A framed operation.

    Args:
        number: its id.
        appends: per topic, the values of each partition.
        consume: per group, the offsets of each partition.
        fences: by group, topic and partition; 0 where none is given.
        marks: digest by value, of the records that have an idempotency key.
    """
    op = log_pb2.TransactOp(transaction_id=number.to_bytes(16, "big"), keep_ms=keep_ms)
    blobs = []
    for topic_id, batches in appends:
        append = op.appends.add(topic_id=topic_id)
        for partition, values in batches.items():
            blob = encode_batch(values)
            digests = [(marks or {}).get(value, bytes(16)) for value in values]
            append.batches.add(
                partition=partition,
                count=len(values),
                length=len(blob),
                marks=b"".join(digests) if any(map(any, digests)) else b"",
            )
            blobs.append(blob)
    for group, places in consume:
        settle = op.consume.add(group=group)
        for (topic_id, partition), offsets in places.items():
            chosen = sorted(offsets)
            base = chosen[0] if chosen else 0
            settle.flows.add(
                topic_id=topic_id,
                partition=partition,
                fence=(fences or {}).get((group, topic_id, partition), 0),
                base=base,
                runs=runs_of(chosen, base),
            )
    return encode_op(log_pb2.Op(transact=op), blobs)


def offsets_of(result: log_pb2.OpResult) -> dict[tuple[str, int], int]:
    """Base offset by topic name and partition."""
    return {
        (item.topic, ack.partition): ack.base_offset for item in result.transact.appends for ack in item.acks
    }
