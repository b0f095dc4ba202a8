"""The one error vocabulary of Holdfast, shared by client and brokers.

Every error has a stable ``reason`` (upper case, sent on the wire), says whether
the same call may simply be tried again (``retriable``) and, in its message,
what to do. ``rpc`` maps each to a gRPC status code; the client maps it back to
the same class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class HoldfastError(Exception):
    """Base of all errors a caller can get.

    Attributes:
        reason: stable identifier of the kind of error.
        code: name of the gRPC status code that carries it.
        retriable: True when the same call may succeed later, unchanged.
        retry_after_ms: a hint for the first retry; 0 when there is none.
        metadata: facts in machine-readable form, such as ``leader``.
    """

    reason: ClassVar[str] = "INTERNAL"
    code: ClassVar[str] = "INTERNAL"
    retriable: ClassVar[bool] = False
    default_retry_after_ms: ClassVar[int] = 0

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after_ms = self.default_retry_after_ms if retry_after_ms is None else retry_after_ms

    def __str__(self) -> str:
        return self.message


# -- the caller's input ------------------------------------------------------


class InvalidArgumentError(HoldfastError):
    """A field is missing, malformed or out of range; ``metadata["field"]`` names it."""

    reason = "INVALID_ARGUMENT"
    code = "INVALID_ARGUMENT"


class MalformedBatchError(InvalidArgumentError):
    """A batch does not parse, is empty, or its count does not match its content."""

    reason = "MALFORMED_BATCH"


class CorruptBatchError(InvalidArgumentError):
    """A batch's CRC-32C does not match its bytes: it was damaged on the way."""

    reason = "CORRUPT_BATCH"
    code = "DATA_LOSS"
    retriable = True


class RecordTooLargeError(InvalidArgumentError):
    """A record, key, header or batch is larger than its limit."""

    reason = "RECORD_TOO_LARGE"


class ConfigurationError(HoldfastError):
    """A setting is unknown, malformed or contradicts another."""

    reason = "CONFIGURATION"
    code = "INVALID_ARGUMENT"


# -- things that are not there, or are in the way -------------------------------


class UnknownTopicError(HoldfastError):
    """No topic of this name."""

    reason = "UNKNOWN_TOPIC"
    code = "NOT_FOUND"


class UnknownPartitionError(HoldfastError):
    """The topic has fewer partitions than the number asked for."""

    reason = "UNKNOWN_PARTITION"
    code = "NOT_FOUND"


class UnknownGroupError(HoldfastError):
    """No consumer group of this name."""

    reason = "UNKNOWN_GROUP"
    code = "NOT_FOUND"


class TopicExistsError(HoldfastError):
    """A topic of this name exists already."""

    reason = "TOPIC_EXISTS"
    code = "ALREADY_EXISTS"


class OffsetOutOfRangeError(HoldfastError):
    """The offset lies before the start or past the end of the partition.

    ``metadata`` carries ``start_offset`` and ``end_offset``.
    """

    reason = "OFFSET_OUT_OF_RANGE"
    code = "OUT_OF_RANGE"


class SequenceGapError(HoldfastError):
    """A producer skipped sequence numbers; ``metadata["expected"]`` is the next one."""

    reason = "SEQUENCE_GAP"
    code = "FAILED_PRECONDITION"


class ProducerFencedError(HoldfastError):
    """A producer of the same id and a higher epoch has taken over."""

    reason = "PRODUCER_FENCED"
    code = "FAILED_PRECONDITION"


class NotDeliveredError(HoldfastError):
    """An ack names records that this member was not given."""

    reason = "NOT_DELIVERED"
    code = "FAILED_PRECONDITION"


class FencedError(HoldfastError):
    """An ack or commit of a generation that has been replaced."""

    reason = "FENCED"
    code = "FAILED_PRECONDITION"


class LeaseExpiredError(HoldfastError):
    """The record is no longer this member's: its lease ended, or a record before it failed."""

    reason = "LEASE_EXPIRED"
    code = "FAILED_PRECONDITION"


class GroupConflictError(HoldfastError):
    """The group is defined otherwise; ``metadata`` carries ``field``, ``group_has`` and ``asked``."""

    reason = "GROUP_CONFLICT"
    code = "FAILED_PRECONDITION"


class ProtocolVersionError(HoldfastError):
    """A member speaks a protocol this broker does not; ``metadata["supported"]`` lists what it does."""

    reason = "PROTOCOL_VERSION"
    code = "FAILED_PRECONDITION"


class TransactionRequiredError(HoldfastError):
    """An ack in an exactly-once group: its records are settled by a transaction."""

    reason = "TRANSACTION_REQUIRED"
    code = "FAILED_PRECONDITION"


