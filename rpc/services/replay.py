"""Replay: reading partitions of one topic from this replica."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from holdfast.cluster.delivery.events import BatchDamaged, RecordsDelivered
from holdfast.cluster.delivery.positions import out_of_range, resolve
from holdfast.cluster.delivery.reading import PartitionRef, TimeBasis, TimeWindow, read_step
from holdfast.cluster.delivery.settings import DeliverySettings
from holdfast.cluster.ports import EventSink
from holdfast.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NoLeaderError,
    OutcomeUnknownError,
    OverloadedError,
    StorageError,
    UnknownPartitionError,
    UnknownTopicError,
)
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.egress import Egress, EgressStream
from holdfast.rpc.services.decoding import BatchDecoder, add_records
from holdfast.rpc.services.delivery_wire import Parts, batches_field, replay_response
from holdfast.rpc.services.handlers import Context
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.rpc.status import invalid
from holdfast.storage import partitions, topics
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Reader, Store
from holdfast.storage.topics import TopicRow
from holdfast.v1 import bus_pb2

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Cursor:
    """Where one partition stands."""

    ref: PartitionRef
    offset: int
    #: Exclusive; None: no end (follow).
    stop: int | None
    #: End of the log at the time of the call.
    call_end: int
    log_end: int
    #: There may be something to read now.
    pending: bool = True
    #: The end was reached: nothing will follow, even when following.
    done: bool = False

    @property
    def key(self) -> tuple[int, int]:
        return (self.ref.topic_id, self.ref.partition)


class ReplayService:
    """``EventBus.Replay`` on any replica.

    Args:
        store: read in short snapshots, on the event loop: a message's batches
            are a copy out of the page cache, cheaper than a change of thread.
        bridge: barriers and wake-ups.
        cache: topics, looked up once per call.
        settings: the bounds.
        emit: where events go.
        egress: bounds what is on its way; shared by all streams of a node.
    """

    def __init__(
        self,
        store: Store,
        bridge: EngineBridge,
        cache: TopicCache,
        settings: DeliverySettings | None = None,
        emit: EventSink | None = None,
        egress: Egress | None = None,
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._topics = cache
        self._settings = own = settings or DeliverySettings()
        self._egress = egress or Egress(
            own.max_outgoing_bytes, own.max_outgoing_bytes_per_peer, own.stalled_after
        )
        self._emit = emit
        self._active = 0
        self._current = False  # a barrier has been passed since the start

    @property
    def active(self) -> int:
        """Calls being served."""
        return self._active

    async def replay(self, request: bus_pb2.ReplayRequest, context: Context) -> AsyncIterator[bytes]:
        """Serialised ReplayResponses.

        The first one comes at once and says where each partition starts, even
        when there is nothing to read yet; the last one of a replay that ends
        has ``caught_up`` set.

        Raises:
            InvalidArgumentError: positions or limits that make no sense.
            UnknownTopicError, UnknownPartitionError: nothing to read from.
            OffsetOutOfRangeError: an offset is not there; the valid range is
                named. Also when retention overtakes the reader.
            DamagedRowError: a damaged batch that could not be repaired; it is not served.
            OverloadedError: too many replays on this node.
        """
        if self._active >= self._settings.max_replays:
            raise OverloadedError(f"{self._active} replays are running on this broker; try again")
        self._active += 1
        try:
            left = context.time_remaining()
            timeout = self._settings.call_timeout
            if left is not None:
                timeout = min(left, timeout)
            if request.linearizable:
                await self._bridge.barrier(timeout)
                self._current = True
            else:
                await self._settle(timeout)
            topic = await self._topics.find(request.topic, timeout)
            reading = _Reading(request, topic, self._settings)
            with self._bridge.watch(reading.keys if request.follow else ()) as watch:
                # After the watch began, so that nothing falls between the two.
                await self._bridge.read_repaired(lambda: self._start(reading), self._settings.repair_wait)
                egress = self._egress.stream(context.peer())
                while True:
                    await egress.turn()
                    message = await self._bridge.read_repaired(
                        lambda: self._next_message(reading, egress), self._settings.repair_wait
                    )
                    if message is not None:
                        with egress.sending(len(message)):
                            yield message
                    elif reading.ended:
                        return
                    else:
                        touched = await watch.wait(self._settings.idle_check)
                        reading.touch(touched or reading.keys)
        finally:
            self._active -= 1

    async def _settle(self, timeout: float) -> None:
        """What this node has acknowledged must be there, also what it did before its last restart.

        After a restart the end of the log is durable here and not yet applied:
        that it is committed is known when a leader says so. Without one, reads
        go on with what is there.
        """
        if not self._current:
            try:
                await self._bridge.barrier(min(timeout, self._settings.restart_wait))
                self._current = True
            except (NoLeaderError, DeadlineExceededError, OutcomeUnknownError):
                logger.debug("replay without a leader, as far as this node knows the log")
        await self._bridge.settle(timeout)

    def _start(self, reading: _Reading) -> None:
        with self._store.read() as reader:
            reading.start(reader)

    def _next_message(self, reading: _Reading, egress: EgressStream) -> bytes | None:
        try:
            with self._store.read() as reader:
                message = reading.read(reader, egress)
        except StorageError as error:
            if self._emit is not None and "offset" in error.metadata:
                facts = error.metadata
                self._emit(BatchDamaged(reading.topic.name, int(facts["partition"]), int(facts["offset"])))
            raise
        if message is not None and self._emit is not None:
            self._emit(RecordsDelivered("", reading.topic.name, reading.records_read, len(message)))
        return message


class _Reading:
    """One replay's cursors; reads a message's worth per call, awaits nothing."""

    def __init__(self, request: bus_pb2.ReplayRequest, topic: TopicRow, settings: DeliverySettings) -> None:
        self.topic = topic
        self.records_read = 0
        self._request = request
        self._settings = settings
        self._follow = request.follow
        self._basis: TimeBasis = _basis(request)
        if request.format not in (bus_pb2.FORMAT_RECORDS, bus_pb2.FORMAT_BATCHES):
            raise invalid("format", f"unknown format {request.format}")
        self._decoder = BatchDecoder() if request.format == bus_pb2.FORMAT_RECORDS else None
        self._max_bytes = _message_bytes(
            request.max_message_bytes, settings, decoded=self._decoder is not None
        )
        self._refs = [PartitionRef(topic.name, topic.id, number) for number in _partitions(request, topic)]
        self._cursors: list[_Cursor] = []
        self._by_key: dict[tuple[int, int], _Cursor] = {}
        self._turn = 0
        self._announced = False
        self._caught_up = False
        self._window = self._time_window()

    @property
    def keys(self) -> list[tuple[int, int]]:
        return [(ref.topic_id, ref.partition) for ref in self._refs]

    @property
    def ended(self) -> bool:
        """Everything asked for has been sent; asked when there is nothing to send now."""
        return not self._follow or all(cursor.done for cursor in self._cursors)

    def start(self, reader: Reader) -> None:
        """Find where each partition starts and ends."""
        self._cursors.clear()  # of a start that met a damaged row
        for ref in self._refs:
            state = partitions.read_state(reader, ref.topic_id, ref.partition)
            if state is None:
                raise _gone(ref)
            self._cursors.append(self._cursor(reader, ref, state))
        self._by_key = {cursor.key: cursor for cursor in self._cursors}

    def touch(self, keys: Iterable[tuple[int, int]]) -> None:
        """These partitions may have changed."""
        for key in keys:
            cursor = self._by_key[key]
            cursor.pending = not cursor.done

    def read(self, reader: Reader, egress: EgressStream) -> bytes | None:
        """The next message; None when there is nothing to say until a partition changes."""
        # A deleted topic's partitions go step by step, its definition at once.
        if topics.read(reader, self.topic.id) is None:
            raise _gone(self._refs[0])
        batches: Parts = []
        response = bus_pb2.ReplayResponse()
        room = egress.allowance(self._max_bytes)
        rows = self._settings.max_rows_per_read
        moved = not self._announced
        self.records_read = 0
        count = len(self._cursors)
        for step_number in range(count):
            at = (self._turn + step_number) % count
            cursor = self._cursors[at]
            if not cursor.pending:
                continue
            if room <= 0 or rows <= 0:
                self._turn = at
                break
            before = cursor.offset
            try:
                used, looked_at = self._read_partition(reader, cursor, room, rows, batches, response)
            except DamagedRowError:
                if not moved:
                    raise
                # What was read of other partitions goes first; this one is next.
                self._turn = at
                break
            room -= used
            rows -= looked_at
            moved = moved or cursor.offset != before
        else:
            self._turn += 1
        caught_up = not self._caught_up and self._is_caught_up()
        if not moved and not caught_up:
            return None
        self._announced = True
        self._caught_up = self._caught_up or caught_up
        response.caught_up = self._caught_up
        for cursor in self._cursors:
            response.progress.add(
                partition=cursor.ref.partition, next_offset=cursor.offset, log_end_offset=cursor.log_end
            )
        return replay_response(batches, response)

    def _read_partition(
        self,
        reader: Reader,
        cursor: _Cursor,
        room: int,
        rows: int,
        batches: Parts,
        response: bus_pb2.ReplayResponse,
    ) -> tuple[int, int]:
        """Read one partition on, into the message; the bytes and index rows it took."""
        step = read_step(
            reader,
            cursor.ref,
            cursor.offset,
            stop=cursor.stop,
            max_bytes=room,
            max_records=1 << 62,
            max_rows=rows,
            window=self._window,
        )
        if step is None:
            raise _gone(cursor.ref)
        if step.start_offset > cursor.offset and not self._finished(cursor):
            raise out_of_range(cursor.ref, cursor.offset, step.start_offset, step.end_offset)
        cursor.log_end = step.end_offset
        used = step.bytes
        if self._decoder is None:
            parts, _ = batches_field(cursor.ref.topic, step.slices)
            batches += parts
            cursor.offset = step.next_offset
            self.records_read += step.records
        else:
            used = 0
            add = response.records.add
            cursor.offset = step.next_offset
            for item in step.slices:
                batch = self._decoder.decode(item)
                added = add_records(add, cursor.ref.topic, item, batch, self._window, room - used)
                used += added.bytes
                self.records_read += added.records
                if used >= room:
                    # The rest of the step is read again for the next message.
                    cursor.offset = added.next_offset
                    break
        cursor.done = self._finished(cursor) or (step.finished and cursor.offset == step.next_offset)
        cursor.pending = not cursor.done and cursor.offset < step.end_offset
        return used, step.rows

    def _finished(self, cursor: _Cursor) -> bool:
        return cursor.stop is not None and cursor.offset >= cursor.stop

    def _is_caught_up(self) -> bool:
        return all(cursor.done or cursor.offset >= cursor.call_end for cursor in self._cursors)

    def _time_window(self) -> TimeWindow | None:
        request = self._request
        low = _time_of(request, "start")
        high = _time_of(request, "end")
        if low is None and high is None:
            return None
        if low is not None and high is not None and low > high:
            raise invalid("end", f"the end {high} lies before the start {low}")
        return TimeWindow(self._basis, low, high)

    def _cursor(self, reader: Reader, ref: PartitionRef, state: partitions.PartitionState) -> _Cursor:
        request = self._request
        start = state.start_offset
        if request.HasField("start"):
            start = self._resolve(reader, ref, state, request.start, "start")
        stop: int | None = None if self._follow else state.next_offset
        if request.HasField("end"):
            kind = request.end.WhichOneof("position")
            if kind == "offsets" and ref.partition not in request.end.offsets.offsets:
                pass  # partitions not named have no end of their own
            elif kind != "time_us":
                stop = self._resolve(reader, ref, state, request.end, "end")
                if request.start.WhichOneof("position") in ("offset", "offsets") and stop < start:
                    raise invalid("end", f"partition {ref.partition}: the end {stop} lies before {start}")
            elif self._basis == "append" and not self._follow:
                stop = self._resolve(reader, ref, state, request.end, "end")
            # By record time there is no end offset: a late event may come at
            # any place. By append time and following, it is not there yet.
        cursor = _Cursor(ref, start, stop, state.next_offset, state.next_offset)
        cursor.done = self._finished(cursor)
        cursor.pending = not cursor.done and start < state.next_offset
        return cursor

    def _resolve(
        self,
        reader: Reader,
        ref: PartitionRef,
        state: partitions.PartitionState,
        position: bus_pb2.Position,
        field: str,
    ) -> int:
        try:
            return resolve(
                reader, ref, state, position, self._basis, beyond_end=field == "end" and self._follow
            )
        except InvalidArgumentError as error:
            if error.metadata.get("field") == "position":
                raise invalid(field, f"{field}: {error}") from None
            raise


def _basis(request: bus_pb2.ReplayRequest) -> TimeBasis:
    if request.time_basis == bus_pb2.TIME_BASIS_RECORD:
        return "record"
    if request.time_basis == bus_pb2.TIME_BASIS_APPEND:
        return "append"
    raise invalid("time_basis", f"unknown time basis {request.time_basis}")


def _time_of(request: bus_pb2.ReplayRequest, field: str) -> int | None:
    if not request.HasField("start" if field == "start" else "end"):
        return None
    position = request.start if field == "start" else request.end
    return position.time_us if position.WhichOneof("position") == "time_us" else None


def _message_bytes(wanted: int, settings: DeliverySettings, *, decoded: bool) -> int:
    if wanted > settings.max_message_bytes:
        raise invalid(
            "max_message_bytes", f"{wanted} is over the limit of {settings.max_message_bytes} bytes"
        )
    if wanted:
        return wanted
    return settings.decoded_message_bytes if decoded else settings.default_message_bytes


def _partitions(request: bus_pb2.ReplayRequest, topic: TopicRow) -> list[int]:
    numbers = list(request.partitions) or list(range(topic.partitions))
    if len(set(numbers)) != len(numbers):
        raise invalid("partitions", "a partition is named twice")
    named: set[int] = set()
    for position in (request.start, request.end):
        named.update(position.offsets.offsets)
    for number in sorted({*numbers, *named}):
        if number >= topic.partitions:
            raise UnknownPartitionError(
                f"topic {topic.name!r} has partitions 0 to {topic.partitions - 1}, not {number}",
                metadata={"topic": topic.name, "partition": str(number)},
            )
    stray = named.difference(numbers)
    if stray:
        raise invalid("partitions", f"an offset is given for partition {min(stray)}, which is not read")
    return numbers


def _gone(ref: PartitionRef) -> UnknownTopicError:
    return UnknownTopicError(
        f"topic {ref.topic!r} was deleted", metadata={"topic": ref.topic, "partition": str(ref.partition)}
    )
