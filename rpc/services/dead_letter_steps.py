"""Dead letters page by page, and the steps that take them off the list: what the calls share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from holdfast.cluster.commands import encode_op
from holdfast.cluster.delivery.reading import PartitionRef
from holdfast.cluster.delivery.redrive import Filter, Found, Page, read_page, still_listed
from holdfast.errors import (
    AlreadySettledError,
    DeadlineExceededError,
    HoldfastError,
    LimitExceededError,
    OutcomeUnknownError,
    OverloadedError,
    StorageFullError,
    UnavailableError,
    UnknownPartitionError,
    UnknownTopicError,
)
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.status import invalid
from holdfast.storage import partitions
from holdfast.storage.port import Reader, Store
from holdfast.storage.topics import TopicRow
from holdfast.v1 import groups_pb2, log_pb2

CALL_SECONDS = 5.0
#: One step is tried for so long; its answer is known for longer (redrive.KEEP_MS).
_STEP_SECONDS = 30.0
#: Pauses between two tries: the first, and the longest of those that double from it.
_PAUSES = (0.02, 1.0)
_MAX_OFFSETS = 10_000

#: An operation that takes these off the list, and its batches.
Build = Callable[[Sequence[Found]], tuple[log_pb2.Op, list[bytes]]]

_TRANSIENT = (
    UnavailableError,
    OverloadedError,
    StorageFullError,
    OutcomeUnknownError,
    DeadlineExceededError,
)


class Time:
    """The event loop's, in seconds; a test's own passes faster."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Scan:
    """The dead letters of a topic that a filter means, up to where its log ended when the scan was made.

    Args:
        reader: to find that end.
        topic: of dead letters.

    Raises:
        InvalidArgumentError: a filter that makes no sense.
        UnknownTopicError, UnknownPartitionError: there is nothing to read.
    """

    def __init__(
        self,
        store: Store,
        bridge: EngineBridge,
        reader: Reader,
        topic: TopicRow,
        wanted: groups_pb2.DeadLetterFilter,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._filter = Filter.of(wanted)
        _check_filter(self._filter, topic)
        self._spans: list[tuple[PartitionRef, int, int]] = []
        only = self._filter.partition
        for number in range(topic.partitions) if only is None else (only,):
            state = partitions.read_state(reader, topic.id, number)
            if state is None:
                raise _gone(topic.name)
            first, end = 0, state.next_offset
            if self._filter.offsets:
                first, end = min(self._filter.offsets), min(end, max(self._filter.offsets) + 1)
            self._spans.append((PartitionRef(topic.name, topic.id, number), first, end))

    async def pages(self, max_records: int, max_bytes: int) -> AsyncGenerator[list[Found], None]:
        """By partition and offset, in bounded pages.

        Raises:
            UnknownTopicError: the topic was deleted meanwhile.
            DamagedRowError: a batch cannot be read here, nor fetched from elsewhere.
        """
        for ref, first, end in self._spans:
            at = first
            while at < end:
                page = await self._bridge.read_repaired(
                    lambda ref=ref, at=at, end=end: self._read(ref, at, end, max_records, max_bytes),  # type: ignore[misc]
                    CALL_SECONDS,
                )
                found = [each for each in page.found if self._filter.fits(each)]
                if found:
                    yield found
                if page.next_offset <= at:
                    break
                at = page.next_offset
                await asyncio.sleep(0)  # a long list is read in many turns of the loop

    def _read(self, ref: PartitionRef, at: int, end: int, max_records: int, max_bytes: int) -> Page:
        with self._store.read() as reader:
            page = read_page(reader, ref, at, end, max_records, max_bytes)
        if page is None:
            raise _gone(ref.topic)
        return page


class Pace:
    """So many records a second, in steps; the first one goes at once."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._free_at = 0.0

    def wait(self, records: int, now: float) -> float:
        """Seconds until a step of so many may go; it is counted."""
        begins = max(self._free_at, now)
        self._free_at = begins + records / self._per_second
        return begins - now


class Taken:
    """What became of a step.

    Attributes:
        records: taken off the list by it.
        refused: left there, with the last reason.
    """

    __slots__ = ("error", "records", "refused")

    def __init__(self) -> None:
        self.records = 0
        self.refused = 0
        self.error: HoldfastError | None = None


class Steps:
    """Proposes the steps of one call.

    Args:
        topic: of dead letters.
        build: makes a step's operation.
        time: passes between tries.
    """

    def __init__(self, store: Store, bridge: EngineBridge, topic: TopicRow, build: Build, time: Time) -> None:
        self._store = store
        self._bridge = bridge
        self._topic = topic
        self._build = build
        self._time = time

    async def take(self, chosen: Sequence[Found]) -> Taken:
        """Take these off the list, but for those that somebody else has taken off meanwhile.

        A step that is refused is halved until what is at fault stands alone: that stays listed.

        Raises:
            LimitExceededError: too much is settled behind what is listed first.
            HoldfastError: the cluster did not take a step for half a minute.
        """
        taken = Taken()
        waiting = [list(chosen)]
        while waiting:
            step = waiting.pop()
            if not step:
                continue
            try:
                taken.records += await self._commit(step)
            except AlreadySettledError:
                await self._bridge.barrier(CALL_SECONDS)
                with self._store.read() as reader:
                    waiting.append(still_listed(reader, self._topic, step))
            except (*_TRANSIENT, LimitExceededError):
                raise
            except HoldfastError as error:
                if len(step) > 1:
                    half = len(step) // 2
                    waiting += (step[half:], step[:half])
                else:
                    taken.refused += 1
                    taken.error = error
        return taken

    async def _commit(self, step: Sequence[Found]) -> int:
        """How many records the step took off the list: all, or none when another call's step did."""
        op = encode_op(*self._build(step))
        deadline = self._time.now() + _STEP_SECONDS
        pause, longest = _PAUSES
        uncertain = False
        while True:
            try:
                result, _ = await self._bridge.submit(op, CALL_SECONDS)
            except _TRANSIENT as error:
                uncertain = uncertain or isinstance(error, OutcomeUnknownError | DeadlineExceededError)
                if self._time.now() + pause >= deadline:
                    raise
            else:
                return len(step) if uncertain or not result.transact.repeated_call else 0
            await self._time.sleep(pause)
            pause = min(pause * 2, longest)


def cut(found: Sequence[Found], max_records: int, max_bytes: int) -> list[list[Found]]:
    """Pieces of at most so many records and bytes; a larger record stands alone."""
    pieces: list[list[Found]] = []
    size = 0
    for each in found:
        added = each.letter.record.size
        if not pieces or len(pieces[-1]) >= max_records or size + added > max_bytes:
            pieces.append([])
            size = 0
        pieces[-1].append(each)
        size += added
    return pieces


def _check_filter(wanted: Filter, topic: TopicRow) -> None:
    if wanted.offsets and wanted.partition is None:
        raise invalid("filter.partition", "offsets are those of a partition: name it")
    if len(wanted.offsets) > _MAX_OFFSETS:
        raise invalid("filter.offsets", f"{len(wanted.offsets)} offsets; at most {_MAX_OFFSETS} at a time")
    if wanted.from_us and wanted.to_us and wanted.from_us >= wanted.to_us:
        raise invalid("filter.to_us", "the time the filter ends at is not after the one it begins at")
    if wanted.partition is not None and wanted.partition >= topic.partitions:
        raise UnknownPartitionError(
            f"topic {topic.name!r} has partitions 0 to {topic.partitions - 1}, not {wanted.partition}",
            metadata={
                "field": "filter.partition",
                "topic": topic.name,
                "partitions": str(topic.partitions),
            },
        )


def _gone(topic: str) -> UnknownTopicError:
    return UnknownTopicError(f"topic {topic!r} was deleted", metadata={"topic": topic})
