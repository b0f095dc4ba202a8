"""Operations of groups, and what they left, for tests."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from holdfast.cluster import group_definition
from holdfast.cluster.commands import encode_op
from holdfast.storage import acks, bits, flow_keys, flows, groups, retries
from holdfast.storage.flows import FlowRow
from holdfast.storage.port import Reader
from holdfast.storage.retries import RetryRow
from holdfast.v1 import bus_pb2, log_pb2

from .replica_kit import Replica

NACK = log_pb2.RETRY_CAUSE_NACK
EXPIRED = log_pb2.RETRY_CAUSE_EXPIRED
LOST = log_pb2.RETRY_CAUSE_LOST
PARK = log_pb2.RETRY_CAUSE_PARK
REJECT = log_pb2.RETRY_CAUSE_REJECT
LET_GO = log_pb2.RETRY_CAUSE_LET_GO

NONE = log_pb2.RECORD_STATE_NONE
WAITING = log_pb2.RECORD_STATE_WAITING
PARKED = log_pb2.RECORD_STATE_PARKED
PARKED_FOR_GOOD = log_pb2.RECORD_STATE_PARKED_FOR_GOOD
SUSPECT = log_pb2.RECORD_STATE_SUSPECT

LETTER = b"a letter"


def define(replica: Replica, group: str, *, dead: str = "", **retry: int) -> group_definition.Definition:
    """Write a group's row as a definition would."""
    message = bus_pb2.GroupDefinition(topics=["t"], retry=bus_pb2.RetryPolicy(**retry))
    if dead:
        message.dead_letter_topic = dead
    definition = group_definition.check(message)
    about = log_pb2.GroupRow(definition=group_definition.to_message(definition))
    held = groups.read(replica.w, group) or groups.GroupRow()
    row = groups.GroupRow(held.held, 1, about.SerializeToString(deterministic=True))
    groups.write(replica.w, group, row)
    return definition


def grow(topic_id: int, partition: int = 0, count: int = 1) -> bytes:
    """An append of so many records; apply does not look into them."""
    op = log_pb2.AppendOp(topic_id=topic_id)
    op.batches.add(partition=partition, count=count, length=1)
    return encode_op(log_pb2.Op(append=op), [b"x"])


def runs_of(offsets: Iterable[int], base: int = 0) -> list[int]:
    """Offsets as gaps and lengths."""
    runs: list[int] = []
    at = base
    for offset in sorted(set(offsets)):
        if runs and offset == at:
            runs[-1] += 1
        else:
            runs += [offset - at, 1]
        at = offset + 1
    return runs


def item(
    offset: int,
    cause: int = NACK,
    *,
    delay_ms: int | None = None,
    error: str = "",
    lane: int = 0,
    dead: bool = False,
) -> log_pb2.RetryItem:
    return log_pb2.RetryItem(
        offset=offset,
        cause=cause,  # type: ignore[arg-type]
        delay_ms=delay_ms,
        error=error,
        lane=lane,
        dead=dead,
    )


def flow(
    topic_id: int = 1,
    partition: int = 0,
    *,
    offsets: Iterable[int] = (),
    base: int = 0,
    runs: Sequence[int] | None = None,
    floor: int | None = None,
    fence: int = 0,
    retries: Sequence[log_pb2.RetryItem] = (),
) -> log_pb2.FlowSettle:
    return log_pb2.FlowSettle(
        topic_id=topic_id,
        partition=partition,
        fence=fence,
        floor=floor,
        base=base,
        runs=runs_of(offsets, base) if runs is None else runs,
        retries=retries,
    )


def letter(topic_id: int, partition: int = 0, count: int = 1) -> log_pb2.AppendOp:
    """Dead letters, of ``LETTER`` each operation."""
    op = log_pb2.AppendOp(topic_id=topic_id)
    op.batches.add(partition=partition, count=count, length=len(LETTER))
    return op


def settle(
    group: str,
    *parts: log_pb2.FlowSettle,
    dead: Sequence[log_pb2.AppendOp] = (),
    blob: bytes | None = None,
) -> bytes:
    op = log_pb2.SettleOp(group=group, flows=parts, dead=dead)
    batches = [LETTER] * sum(len(each.batches) for each in dead) if blob is None else [blob]
    return encode_op(log_pb2.Op(settle=op), batches)


def restore(group: str, *parts: log_pb2.FlowSettle, discard: bool = False) -> bytes:
    return encode_op(log_pb2.Op(restore=log_pb2.RestoreOp(group=group, flows=parts, settle=discard)))


def sweep(limit: int = 100) -> bytes:
    return encode_op(log_pb2.Op(sweep=log_pb2.SweepOp(limit=limit)))


def key_of(group: str, topic_id: int = 1, partition: int = 0) -> bytes:
    return flow_keys.flow_key(group, topic_id, partition)


def floor_of(r: Reader, group: str, topic_id: int = 1, partition: int = 0) -> int | None:
    return groups.committed(r, group, topic_id, partition)


def above(r: Reader, group: str, topic_id: int = 1, partition: int = 0) -> set[int]:
    """What is settled above the floor, by the bits; the flow's row counts them."""
    floor = floor_of(r, group, topic_id, partition) or 0
    lowest = floor // bits.CHUNK_BITS
    found = {
        offset
        for chunk, value in acks.scan(r, key_of(group, topic_id, partition), lowest)
        for first, end in bits.ranges_of(chunk, value)
        for offset in range(first, end)
    }
    assert all(offset > floor for offset in found), "a bit at or below the floor"
    assert row_of(r, group, topic_id, partition).settled_above == len(found)
    return found


def row_of(r: Reader, group: str, topic_id: int = 1, partition: int = 0) -> FlowRow:
    return flows.read(r, group, topic_id, partition)


def waiting(r: Reader, group: str, topic_id: int = 1, partition: int = 0) -> dict[int, RetryRow]:
    """The records that wait, without those below the floor; the flow's row counts all rows."""
    key = key_of(group, topic_id, partition)
    rows = dict(retries.scan(r, key))
    assert row_of(r, group, topic_id, partition).retrying == len(rows)
    floor = floor_of(r, group, topic_id, partition) or 0
    settled = above(r, group, topic_id, partition)
    return {offset: row for offset, row in rows.items() if offset >= floor and offset not in settled}


def states(result: log_pb2.OpResult, at: int = 0) -> list[tuple[int, int, int]]:
    """(offset, attempts, state) of each retry of a flow."""
    return [(each.offset, each.attempts, int(each.state)) for each in result.settle.flows[at].retries]


def floors(result: log_pb2.OpResult) -> list[int]:
    return [each.floor for each in result.settle.flows]


def identity(group: str, topic_id: int, partition: int, offset: int) -> bytes:
    """Of a record in a group, as the jitter of its retries is drawn from it."""
    name = group.encode()
    return struct.pack(">H", len(name)) + name + struct.pack(">IIQ", topic_id, partition, offset)