class AlreadySettledError(HoldfastError):
    """A transaction consumes a record that is settled; ``metadata`` says which. Nothing was done."""

    reason = "ALREADY_SETTLED"
    code = "FAILED_PRECONDITION"


class TransactionTooLargeError(InvalidArgumentError):
    """A transaction is over a bound; ``metadata`` carries ``size`` and ``limit``."""

    reason = "TRANSACTION_TOO_LARGE"


class TransactionRefusedError(HoldfastError):
    """Nothing of a transaction was done: a record it consumes is settled, or somebody else's by now.

    Raised by the client only; ``metadata["refused"]`` is the reason the brokers gave.
    """

    reason = "TRANSACTION_REFUSED"
    code = "FAILED_PRECONDITION"


class RedriveLoopError(HoldfastError):
    """A redrive would only bring the record back; change the handler, or force it."""

    reason = "REDRIVE_LOOP"
    code = "FAILED_PRECONDITION"


class DuplicateKeysError(HoldfastError):
    """Some records were stored before under their idempotency keys; brokers answer with their places."""

    reason = "DUPLICATE_KEYS"
    code = "ALREADY_EXISTS"


class FailedPreconditionError(HoldfastError):
    """The state does not allow this call; the message says what would."""

    reason = "FAILED_PRECONDITION"
    code = "FAILED_PRECONDITION"


class LimitExceededError(HoldfastError):
    """A configured maximum (topics, partitions, groups, ...) has been reached."""

    reason = "LIMIT_EXCEEDED"
    code = "FAILED_PRECONDITION"


# -- the cluster's condition: try again --------------------------------------


class UnavailableError(HoldfastError):
    """The broker cannot serve the call now; nothing was done."""

    reason = "UNAVAILABLE"
    code = "UNAVAILABLE"
    retriable = True
    default_retry_after_ms = 50


class NoLeaderError(UnavailableError):
    """No leader is known, or it changed; ``metadata["leader"]`` names it when known."""

    reason = "NO_LEADER"


class StaleGroupError(UnavailableError):
    """The group has changed since this was worked out; nothing was done."""

    reason = "STALE_GROUP"
    code = "ABORTED"
    default_retry_after_ms = 10


class OutcomeUnknownError(HoldfastError):
    """The call may or may not have taken effect.

    Safe to retry with the same producer id and sequence; otherwise a retry may
    do it twice.
    """

    reason = "OUTCOME_UNKNOWN"
    code = "ABORTED"
    retriable = True
    default_retry_after_ms = 20


class OverloadedError(HoldfastError):
    """A bounded queue is full; try again after ``retry_after_ms``."""

    reason = "OVERLOADED"
    code = "RESOURCE_EXHAUSTED"
    retriable = True
    default_retry_after_ms = 100


class StorageFullError(HoldfastError):
    """Disk or quota is full: writes are refused, reads go on."""

    reason = "STORAGE_FULL"
    code = "RESOURCE_EXHAUSTED"
    retriable = True
    default_retry_after_ms = 1000


class DeadlineExceededError(HoldfastError):
    """The deadline passed before the answer came; the outcome may be unknown."""

    reason = "DEADLINE_EXCEEDED"
    code = "DEADLINE_EXCEEDED"
    retriable = True


# -- the node itself -----------------------------------------------------------


class StorageError(HoldfastError):
    """Stored data cannot be used: foreign, of another format, or damaged."""

    reason = "STORAGE"
    code = "DATA_LOSS"


class DataDirectoryError(StorageError):
    """The data directory belongs to another cluster, node or format version, or is in use."""

    reason = "DATA_DIRECTORY"
    code = "FAILED_PRECONDITION"


class PortInUseError(HoldfastError):
    """A port the broker wants is taken by another process."""

    reason = "PORT_IN_USE"
    code = "FAILED_PRECONDITION"


class ClosedError(HoldfastError):
    """The client, consumer or broker has been closed."""

    reason = "CLOSED"
    code = "CANCELLED"


class InternalError(HoldfastError):
    """A fault of Holdfast's own; the broker's log says more."""


def _collect(base: type[HoldfastError]) -> dict[str, type[HoldfastError]]:
    found = {} if base is HoldfastError else {base.reason: base}
    for child in base.__subclasses__():
        for reason, cls in _collect(child).items():
            found.setdefault(reason, cls)
    return found


#: Every reason and its class.
BY_REASON: Mapping[str, type[HoldfastError]] = _collect(HoldfastError)


def from_reason(
    reason: str,
    message: str,
    *,
    metadata: Mapping[str, str] | None = None,
    retry_after_ms: int | None = None,
) -> HoldfastError:
    """Rebuild an error from the wire; an unknown reason becomes ``InternalError``."""
    cls = BY_REASON.get(reason, InternalError)
    return cls(message, metadata=metadata, retry_after_ms=retry_after_ms)
