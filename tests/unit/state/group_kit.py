"""Operations that define groups and shape them, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.cluster.commands import encode_op
from holdfast.storage import journal
from holdfast.v1 import bus_pb2, log_pb2

from .replica_kit import Replica

#: Topic id, partition, and an offset or a member.
Start = tuple[int, int, int]
Owner = tuple[int, int, str]

KEY = bus_pb2.ORDERING_KEY
EXACTLY_ONCE = bus_pb2.SEMANTICS_EXACTLY_ONCE


def definition(*topics: str, attempts: int | None = None, **fields: Any) -> bus_pb2.GroupDefinition:
    """Of topic "t" when none is named."""
    found = bus_pb2.GroupDefinition(topics=topics or ["t"], **fields)
    if attempts is not None:
        found.retry.max_attempts = attempts
    return found


def put(
    group: str,
    wanted: bus_pb2.GroupDefinition | None = None,
    *,
    create_only: bool = False,
    implicit: bool = False,
) -> bytes:
    op = log_pb2.PutGroupOp(
        group=group, definition=wanted or definition(), create_only=create_only, implicit=implicit
    )
    return encode_op(log_pb2.Op(put_group=op))


def reshape(
    group: str,
    expected: int,
    *,
    join: Iterable[str | log_pb2.MemberRow] = (),
    leave: Sequence[str] = (),
    owners: Iterable[Owner] = (),
    start: Iterable[Start] = (),
    seen: Sequence[int] = (),
) -> bytes:
    op = log_pb2.ReshapeOp(group=group, expected=expected, leave=leave, topics_seen=seen)
    for member in join:
        op.join.append(
            log_pb2.MemberRow(id=member, name=f"name of {member}") if isinstance(member, str) else member
        )
    for topic_id, partition, owner in owners:
        op.owners.add(topic_id=topic_id, partition=partition, member=owner)
    for topic_id, partition, offset in start:
        op.open.add(topic_id=topic_id, partition=partition, offset=offset)
    return encode_op(log_pb2.Op(reshape=op))


def seek(group: str, *flows: Start) -> bytes:
    op = log_pb2.SeekGroupOp(group=group)
    for topic_id, partition, offset in flows:
        op.flows.add(topic_id=topic_id, partition=partition, offset=offset)
    return encode_op(log_pb2.Op(seek_group=op))


def drop(group: str) -> bytes:
    return encode_op(log_pb2.Op(delete_group=log_pb2.DeleteGroupOp(group=group)))


def index(replica: Replica) -> int:
    """The log index of the entry applied last."""
    return journal.read_meta(replica.w).last_index
