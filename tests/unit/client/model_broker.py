"""The broker's side of publishing as the wire contract has it; shares no code with the broker."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.errors import (
    HoldfastError,
    InternalError,
    ProducerFencedError,
    RecordTooLargeError,
    SequenceGapError,
)
from holdfast.records import decode_batch
from holdfast.v1 import bus_pb2, errors_pb2

POISON = b"poison"
REMEMBERED = 8


@dataclass
class Row:
    """What is remembered of a producer in a partition."""

    epoch: int = 0
    expected: int = 0
    recent: list[tuple[int, int, int]] = field(default_factory=list)


class ModelBroker:
    """Partitions of one topic: the stored values, and the producers."""

    def __init__(self, partitions: int) -> None:
        self.logs: list[list[bytes]] = [[] for _ in range(partitions)]
        #: Base offset and bytes of each batch.
        self.batches: list[list[tuple[int, bytes]]] = [[] for _ in range(partitions)]
        self.rows: dict[tuple[int, int], Row] = {}
        #: Idempotency key -> where its record is.
        self.marks: dict[bytes, tuple[int, int]] = {}

    #: The next request comes from a stream its client has left.
    ghostly = False

    def publish(self, request: bus_pb2.PublishRequest) -> bus_pb2.PublishResponse:
        """All or nothing.

        Raises:
            HoldfastError: refused.
        """
        numbers = [part.partition for part in request.batches]
        if not numbers or len(set(numbers)) != len(numbers):
            raise InternalError(f"partitions {numbers} in one request")
        values = {part.partition: decode_batch(part.batch).values for part in request.batches}
        if any(POISON in value for column in values.values() for value in column):
            raise RecordTooLargeError("poison")
        for part in request.batches:
            self._check(request, part, len(values[part.partition]))
        response = bus_pb2.PublishResponse()
        for part in request.batches:
            number, count = part.partition, len(values[part.partition])
            row = self.rows.setdefault((number, request.producer_id), Row())
            if request.producer_epoch == row.epoch and part.base_sequence < row.expected:
                base = _stored(row, part.base_sequence, count)
                response.acks.add(partition=number, base_offset=base, count=count, duplicate=True)
                continue
            if request.producer_epoch > row.epoch:
                row.epoch, row.expected, row.recent = request.producer_epoch, 0, []
            log = self.logs[number]
            row.recent = [*row.recent[1 - REMEMBERED :], (part.base_sequence, count, len(log))]
            row.expected += count
            response.acks.add(partition=number, base_offset=len(log), count=count)
            self.batches[number].append((len(log), part.batch))
            log.extend(values[number])
        return response

    def publish_keyed(self, request: bus_pb2.PublishRequest) -> bus_pb2.PublishResponse:
        """Plain records with an idempotency key each; they go into partition 0.

        Raises:
            HoldfastError: refused.
        """
        if len(request.idempotency_keys) != len(request.records) or request.producer_id:
            raise InternalError("not what this model is for")
        if any(record.value == POISON for record in request.records):
            raise RecordTooLargeError("poison")
        response = bus_pb2.PublishResponse()
        for record, key in zip(request.records, request.idempotency_keys, strict=True):
            known = self.marks.get(key)
            if known is None:
                self.marks[key] = (0, len(self.logs[0]))
                self.logs[0].append(record.value)
            partition, offset = self.marks[key]
            response.positions.add(partition=partition, offset=offset, duplicate=known is not None)
        return response

    def _check(self, request: bus_pb2.PublishRequest, part: bus_pb2.PartitionBatch, count: int) -> None:
        row = self.rows.get((part.partition, request.producer_id))
        if row is None or request.producer_epoch > row.epoch:
            if part.base_sequence:
                raise SequenceGapError("gap", metadata={"expected": "0"})
            return
        if request.producer_epoch < row.epoch:
            raise ProducerFencedError("fenced")
        if part.base_sequence == row.expected:
            return
        if part.base_sequence + count > row.expected:
            raise SequenceGapError("gap", metadata={"expected": str(row.expected)})
        # A client that keeps to the window never repeats what is forgotten; a ghost may.
        if _stored(row, part.base_sequence, count) < 0 and not self.ghostly:
            raise InternalError("a repeat of something forgotten, or cut differently")


def _stored(row: Row, base: int, count: int) -> int:
    """Where these sequences were stored; -1 when that is forgotten. A retry may cut a batch in parts."""
    for first, size, place in row.recent:
        if first <= base and base + count <= first + size:
            return place + base - first
    return -1


def to_result(
    number: int, response: bus_pb2.PublishResponse | None, error: HoldfastError | None
) -> bus_pb2.PublishResult:
    """The answer to a request, as a stream carries it."""
    if error is None:
        return bus_pb2.PublishResult(request_id=number, response=response)
    return bus_pb2.PublishResult(
        request_id=number,
        error=errors_pb2.Error(
            reason=error.reason, message=error.message, retriable=error.retriable, metadata=error.metadata
        ),
    )
