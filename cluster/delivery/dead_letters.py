"""Dead letters: records a group gave up, as records of a dead-letter topic.

A dead letter is the record as it was, key, value, time and headers, and behind
its headers what became of it (``holdfast.headers``). Nothing else is kept of
it: whoever reads the topic reads everything there is to know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast import headers as names
from holdfast.cluster.state.names import HIDDEN_PREFIX
from holdfast.records import DEFAULT_LIMITS, BatchLimits, DecodedBatch, encode_batch, partition_for
from holdfast.storage.retries import MAX_ERRORS, cut
from holdfast.v1 import log_pb2

#: The last to be left out of a dead letter for want of room.
_KEPT = (names.TRACEPARENT, names.TRACESTATE)

_MAX_NUMBER = (1 << 63) - 1

Header = tuple[str, bytes]


def group_of(topic: str) -> str:
    """The hidden group of a dead-letter topic: what it has not settled is listed."""
    return HIDDEN_PREFIX + topic


class Plain(msgspec.Struct, frozen=True, gc=False):
    """A record by itself."""

    key: bytes  # empty: none
    value: bytes
    timestamp_us: int
    headers: tuple[Header, ...] = ()

    @property
    def size(self) -> int:
        """Bytes, as limits count them."""
        return len(self.key) + len(self.value) + _size(self.headers)


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """Where a record was given up, and why; times in microseconds since the Unix epoch."""

    group: str
    topic: str
    partition: int
    offset: int
    append_time_us: int
    attempts: int
    first_failed_us: int
    generation: int = 0  # of the group by then; 0: not known
    errors: tuple[tuple[int, str], ...] = ()  # (time, text), oldest first


class Letter(msgspec.Struct, frozen=True):
    """A dead letter read back. A record that is none has an empty group."""

    death: Death
    redrives: int  # how often the record had been redriven before
    record: Plain  # as it was before it died


def make(
    record: Plain, death: Death, *, limits: BatchLimits = DEFAULT_LIMITS, max_record_bytes: int = 0
) -> Plain:
    """The dead letter of a record.

    What does not fit is left out, and said: headers beyond their number; then errors, oldest
    first, and headers from the last one on, until the bytes fit. Never the value: a record
    whose value alone is too large for the topic is stored all the same.

    Args:
        limits: what readers may expect of any record.
        max_record_bytes: of the dead-letter topic; 0: that of ``limits``.
    """
    own = [pair for pair in record.headers if not pair[0].startswith(names.DEAD)]
    errors = [(at, cut(text)) for at, text in death.errors[-MAX_ERRORS:]]
    fixed = _fixed(death, redrives_of(own))
    room = (max_record_bytes or limits.max_record_bytes) - len(record.key) - len(record.value)
    room = min(room, limits.max_header_bytes)
    lost_errors = lost_headers = 0

    def whole() -> list[Header]:
        found = [*own, *fixed, (names.DEAD_ERRORS, _json(errors))]
        lost = {"errors": lost_errors, "headers": lost_headers}
        if lost_errors or lost_headers:
            found.append((names.DEAD_CUT, _json({what: n for what, n in lost.items() if n})))
        return found

    while own and len(whole()) > limits.max_headers:
        lost_headers += 1
        _drop(own)
    while _size(whole()) > room:
        if errors:
            lost_errors += 1
            del errors[0]
        elif own:
            lost_headers += 1
            _drop(own)
        else:
            break
    return Plain(record.key, record.value, record.timestamp_us, tuple(whole()))


def read(record: Plain) -> Letter:
    """The dead letter a record is. What is malformed in it, by another's hand, is left out."""
    found: dict[str, str] = {}
    own: list[Header] = []
    for name, value in record.headers:
        if name.startswith(names.DEAD):
            found[name] = value.decode(errors="replace")
        else:
            own.append((name, value))
    death = Death(
        group=found.get(names.DEAD_GROUP, ""),
        topic=found.get(names.DEAD_TOPIC, ""),
        partition=_number(found.get(names.DEAD_PARTITION), (1 << 32) - 1),
        offset=_number(found.get(names.DEAD_OFFSET)),
        append_time_us=_number(found.get(names.DEAD_APPEND_US)),
        attempts=_number(found.get(names.DEAD_ATTEMPTS), (1 << 32) - 1),
        first_failed_us=_number(found.get(names.DEAD_FIRST_US)),
        generation=_number(found.get(names.DEAD_GENERATION)),
        errors=_errors(found.get(names.DEAD_ERRORS, "")),
    )
    redrives = _number(found.get(names.DEAD_REDRIVES), (1 << 32) - 1)
    return Letter(death, redrives, Plain(record.key, record.value, record.timestamp_us, tuple(own)))


