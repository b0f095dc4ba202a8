"""How far groups are behind, as users see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from holdfast.client.connection import Connection, Method
from holdfast.client.times import from_us
from holdfast.v1 import groups_pb2

_GET_LAG: Method[groups_pb2.GetLagRequest, groups_pb2.GetLagResponse] = Method(
    "Groups", "GetLag", groups_pb2.GetLagResponse
)


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a group is behind in a partition, exactly, as of what the broker that answered had applied.

    Attributes:
        records: not settled; of a partition the group has not begun with, from where it will.
        seconds: since the oldest of them was appended; 0 without any.
        oldest_at: when that was; None without any.
        floor: the committed offset: everything below is settled.
        end: the offset the next record gets.
        retrying: records that wait for another attempt or are parked; ``parked`` of them.
    """

    group: str
    topic: str
    partition: int
    records: int
    seconds: float
    oldest_at: datetime | None
    floor: int
    end: int
    retrying: int
    parked: int


async def read_lags(
    connection: Connection, group: str, *, linearizable: bool, timeout: float | None
) -> AsyncIterator[PartitionLag]:
    """All lags, or those of one group, page by page; ``timeout`` in seconds is each page's.

    Raises:
        UnknownGroupError: there is none of this name.
    """
    request = groups_pb2.GetLagRequest(group=group, linearizable=linearizable)
    while True:
        answer = await connection.call(_GET_LAG, request, timeout)
        for lag in answer.lags:
            yield PartitionLag(
                lag.group,
                lag.topic,
                lag.partition,
                lag.records,
                lag.seconds,
                from_us(lag.oldest_append_us) if lag.records else None,
                lag.floor,
                lag.end,
                lag.retrying,
                lag.parked,
            )
        if not answer.next:
            return
        request.after = answer.next
