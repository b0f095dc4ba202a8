"""What becomes of a record that is not settled: the rules of one retry item. Pure."""

from __future__ import annotations

import struct

from holdfast.cluster.group_definition import Definition, backoff_ms
from holdfast.errors import InvalidArgumentError
from holdfast.storage.retries import NEVER_US, RetryRow, State, cut
from holdfast.v1 import log_pb2

NACK = log_pb2.RETRY_CAUSE_NACK
EXPIRED = log_pb2.RETRY_CAUSE_EXPIRED
LOST = log_pb2.RETRY_CAUSE_LOST
PARK = log_pb2.RETRY_CAUSE_PARK
REJECT = log_pb2.RETRY_CAUSE_REJECT
LET_GO = log_pb2.RETRY_CAUSE_LET_GO

#: What costs the record an attempt.
_CHARGED = frozenset((NACK, EXPIRED, LOST, REJECT))
_KNOWN = _CHARGED | {PARK, LET_GO}

_OFFSET = struct.Struct(">Q")
#: Attempts beyond these are not counted: what a row has room for.
_MAX_COUNT = 0xFFFF
#: The latest time something is due at all.
_LAST_US = NEVER_US - 1


def check_cause(item: log_pb2.RetryItem) -> None:
    """
    Raises:
        InvalidArgumentError: a cause that this version does not know.
    """
    if item.cause not in _KNOWN:
        raise InvalidArgumentError(
            f"a retry for the cause {int(item.cause)}, which is not known", metadata={"field": "retries"}
        )


def next_row(
    before: RetryRow | None, item: log_pb2.RetryItem, definition: Definition, flow: bytes, now_us: int
) -> tuple[RetryRow, bool]:
    """The row of the record from now on, and whether that was its last attempt.

    One that had its last attempt is due at once: it is handed to nobody, but
    proposed as a dead letter.

    Args:
        before: its row; None: it has none.
        flow: what the keys of its flow's rows start with.
        now_us: stamped time.
    """
    was = before or RetryRow(0, 0, State.WAITING, now_us, now_us)
    attempts = min(was.attempts + (item.cause in _CHARGED), _MAX_COUNT)
    last = is_last(item.cause, attempts, definition)
    if last:
        state, due_us = State.WAITING, now_us
    else:
        state, due_us = _when(item, attempts, definition, flow, now_us)
    row = RetryRow(
        attempts=attempts,
        losses=min(was.losses + (item.cause == LOST), _MAX_COUNT),
        state=state,
        due_us=due_us,
        first_failed_us=was.first_failed_us,
        lane=item.lane or was.lane,
        errors=(*was.errors, (now_us, cut(item.error))) if item.error else was.errors,
    )
    return row, last


def is_last(cause: int, attempts: int, definition: Definition) -> bool:
    """Whether a record is to become a dead letter. A park is asked for, and holds whatever the attempts."""
    if cause == PARK:
        return False
    if cause == REJECT:
        return bool(definition.dead_letter_topic)
    return 0 < definition.max_attempts <= attempts


def _when(
    item: log_pb2.RetryItem, attempts: int, definition: Definition, flow: bytes, now_us: int
) -> tuple[State, int]:
    if item.cause == LOST:
        return State.SUSPECT, now_us
    if item.cause == LET_GO:
        return State.WAITING, now_us
    if item.cause == REJECT:  # there is no dead-letter topic that would take it
        return State.PARKED_FOR_GOOD, NEVER_US
    asked = item.delay_ms if item.HasField("delay_ms") else None
    if item.cause == PARK:
        return (State.PARKED_FOR_GOOD, NEVER_US) if asked is None else (State.PARKED, _later(now_us, asked))
    if asked is None:
        asked = backoff_ms(definition, flow + _OFFSET.pack(item.offset), attempts)
    return State.WAITING, _later(now_us, asked)


def _later(now_us: int, delay_ms: int) -> int:
    return min(now_us + delay_ms * 1000, _LAST_US)
