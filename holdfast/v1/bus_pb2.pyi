from holdfast.v1 import errors_pb2 as _errors_pb2
from holdfast.v1 import records_pb2 as _records_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TimeBasis(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIME_BASIS_RECORD: _ClassVar[TimeBasis]
    TIME_BASIS_APPEND: _ClassVar[TimeBasis]

class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORMAT_RECORDS: _ClassVar[Format]
    FORMAT_BATCHES: _ClassVar[Format]

class Semantics(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEMANTICS_UNSPECIFIED: _ClassVar[Semantics]
    SEMANTICS_AT_LEAST_ONCE: _ClassVar[Semantics]
    SEMANTICS_AT_MOST_ONCE: _ClassVar[Semantics]
    SEMANTICS_EXACTLY_ONCE: _ClassVar[Semantics]

class Ordering(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORDERING_UNSPECIFIED: _ClassVar[Ordering]
    ORDERING_PARTITION: _ClassVar[Ordering]
    ORDERING_KEY: _ClassVar[Ordering]
    ORDERING_NONE: _ClassVar[Ordering]

class NackKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NACK_KIND_RETRY: _ClassVar[NackKind]
    NACK_KIND_PARK: _ClassVar[NackKind]
    NACK_KIND_REJECT: _ClassVar[NackKind]
    NACK_KIND_RELEASE: _ClassVar[NackKind]

class PauseReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAUSE_REASON_UNSPECIFIED: _ClassVar[PauseReason]
    PAUSE_REASON_MAX_UNACKED: _ClassVar[PauseReason]
    PAUSE_REASON_RETRIES_FULL: _ClassVar[PauseReason]
    PAUSE_REASON_PARKED: _ClassVar[PauseReason]
    PAUSE_REASON_STORAGE: _ClassVar[PauseReason]
    PAUSE_REASON_BY_CLIENT: _ClassVar[PauseReason]
TIME_BASIS_RECORD: TimeBasis
TIME_BASIS_APPEND: TimeBasis
FORMAT_RECORDS: Format
FORMAT_BATCHES: Format
SEMANTICS_UNSPECIFIED: Semantics
SEMANTICS_AT_LEAST_ONCE: Semantics
SEMANTICS_AT_MOST_ONCE: Semantics
SEMANTICS_EXACTLY_ONCE: Semantics
ORDERING_UNSPECIFIED: Ordering
ORDERING_PARTITION: Ordering
ORDERING_KEY: Ordering
ORDERING_NONE: Ordering
NACK_KIND_RETRY: NackKind
NACK_KIND_PARK: NackKind
NACK_KIND_REJECT: NackKind
NACK_KIND_RELEASE: NackKind
PAUSE_REASON_UNSPECIFIED: PauseReason
PAUSE_REASON_MAX_UNACKED: PauseReason
PAUSE_REASON_RETRIES_FULL: PauseReason
PAUSE_REASON_PARKED: PauseReason
PAUSE_REASON_STORAGE: PauseReason
PAUSE_REASON_BY_CLIENT: PauseReason

class PublishRequest(_message.Message):
    __slots__ = ("topic", "records", "batches", "producer_id", "producer_epoch", "partition", "base_sequence", "request_id", "idempotency_keys")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BASE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEYS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.Record]
    batches: _containers.RepeatedCompositeFieldContainer[PartitionBatch]
    producer_id: int
    producer_epoch: int
    partition: int
    base_sequence: int
    request_id: int
    idempotency_keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, topic: _Optional[str] = ..., records: _Optional[_Iterable[_Union[_records_pb2.Record, _Mapping]]] = ..., batches: _Optional[_Iterable[_Union[PartitionBatch, _Mapping]]] = ..., producer_id: _Optional[int] = ..., producer_epoch: _Optional[int] = ..., partition: _Optional[int] = ..., base_sequence: _Optional[int] = ..., request_id: _Optional[int] = ..., idempotency_keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PartitionBatch(_message.Message):
    __slots__ = ("partition", "base_sequence", "batch", "idempotency_keys")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BASE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEYS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    base_sequence: int
    batch: bytes
    idempotency_keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, partition: _Optional[int] = ..., base_sequence: _Optional[int] = ..., batch: _Optional[bytes] = ..., idempotency_keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("acks", "positions")
    ACKS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[PartitionAck]
    positions: _containers.RepeatedCompositeFieldContainer[RecordPosition]
    def __init__(self, acks: _Optional[_Iterable[_Union[PartitionAck, _Mapping]]] = ..., positions: _Optional[_Iterable[_Union[RecordPosition, _Mapping]]] = ...) -> None: ...

class PartitionAck(_message.Message):
    __slots__ = ("partition", "base_offset", "count", "append_time_us", "duplicate")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BASE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    partition: int
    base_offset: int
    count: int
    append_time_us: int
    duplicate: bool
    def __init__(self, partition: _Optional[int] = ..., base_offset: _Optional[int] = ..., count: _Optional[int] = ..., append_time_us: _Optional[int] = ..., duplicate: _Optional[bool] = ...) -> None: ...

class RecordPosition(_message.Message):
    __slots__ = ("partition", "offset", "duplicate")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    duplicate: bool
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ..., duplicate: _Optional[bool] = ...) -> None: ...

class PublishStreamResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PublishResult]
    def __init__(self, results: _Optional[_Iterable[_Union[PublishResult, _Mapping]]] = ...) -> None: ...

