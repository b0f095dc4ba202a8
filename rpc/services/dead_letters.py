"""Dead letters: listed, redriven, discarded. Part of the Groups service; any node serves it.

What is listed is read from this node's own rows. Redriving and discarding are
transactions, one after the other while the call lasts: what was done stays done
when it ends early, and there is nothing to clean up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Literal

import grpc

from holdfast.cluster.delivery.redrive import Found, GroupFacts, Redrive, settle_step
from holdfast.cluster.ports import EventSink
from holdfast.cluster.state.names import check_name
from holdfast.errors import HoldfastError, OverloadedError, RedriveLoopError
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.egress import Egress
from holdfast.rpc.events import DeadLettersTaken
from holdfast.rpc.services.dead_letter_steps import CALL_SECONDS, Pace, Scan, Steps, Time, cut
from holdfast.rpc.services.handlers import Context, server_stream
from holdfast.rpc.services.topic_cache import TopicCache, unknown_topic
from holdfast.rpc.status import invalid, to_wire
from holdfast.storage import topics
from holdfast.storage.port import Store
from holdfast.storage.topics import TopicRow
from holdfast.v1 import groups_pb2, log_pb2, records_pb2

SERVICE = groups_pb2.DESCRIPTOR.services_by_name["Groups"].full_name

#: Records a second that are redriven when the caller does not say, and at most.
DEFAULT_RATE = 1_000
MAX_RATE = 100_000

#: Records of one step, and bytes of a step and of a page of the list; one record may be larger.
_REDRIVE_STEP = 100
_DISCARD_STEP = 1_000
_STEP_BYTES = 1 << 20
_PAGE_RECORDS = 500
_PAGE_BYTES = 256 << 10
#: What a dry run shows.
_SAMPLE = 10
#: Calls under way on one node.
_MAX_CALLS = 64


class DeadLetterService:
    """``ListDeadLetters``, ``RedriveDeadLetters`` and ``DiscardDeadLetters``.

    Args:
        store: read in short snapshots.
        bridge: the engine.
        cache: topics.
        egress: bounds what is on its way to readers.
        emit: where events go; None: nowhere.
        time: passes; None: as it does.
    """

    def __init__(
        self,
        store: Store,
        bridge: EngineBridge,
        cache: TopicCache,
        egress: Egress,
        emit: EventSink | None = None,
        time: Time | None = None,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._topics = cache
        self._egress = egress
        self._emit = emit
        self._time = time or Time()
        self._calls = 0

    def handlers(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What a server registers; it stands beside the service's other calls."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "ListDeadLetters": server_stream(groups_pb2.ListDeadLettersRequest, self.list_letters),
                "RedriveDeadLetters": server_stream(groups_pb2.RedriveRequest, self.redrive),
                "DiscardDeadLetters": server_stream(groups_pb2.DiscardRequest, self.discard),
            },
        )

    async def list_letters(
        self, request: groups_pb2.ListDeadLettersRequest, context: Context
    ) -> AsyncIterator[groups_pb2.DeadLetterPage]:
        """By partition and offset, those of the time of the call.

        Raises:
            UnknownTopicError, UnknownPartitionError: nothing to read from.
            InvalidArgumentError: a filter that makes no sense.
            OverloadedError: too many such calls on this node.
        """
        with self._call():
            _, scan = await self._begin(request.topic, request.filter)
            stream = self._egress.stream(context.peer())
            left = request.limit or (1 << 64)
            async with aclosing(scan.pages(min(_PAGE_RECORDS, left), _PAGE_BYTES)) as pages:
                async for page in pages:
                    found = page[:left]
                    left -= len(found)
                    letters = [to_message(request.topic, each, brief=request.brief) for each in found]
                    message = groups_pb2.DeadLetterPage(letters=letters)
                    await stream.turn()
                    with stream.sending(message.ByteSize()):
                        yield message
                    if not left:
                        return

    async def redrive(
        self, request: groups_pb2.RedriveRequest, context: Context
    ) -> AsyncIterator[groups_pb2.RedriveProgress]:
        """Progress after each step; the last message says ``done``.

        Raises:
            RedriveLoopError: they would go to the topic they are in.
            UnknownTopicError: no such topic of dead letters, or to redrive to.
            InvalidArgumentError: a filter or a rate that makes no sense.
            OverloadedError: too many such calls on this node.
        """
        rate = request.per_second or DEFAULT_RATE
        if rate > MAX_RATE:
            raise invalid("per_second", f"{rate} records a second; at most {MAX_RATE}")
        with self._call():
            topic, scan = await self._begin(request.topic, request.filter)
            await self._check_target(request, topic)
            plan = Redrive(topic, request.to, request.force)
            progress = groups_pb2.RedriveProgress()
            left = request.limit or (1 << 64)
            # Slow ones go record by record rather than a hundred every minute.
            size = max(1, min(_REDRIVE_STEP, rate // 10))
            pace = Pace(rate)
            async with aclosing(scan.pages(_REDRIVE_STEP, _STEP_BYTES)) as pages:
                async for page in pages:
                    chosen, facts = self._choose(plan, page, left, progress)
                    if request.dry_run:
                        left -= len(chosen)
                        _show(progress, topic.name, chosen)
                    steps = Steps(
                        self._store, self._bridge, topic, _Builder(self._store, plan, facts), self._time
                    )
                    for step in () if request.dry_run else cut(chosen, size, _STEP_BYTES):
                        await self._time.sleep(pace.wait(len(step), self._time.now()))
                        taken = await steps.take(step)
                        left -= taken.records
                        progress.redriven += taken.records
                        progress.refused += taken.refused
                        if taken.error is not None:
                            progress.last_error.CopyFrom(to_wire(taken.error))
                        self._tell(topic.name, "redriven", taken.records)
                        yield progress
                    if left <= 0:
                        break
            progress.done = True
            yield progress

    async def discard(
        self, request: groups_pb2.DiscardRequest, context: Context
    ) -> AsyncIterator[groups_pb2.DiscardProgress]:
        """Progress after each step; the last message says ``done``.

        Raises:
            UnknownTopicError, InvalidArgumentError, OverloadedError: as ``list_letters``.
        """
        with self._call():
            topic, scan = await self._begin(request.topic, request.filter)
            steps = Steps(
                self._store, self._bridge, topic, lambda step: (settle_step(topic, step), []), self._time
            )
            progress = groups_pb2.DiscardProgress()
            left = request.limit or (1 << 64)
            async with aclosing(scan.pages(_DISCARD_STEP, _STEP_BYTES)) as pages:
                async for page in pages:
                    chosen = page[:left]
                    progress.matched += len(chosen)
                    if request.dry_run:
                        left -= len(chosen)
                        _show(progress, topic.name, chosen)
                    else:
                        taken = await steps.take(chosen)
                        if taken.error is not None:
                            raise taken.error
                        left -= taken.records
                        progress.discarded += taken.records
                        self._tell(topic.name, "discarded", taken.records)
                        yield progress
                    if left <= 0:
                        break
            progress.done = True
            yield progress

    # -- parts ------------------------------------------------------------------

    @contextmanager
    def _call(self) -> Iterator[None]:
        if self._calls >= _MAX_CALLS:
            raise OverloadedError(f"{self._calls} calls for dead letters on this broker; try again")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def _begin(self, name: str, wanted: groups_pb2.DeadLetterFilter) -> tuple[TopicRow, Scan]:
        check_name(name, what="topic", field="topic")
        # Everything acknowledged so far is to be listed, whichever node is asked.
        await self._bridge.barrier(CALL_SECONDS)
        topic = await self._topics.find(name, CALL_SECONDS)
        with self._store.read() as reader:
            return topic, Scan(self._store, self._bridge, reader, topic, wanted)

    async def _check_target(self, request: groups_pb2.RedriveRequest, topic: TopicRow) -> None:
        if not request.to:
            return
        if request.to == topic.name:
            raise RedriveLoopError(
                f"{request.to!r} is the topic the dead letters are in; redrive to another one",
                metadata={"field": "to", "topic": request.to},
            )
        if self._topics.cached(request.to) is None:
            try:
                await self._topics.find(request.to, CALL_SECONDS)
            except HoldfastError as error:
                error.metadata["field"] = "to"
                raise

    def _choose(
        self, plan: Redrive, page: Sequence[Found], left: int, progress: groups_pb2.RedriveProgress
    ) -> tuple[list[Found], Mapping[str, GroupFacts]]:
        """Those of a page that may go, ``left`` at most; the others are counted as refused."""
        chosen: list[Found] = []
        facts: dict[str, GroupFacts] = {}
        targets: dict[str, TopicRow | None] = {}
        with self._store.read() as reader:
            for found in page:
                if len(chosen) >= left:
                    break
                group, name = found.letter.death.group, plan.target(found.letter)
                if group not in facts:
                    facts[group] = GroupFacts.read(reader, group)
                if name not in targets:
                    targets[name] = topics.find(reader, name) if name else None
                progress.matched += 1
                error = plan.refusal(found, targets[name], facts[group])
                if error is None:
                    chosen.append(found)
                else:
                    progress.refused += 1
                    progress.last_error.CopyFrom(to_wire(error))
        return chosen, facts

    def _tell(self, topic: str, how: Literal["redriven", "discarded"], records: int) -> None:
        if self._emit is not None and records:
            self._emit(DeadLettersTaken(topic, how, records))


class _Builder:
    """Makes the operation of a redrive step, for the targets as they are by then."""

    def __init__(self, store: Store, plan: Redrive, facts: Mapping[str, GroupFacts]) -> None:
        self._store = store
        self._plan = plan
        self._facts = facts

    def __call__(self, step: Sequence[Found]) -> tuple[log_pb2.Op, list[bytes]]:
        """
        Raises:
            UnknownTopicError: a target was deleted meanwhile.
        """
        targets: dict[str, TopicRow] = {}
        with self._store.read() as reader:
            for found in step:
                name = self._plan.target(found.letter)
                if name not in targets:
                    row = topics.find(reader, name)
                    if row is None:
                        raise unknown_topic(name)
                    targets[name] = row
        return self._plan.step(step, targets, self._facts)


def to_message(topic: str, found: Found, *, brief: bool = False) -> groups_pb2.DeadLetter:
    """A dead letter as callers get it."""
    letter = found.letter
    death, record = letter.death, letter.record
    return groups_pb2.DeadLetter(
        topic=topic,
        partition=found.partition,
        offset=found.offset,
        group=death.group,
        origin_topic=death.topic,
        origin_partition=death.partition,
        origin_offset=death.offset,
        origin_append_us=death.append_time_us,
        attempts=death.attempts,
        errors=[groups_pb2.AttemptError(time_us=at, error=text) for at, text in death.errors],
        first_failed_us=death.first_failed_us,
        dead_us=found.dead_us,
        redrives=letter.redrives,
        record=records_pb2.Record(
            key=b"" if brief else record.key,
            value=b"" if brief else record.value,
            timestamp_us=record.timestamp_us,
            headers=[records_pb2.Header(name=name, value=value) for name, value in record.headers],
        ),
    )


def _show(
    progress: groups_pb2.RedriveProgress | groups_pb2.DiscardProgress, topic: str, chosen: Sequence[Found]
) -> None:
    """Some of what a dry run has found."""
    room = _SAMPLE - len(progress.sample)
    progress.sample.extend([to_message(topic, found, brief=True) for found in chosen[:room]])
