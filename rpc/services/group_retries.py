"""The Groups service's calls about records that wait for another attempt or are parked."""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from holdfast.cluster.commands import encode_op
from holdfast.cluster.ports import Clock
from holdfast.cluster.state.group_view import unknown_group
from holdfast.cluster.state.names import check_name
from holdfast.cluster.state.retry_view import Place, Waiting, waiting
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.services.groups import MAX_PAGE, SERVICE, check_number, page_limit
from holdfast.rpc.services.handlers import unary
from holdfast.rpc.services.topic_cache import unknown_topic
from holdfast.rpc.status import invalid
from holdfast.storage import groups, retries, topics
from holdfast.storage.port import Reader, Store
from holdfast.v1 import groups_pb2, log_pb2


class GroupRetriesService:
    """``ListRetries`` and ``Restore`` of ``holdfast.v1.Groups``; ``timeout`` is in seconds everywhere."""

    def __init__(self, store: Store, bridge: EngineBridge, clock: Clock) -> None:
        self._store = store
        self._bridge = bridge
        self._clock = clock

    def handlers(self, default_timeout: float) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What a server registers."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "ListRetries": unary(groups_pb2.ListRetriesRequest, self.list_retries, default_timeout),
                "Restore": unary(groups_pb2.RestoreRequest, self.restore, default_timeout),
            },
        )

    async def list_retries(
        self, request: groups_pb2.ListRetriesRequest, timeout: float
    ) -> groups_pb2.ListRetriesResponse:
        """A page of records by their places, of everything acknowledged before the call.

        Raises:
            UnknownGroupError: there is none of this name.
            UnknownTopicError: the topic of ``after`` is gone; begin anew.
            NoLeaderError, DeadlineExceededError: it cannot be known now.
        """
        check_name(request.group, what="group", field="group")
        limit = page_limit(request.limit)
        await self._bridge.barrier(timeout)
        answer = groups_pb2.ListRetriesResponse()
        with self._store.read() as reader:
            if not groups.exists(reader, request.group):
                raise unknown_group(request.group)
            after = _place(reader, request.after) if request.HasField("after") else None
            page = waiting(reader, request.group, after=after, limit=limit, parked_only=request.parked_only)
            for each in page.found:
                _add_retry(answer, each)
            if page.after is not None:
                topic = topics.read(reader, page.after[0])
                answer.next.topic = "" if topic is None else topic.name
                answer.next.partition, answer.next.offset = page.after[1:]
        return answer

    async def restore(self, request: groups_pb2.RestoreRequest, timeout: float) -> groups_pb2.RestoreResponse:
        """Make parked records due, or settle them; those that are not parked stay as they are.

        Raises:
            UnknownGroupError, UnknownTopicError, UnknownPartitionError: nothing is there of that name.
            InvalidArgumentError: too many places, or one that is none.
        """
        check_name(request.group, what="group", field="group")
        if len(request.places) > MAX_PAGE:
            raise invalid("places", f"{len(request.places)} places; up to {MAX_PAGE} may be named")
        end = self._clock.monotonic() + timeout
        await self._bridge.barrier(timeout)
        with self._store.read() as reader:
            if not groups.exists(reader, request.group):
                raise unknown_group(request.group)
            named = [_place(reader, each) for each in request.places]
        if named:
            return groups_pb2.RestoreResponse(records=await self._restore(request, named, end))
        restored = 0
        after: Place | None = None
        while True:
            with self._store.read() as reader:
                page = waiting(reader, request.group, after=after, limit=MAX_PAGE, parked_only=True)
            if page.found:
                restored += await self._restore(request, [each.place for each in page.found], end)
            if page.after is None:
                return groups_pb2.RestoreResponse(records=restored)
            after = page.after

    async def _restore(self, request: groups_pb2.RestoreRequest, places: Iterable[Place], end: float) -> int:
        """How many of these records were parked and are not any more."""
        by_flow: dict[tuple[int, int], list[int]] = {}
        for topic_id, partition, offset in sorted(set(places)):
            by_flow.setdefault((topic_id, partition), []).append(offset)
        op = log_pb2.Op(restore=log_pb2.RestoreOp(group=request.group, settle=request.discard))
        for (topic_id, partition), offsets in by_flow.items():
            op.restore.flows.add(topic_id=topic_id, partition=partition, base=offsets[0], runs=_runs(offsets))
        restored = 0
        while True:
            left = max(end - self._clock.monotonic(), 0.0)
            result, _ = await self._bridge.submit(encode_op(op), left)
            restored += sum(len(flow.retries) for flow in result.settle.flows)
            if not result.more:
                return restored


def _place(reader: Reader, place: groups_pb2.RetryPlace) -> Place:
    """A place, with its topic's id."""
    check_name(place.topic, what="topic", field="topic")
    topic = topics.find(reader, place.topic)
    if topic is None:
        raise unknown_topic(place.topic)
    check_number(topic, place.partition)
    if place.offset < 0:
        raise invalid("offset", f"{place.offset} is no offset")
    return topic.id, place.partition, place.offset


def _add_retry(answer: groups_pb2.ListRetriesResponse, each: Waiting) -> None:
    row = each.row
    retry = answer.retries.add(
        attempts=row.attempts, losses=row.losses, parked=each.parked, first_failed_us=row.first_failed_us
    )
    retry.place.topic = each.topic
    retry.place.partition, retry.place.offset = each.place[1:]
    if row.due_us != retries.NEVER_US:
        retry.due_us = row.due_us
    for time_us, error in row.errors:
        retry.errors.add(time_us=time_us, error=error)


def _runs(offsets: list[int]) -> list[int]:
    """Ascending offsets as gaps and lengths, from the first one on."""
    runs: list[int] = []
    end = offsets[0]
    for offset in offsets:
        if runs and offset == end:
            runs[-1] += 1
        else:
            runs += (offset - end, 1)
        end = offset + 1
    return runs