class PublishResult(_message.Message):
    __slots__ = ("request_id", "response", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    response: PublishResponse
    error: _errors_pb2.Error
    def __init__(self, request_id: _Optional[int] = ..., response: _Optional[_Union[PublishResponse, _Mapping]] = ..., error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("offset", "time_us", "earliest", "latest", "offsets")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    offset: int
    time_us: int
    earliest: bool
    latest: bool
    offsets: PartitionOffsets
    def __init__(self, offset: _Optional[int] = ..., time_us: _Optional[int] = ..., earliest: _Optional[bool] = ..., latest: _Optional[bool] = ..., offsets: _Optional[_Union[PartitionOffsets, _Mapping]] = ...) -> None: ...

class PartitionOffsets(_message.Message):
    __slots__ = ("offsets",)
    class OffsetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    offsets: _containers.ScalarMap[int, int]
    def __init__(self, offsets: _Optional[_Mapping[int, int]] = ...) -> None: ...

class ReplayRequest(_message.Message):
    __slots__ = ("topic", "partitions", "start", "end", "time_basis", "follow", "linearizable", "format", "max_message_bytes")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TIME_BASIS_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    LINEARIZABLE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    start: Position
    end: Position
    time_basis: TimeBasis
    follow: bool
    linearizable: bool
    format: Format
    max_message_bytes: int
    def __init__(self, topic: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ..., start: _Optional[_Union[Position, _Mapping]] = ..., end: _Optional[_Union[Position, _Mapping]] = ..., time_basis: _Optional[_Union[TimeBasis, str]] = ..., follow: _Optional[bool] = ..., linearizable: _Optional[bool] = ..., format: _Optional[_Union[Format, str]] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class ReplayResponse(_message.Message):
    __slots__ = ("batches", "records", "progress", "caught_up")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[_records_pb2.StoredBatch]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.Record]
    progress: _containers.RepeatedCompositeFieldContainer[PartitionProgress]
    caught_up: bool
    def __init__(self, batches: _Optional[_Iterable[_Union[_records_pb2.StoredBatch, _Mapping]]] = ..., records: _Optional[_Iterable[_Union[_records_pb2.Record, _Mapping]]] = ..., progress: _Optional[_Iterable[_Union[PartitionProgress, _Mapping]]] = ..., caught_up: _Optional[bool] = ...) -> None: ...

class PartitionProgress(_message.Message):
    __slots__ = ("partition", "next_offset", "log_end_offset")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LOG_END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    partition: int
    next_offset: int
    log_end_offset: int
    def __init__(self, partition: _Optional[int] = ..., next_offset: _Optional[int] = ..., log_end_offset: _Optional[int] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("start", "credit", "ack", "settle", "heartbeat", "pause", "leave")
    START_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    start: SubscribeStart
    credit: Credit
    ack: Ack
    settle: Settle
    heartbeat: Heartbeat
    pause: PauseRequest
    leave: Leave
    def __init__(self, start: _Optional[_Union[SubscribeStart, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., settle: _Optional[_Union[Settle, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., pause: _Optional[_Union[PauseRequest, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ...) -> None: ...

class SubscribeStart(_message.Message):
    __slots__ = ("group", "topics", "initial", "format", "credits", "consumer_name", "protocol", "member_id", "static_grace_ms", "definition", "concurrency", "holding")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_NAME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    STATIC_GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    HOLDING_FIELD_NUMBER: _ClassVar[int]
    group: str
    topics: _containers.RepeatedScalarFieldContainer[str]
    initial: Position
    format: Format
    credits: int
    consumer_name: str
    protocol: int
    member_id: str
    static_grace_ms: int
    definition: GroupDefinition
    concurrency: int
    holding: _containers.RepeatedCompositeFieldContainer[Holding]
    def __init__(self, group: _Optional[str] = ..., topics: _Optional[_Iterable[str]] = ..., initial: _Optional[_Union[Position, _Mapping]] = ..., format: _Optional[_Union[Format, str]] = ..., credits: _Optional[int] = ..., consumer_name: _Optional[str] = ..., protocol: _Optional[int] = ..., member_id: _Optional[str] = ..., static_grace_ms: _Optional[int] = ..., definition: _Optional[_Union[GroupDefinition, _Mapping]] = ..., concurrency: _Optional[int] = ..., holding: _Optional[_Iterable[_Union[Holding, _Mapping]]] = ...) -> None: ...

class Holding(_message.Message):
    __slots__ = ("topic", "partition", "base", "runs")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    base: int
    runs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., base: _Optional[int] = ..., runs: _Optional[_Iterable[int]] = ...) -> None: ...

class GroupDefinition(_message.Message):
    __slots__ = ("topics", "patterns", "semantics", "ordering", "retry", "ack_timeout_ms", "dead_letter_topic", "start", "max_unacked", "max_retrying", "max_lease_ms")
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    SEMANTICS_FIELD_NUMBER: _ClassVar[int]
    ORDERING_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    ACK_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTER_TOPIC_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    MAX_UNACKED_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRYING_FIELD_NUMBER: _ClassVar[int]
    MAX_LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedScalarFieldContainer[str]
    patterns: _containers.RepeatedScalarFieldContainer[str]
    semantics: Semantics
    ordering: Ordering
    retry: RetryPolicy
    ack_timeout_ms: int
    dead_letter_topic: str
    start: Position
    max_unacked: int
    max_retrying: int
    max_lease_ms: int
    def __init__(self, topics: _Optional[_Iterable[str]] = ..., patterns: _Optional[_Iterable[str]] = ..., semantics: _Optional[_Union[Semantics, str]] = ..., ordering: _Optional[_Union[Ordering, str]] = ..., retry: _Optional[_Union[RetryPolicy, _Mapping]] = ..., ack_timeout_ms: _Optional[int] = ..., dead_letter_topic: _Optional[str] = ..., start: _Optional[_Union[Position, _Mapping]] = ..., max_unacked: _Optional[int] = ..., max_retrying: _Optional[int] = ..., max_lease_ms: _Optional[int] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("max_attempts", "initial_ms", "max_ms", "multiplier_milli", "jitter_permille")
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_MS_FIELD_NUMBER: _ClassVar[int]
    MULTIPLIER_MILLI_FIELD_NUMBER: _ClassVar[int]
    JITTER_PERMILLE_FIELD_NUMBER: _ClassVar[int]
    max_attempts: int
    initial_ms: int
    max_ms: int
    multiplier_milli: int
    jitter_permille: int
    def __init__(self, max_attempts: _Optional[int] = ..., initial_ms: _Optional[int] = ..., max_ms: _Optional[int] = ..., multiplier_milli: _Optional[int] = ..., jitter_permille: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Settle(_message.Message):
    __slots__ = ("number", "acks", "nacks", "extensions", "credits")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ACKS_FIELD_NUMBER: _ClassVar[int]
    NACKS_FIELD_NUMBER: _ClassVar[int]
    EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    number: int
    acks: _containers.RepeatedCompositeFieldContainer[OffsetRuns]
    nacks: _containers.RepeatedCompositeFieldContainer[Nack]
    extensions: _containers.RepeatedCompositeFieldContainer[Extension]
    credits: int
    def __init__(self, number: _Optional[int] = ..., acks: _Optional[_Iterable[_Union[OffsetRuns, _Mapping]]] = ..., nacks: _Optional[_Iterable[_Union[Nack, _Mapping]]] = ..., extensions: _Optional[_Iterable[_Union[Extension, _Mapping]]] = ..., credits: _Optional[int] = ...) -> None: ...

class OffsetRuns(_message.Message):
    __slots__ = ("slot", "lease", "base", "runs", "cumulative")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    CUMULATIVE_FIELD_NUMBER: _ClassVar[int]
    slot: int
    lease: int
    base: int
    runs: _containers.RepeatedScalarFieldContainer[int]
    cumulative: bool
    def __init__(self, slot: _Optional[int] = ..., lease: _Optional[int] = ..., base: _Optional[int] = ..., runs: _Optional[_Iterable[int]] = ..., cumulative: _Optional[bool] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("slot", "lease", "offset", "kind", "delay_ms", "error")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    slot: int
    lease: int
    offset: int
    kind: NackKind
    delay_ms: int
    error: str
    def __init__(self, slot: _Optional[int] = ..., lease: _Optional[int] = ..., offset: _Optional[int] = ..., kind: _Optional[_Union[NackKind, str]] = ..., delay_ms: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class Extension(_message.Message):
    __slots__ = ("of", "by_ms")
    OF_FIELD_NUMBER: _ClassVar[int]
    BY_MS_FIELD_NUMBER: _ClassVar[int]
    of: OffsetRuns
    by_ms: int
    def __init__(self, of: _Optional[_Union[OffsetRuns, _Mapping]] = ..., by_ms: _Optional[int] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("paused",)
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    paused: bool
    def __init__(self, paused: _Optional[bool] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Credit(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: int
    def __init__(self, records: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("ranges",)
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[AckRange]
    def __init__(self, ranges: _Optional[_Iterable[_Union[AckRange, _Mapping]]] = ...) -> None: ...

class AckRange(_message.Message):
    __slots__ = ("topic", "partition", "first_offset", "last_offset")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., first_offset: _Optional[int] = ..., last_offset: _Optional[int] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("assignment", "delivery", "committed", "ack_refused", "welcome", "settled", "paused", "revoking", "heartbeat")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    ACK_REFUSED_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    REVOKING_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    delivery: Delivery
    committed: Committed
    ack_refused: AckRefused
    welcome: Welcome
    settled: Settled
    paused: Paused
    revoking: Revoking
    heartbeat: Heartbeat
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., delivery: _Optional[_Union[Delivery, _Mapping]] = ..., committed: _Optional[_Union[Committed, _Mapping]] = ..., ack_refused: _Optional[_Union[AckRefused, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., settled: _Optional[_Union[Settled, _Mapping]] = ..., paused: _Optional[_Union[Paused, _Mapping]] = ..., revoking: _Optional[_Union[Revoking, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "member_id", "session", "definition", "heartbeat_ms", "kept", "note")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    member_id: str
    session: str
    definition: GroupDefinition
    heartbeat_ms: int
    kept: _containers.RepeatedCompositeFieldContainer[Holding]
    note: str
    def __init__(self, protocol: _Optional[int] = ..., member_id: _Optional[str] = ..., session: _Optional[str] = ..., definition: _Optional[_Union[GroupDefinition, _Mapping]] = ..., heartbeat_ms: _Optional[int] = ..., kept: _Optional[_Iterable[_Union[Holding, _Mapping]]] = ..., note: _Optional[str] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("generation", "partitions")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    partitions: _containers.RepeatedCompositeFieldContainer[AssignedPartition]
    def __init__(self, generation: _Optional[int] = ..., partitions: _Optional[_Iterable[_Union[AssignedPartition, _Mapping]]] = ...) -> None: ...

class AssignedPartition(_message.Message):
    __slots__ = ("topic", "partition", "start_offset", "slot", "fence")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    start_offset: int
    slot: int
    fence: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., start_offset: _Optional[int] = ..., slot: _Optional[int] = ..., fence: _Optional[int] = ...) -> None: ...

class Revoking(_message.Message):
    __slots__ = ("slots", "within_ms")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedScalarFieldContainer[int]
    within_ms: int
    def __init__(self, slots: _Optional[_Iterable[int]] = ..., within_ms: _Optional[int] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("batches", "records", "lease", "sparse")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[_records_pb2.StoredBatch]
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.Record]
    lease: int
    sparse: _containers.RepeatedCompositeFieldContainer[SparseBatch]
    def __init__(self, batches: _Optional[_Iterable[_Union[_records_pb2.StoredBatch, _Mapping]]] = ..., records: _Optional[_Iterable[_Union[_records_pb2.Record, _Mapping]]] = ..., lease: _Optional[int] = ..., sparse: _Optional[_Iterable[_Union[SparseBatch, _Mapping]]] = ...) -> None: ...

class SparseBatch(_message.Message):
    __slots__ = ("slot", "base", "runs", "append_time_us", "append_time_deltas_us", "attempts", "batch")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_DELTAS_US_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    slot: int
    base: int
    runs: _containers.RepeatedScalarFieldContainer[int]
    append_time_us: int
    append_time_deltas_us: _containers.RepeatedScalarFieldContainer[int]
    attempts: _containers.RepeatedScalarFieldContainer[int]
    batch: bytes
    def __init__(self, slot: _Optional[int] = ..., base: _Optional[int] = ..., runs: _Optional[_Iterable[int]] = ..., append_time_us: _Optional[int] = ..., append_time_deltas_us: _Optional[_Iterable[int]] = ..., attempts: _Optional[_Iterable[int]] = ..., batch: _Optional[bytes] = ...) -> None: ...

class Settled(_message.Message):
    __slots__ = ("number", "refusals")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    number: int
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    def __init__(self, number: _Optional[int] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("slot", "lease", "first_offset", "last_offset", "error")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    slot: int
    lease: int
    first_offset: int
    last_offset: int
    error: _errors_pb2.Error
    def __init__(self, slot: _Optional[int] = ..., lease: _Optional[int] = ..., first_offset: _Optional[int] = ..., last_offset: _Optional[int] = ..., error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ...) -> None: ...

class Paused(_message.Message):
    __slots__ = ("topic", "partition", "paused", "reason", "offset")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    paused: bool
    reason: PauseReason
    offset: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., paused: _Optional[bool] = ..., reason: _Optional[_Union[PauseReason, str]] = ..., offset: _Optional[int] = ...) -> None: ...

class Committed(_message.Message):
    __slots__ = ("offsets",)
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    offsets: _containers.RepeatedCompositeFieldContainer[CommittedOffset]
    def __init__(self, offsets: _Optional[_Iterable[_Union[CommittedOffset, _Mapping]]] = ...) -> None: ...

class CommittedOffset(_message.Message):
    __slots__ = ("topic", "partition", "offset")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class AckRefused(_message.Message):
    __slots__ = ("range", "error")
    RANGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    range: AckRange
    error: _errors_pb2.Error
    def __init__(self, range: _Optional[_Union[AckRange, _Mapping]] = ..., error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ...) -> None: ...

class TransactRequest(_message.Message):
    __slots__ = ("transaction_id", "appends", "consume")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    APPENDS_FIELD_NUMBER: _ClassVar[int]
    CONSUME_FIELD_NUMBER: _ClassVar[int]
    transaction_id: bytes
    appends: _containers.RepeatedCompositeFieldContainer[TopicRecords]
    consume: _containers.RepeatedCompositeFieldContainer[Consumed]
    def __init__(self, transaction_id: _Optional[bytes] = ..., appends: _Optional[_Iterable[_Union[TopicRecords, _Mapping]]] = ..., consume: _Optional[_Iterable[_Union[Consumed, _Mapping]]] = ...) -> None: ...

class TopicRecords(_message.Message):
    __slots__ = ("topic", "records", "batches", "idempotency_keys")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEYS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    records: _containers.RepeatedCompositeFieldContainer[_records_pb2.Record]
    batches: _containers.RepeatedCompositeFieldContainer[PartitionBatch]
    idempotency_keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, topic: _Optional[str] = ..., records: _Optional[_Iterable[_Union[_records_pb2.Record, _Mapping]]] = ..., batches: _Optional[_Iterable[_Union[PartitionBatch, _Mapping]]] = ..., idempotency_keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Consumed(_message.Message):
    __slots__ = ("group", "session", "offsets", "places")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    group: str
    session: str
    offsets: _containers.RepeatedCompositeFieldContainer[OffsetRuns]
    places: _containers.RepeatedCompositeFieldContainer[PlaceRuns]
    def __init__(self, group: _Optional[str] = ..., session: _Optional[str] = ..., offsets: _Optional[_Iterable[_Union[OffsetRuns, _Mapping]]] = ..., places: _Optional[_Iterable[_Union[PlaceRuns, _Mapping]]] = ...) -> None: ...

class PlaceRuns(_message.Message):
    __slots__ = ("topic", "partition", "fence", "base", "runs")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    fence: int
    base: int
    runs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., fence: _Optional[int] = ..., base: _Optional[int] = ..., runs: _Optional[_Iterable[int]] = ...) -> None: ...

class TransactResponse(_message.Message):
    __slots__ = ("appends", "repeated_call")
    APPENDS_FIELD_NUMBER: _ClassVar[int]
    REPEATED_CALL_FIELD_NUMBER: _ClassVar[int]
    appends: _containers.RepeatedCompositeFieldContainer[TopicAcks]
    repeated_call: bool
    def __init__(self, appends: _Optional[_Iterable[_Union[TopicAcks, _Mapping]]] = ..., repeated_call: _Optional[bool] = ...) -> None: ...

class TopicAcks(_message.Message):
    __slots__ = ("topic", "acks", "positions")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    ACKS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    acks: _containers.RepeatedCompositeFieldContainer[PartitionAck]
    positions: _containers.RepeatedCompositeFieldContainer[RecordPosition]
    def __init__(self, topic: _Optional[str] = ..., acks: _Optional[_Iterable[_Union[PartitionAck, _Mapping]]] = ..., positions: _Optional[_Iterable[_Union[RecordPosition, _Mapping]]] = ...) -> None: ...