def redrives_of(headers: Iterable[Header]) -> int:
    """How often the record with these headers has been redriven."""
    return _number(_last(headers, names.REDRIVE_COUNT), (1 << 32) - 1)


def redriven(letter: Letter, *, for_group: bool) -> Plain:
    """The record as it is published again.

    It says where it was published first, however often it has died since: that is what it is known by
    to those who keep account of what they have handled.

    Args:
        for_group: only that group is to handle it.
    """
    death, record = letter.death, letter.record
    known = {name: value for name, value in record.headers if name.startswith(names.REDRIVE)}
    first = {
        names.REDRIVE_TOPIC: death.topic,
        names.REDRIVE_PARTITION: str(death.partition),
        names.REDRIVE_OFFSET: str(death.offset),
        names.REDRIVE_APPEND_US: str(death.append_time_us),
    }
    if not first.keys() <= known.keys():
        known.update({name: value.encode() for name, value in first.items()})
    known[names.REDRIVE_COUNT] = str(letter.redrives + 1).encode()
    known.pop(names.REDRIVE_GROUP, None)
    if for_group:
        known[names.REDRIVE_GROUP] = death.group.encode()
    own = [pair for pair in record.headers if not pair[0].startswith(names.REDRIVE)]
    return Plain(record.key, record.value, record.timestamp_us, (*own, *sorted(known.items())))


def partition_of(record: Plain, origin: int, partitions: int) -> int:
    """Where a record goes in a topic of so many partitions: by its key, or where it was."""
    return partition_for(record.key, partitions) if record.key else origin % partitions


def column(batch: DecodedBatch, at: int) -> Plain:
    """One record of a batch."""
    found = batch.headers[at] if batch.has_headers else ()
    return Plain(batch.keys[at], batch.values[at], batch.timestamps_us[at], tuple(found or ()))


def append_op(topic_id: int, placed: Sequence[tuple[int, Plain]]) -> tuple[log_pb2.AppendOp, list[bytes]]:
    """An operation that appends records to partitions, and its batches, one per partition.

    Records of one partition keep their order.
    """
    by_partition: dict[int, list[Plain]] = {}
    for partition, record in placed:
        by_partition.setdefault(partition, []).append(record)
    op = log_pb2.AppendOp(topic_id=topic_id)
    batches = []
    for partition in sorted(by_partition):
        records = by_partition[partition]
        times = [record.timestamp_us for record in records]
        batch = encode_batch(
            [record.value for record in records],
            [record.key for record in records],
            times,
            [record.headers for record in records],
        )
        op.batches.add(
            partition=partition,
            count=len(records),
            length=len(batch),
            min_timestamp_us=min(times),
            max_timestamp_us=max(times),
        )
        batches.append(batch)
    return op, batches


def _fixed(death: Death, redrives: int) -> list[Header]:
    """What is never left out; some 700 bytes at most, mostly names."""
    facts: tuple[tuple[str, Any], ...] = (
        (names.DEAD_GROUP, death.group),
        (names.DEAD_TOPIC, death.topic),
        (names.DEAD_PARTITION, death.partition),
        (names.DEAD_OFFSET, death.offset),
        (names.DEAD_APPEND_US, death.append_time_us),
        (names.DEAD_ATTEMPTS, death.attempts),
        (names.DEAD_FIRST_US, death.first_failed_us),
        (names.DEAD_GENERATION, death.generation),
        (names.DEAD_REDRIVES, redrives),
    )
    return [(name, str(value).encode()) for name, value in facts]


def _drop(own: list[Header]) -> None:
    """Leave out the last header that is not ours and not the trace; when there is no such, the last."""
    for at in range(len(own) - 1, -1, -1):
        name = own[at][0]
        if name not in _KEPT and not name.startswith(names.REDRIVE):
            del own[at]
            return
    own.pop()


def _size(headers: Iterable[Header]) -> int:
    return sum([len(name.encode()) + len(value) for name, value in headers])


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _last(headers: Iterable[Header], wanted: str) -> str | None:
    found = [value for name, value in headers if name == wanted]
    return found[-1].decode(errors="replace") if found else None


def _number(text: str | None, most: int = _MAX_NUMBER) -> int:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 19:
        return 0
    return min(int(text), most)


def _errors(text: str) -> tuple[tuple[int, str], ...]:
    try:
        found = msgspec.json.decode(text.encode(), type=list[tuple[int, str]])
    except (msgspec.DecodeError, UnicodeEncodeError):
        return ()
    return tuple([(at, cut(error)) for at, error in found[-MAX_ERRORS:] if 0 <= at <= _MAX_NUMBER])
