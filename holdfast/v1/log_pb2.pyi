from holdfast.v1 import errors_pb2 as _errors_pb2
from holdfast.v1 import bus_pb2 as _bus_pb2
from holdfast.v1 import groups_pb2 as _groups_pb2
from holdfast.v1 import topics_pb2 as _topics_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RetryCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RETRY_CAUSE_UNSPECIFIED: _ClassVar[RetryCause]
    RETRY_CAUSE_NACK: _ClassVar[RetryCause]
    RETRY_CAUSE_EXPIRED: _ClassVar[RetryCause]
    RETRY_CAUSE_LOST: _ClassVar[RetryCause]
    RETRY_CAUSE_PARK: _ClassVar[RetryCause]
    RETRY_CAUSE_REJECT: _ClassVar[RetryCause]
    RETRY_CAUSE_LET_GO: _ClassVar[RetryCause]

class RecordState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECORD_STATE_NONE: _ClassVar[RecordState]
    RECORD_STATE_WAITING: _ClassVar[RecordState]
    RECORD_STATE_PARKED: _ClassVar[RecordState]
    RECORD_STATE_PARKED_FOR_GOOD: _ClassVar[RecordState]
    RECORD_STATE_SUSPECT: _ClassVar[RecordState]
RETRY_CAUSE_UNSPECIFIED: RetryCause
RETRY_CAUSE_NACK: RetryCause
RETRY_CAUSE_EXPIRED: RetryCause
RETRY_CAUSE_LOST: RetryCause
RETRY_CAUSE_PARK: RetryCause
RETRY_CAUSE_REJECT: RetryCause
RETRY_CAUSE_LET_GO: RetryCause
RECORD_STATE_NONE: RecordState
RECORD_STATE_WAITING: RecordState
RECORD_STATE_PARKED: RecordState
RECORD_STATE_PARKED_FOR_GOOD: RecordState
RECORD_STATE_SUSPECT: RecordState

class Op(_message.Message):
    __slots__ = ("append", "create_topic", "update_topic", "delete_topic", "commit_offsets", "trim", "expire_producers", "put_group", "reshape", "settle", "transact", "seek_group", "delete_group", "expire_marks", "sweep", "restore")
    APPEND_FIELD_NUMBER: _ClassVar[int]
    CREATE_TOPIC_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TOPIC_FIELD_NUMBER: _ClassVar[int]
    DELETE_TOPIC_FIELD_NUMBER: _ClassVar[int]
    COMMIT_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    TRIM_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_PRODUCERS_FIELD_NUMBER: _ClassVar[int]
    PUT_GROUP_FIELD_NUMBER: _ClassVar[int]
    RESHAPE_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    TRANSACT_FIELD_NUMBER: _ClassVar[int]
    SEEK_GROUP_FIELD_NUMBER: _ClassVar[int]
    DELETE_GROUP_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_MARKS_FIELD_NUMBER: _ClassVar[int]
    SWEEP_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    append: AppendOp
    create_topic: CreateTopicOp
    update_topic: UpdateTopicOp
    delete_topic: DeleteTopicOp
    commit_offsets: CommitOffsetsOp
    trim: TrimOp
    expire_producers: ExpireProducersOp
    put_group: PutGroupOp
    reshape: ReshapeOp
    settle: SettleOp
    transact: TransactOp
    seek_group: SeekGroupOp
    delete_group: DeleteGroupOp
    expire_marks: ExpireMarksOp
    sweep: SweepOp
    restore: RestoreOp
    def __init__(self, append: _Optional[_Union[AppendOp, _Mapping]] = ..., create_topic: _Optional[_Union[CreateTopicOp, _Mapping]] = ..., update_topic: _Optional[_Union[UpdateTopicOp, _Mapping]] = ..., delete_topic: _Optional[_Union[DeleteTopicOp, _Mapping]] = ..., commit_offsets: _Optional[_Union[CommitOffsetsOp, _Mapping]] = ..., trim: _Optional[_Union[TrimOp, _Mapping]] = ..., expire_producers: _Optional[_Union[ExpireProducersOp, _Mapping]] = ..., put_group: _Optional[_Union[PutGroupOp, _Mapping]] = ..., reshape: _Optional[_Union[ReshapeOp, _Mapping]] = ..., settle: _Optional[_Union[SettleOp, _Mapping]] = ..., transact: _Optional[_Union[TransactOp, _Mapping]] = ..., seek_group: _Optional[_Union[SeekGroupOp, _Mapping]] = ..., delete_group: _Optional[_Union[DeleteGroupOp, _Mapping]] = ..., expire_marks: _Optional[_Union[ExpireMarksOp, _Mapping]] = ..., sweep: _Optional[_Union[SweepOp, _Mapping]] = ..., restore: _Optional[_Union[RestoreOp, _Mapping]] = ...) -> None: ...

class AppendOp(_message.Message):
    __slots__ = ("topic_id", "producer_id", "producer_epoch", "batches")
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    topic_id: int
    producer_id: int
    producer_epoch: int
    batches: _containers.RepeatedCompositeFieldContainer[AppendBatch]
    def __init__(self, topic_id: _Optional[int] = ..., producer_id: _Optional[int] = ..., producer_epoch: _Optional[int] = ..., batches: _Optional[_Iterable[_Union[AppendBatch, _Mapping]]] = ...) -> None: ...

class AppendBatch(_message.Message):
    __slots__ = ("partition", "base_sequence", "count", "length", "min_timestamp_us", "max_timestamp_us", "marks")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BASE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    MIN_TIMESTAMP_US_FIELD_NUMBER: _ClassVar[int]
    MAX_TIMESTAMP_US_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    base_sequence: int
    count: int
    length: int
    min_timestamp_us: int
    max_timestamp_us: int
    marks: bytes
    def __init__(self, partition: _Optional[int] = ..., base_sequence: _Optional[int] = ..., count: _Optional[int] = ..., length: _Optional[int] = ..., min_timestamp_us: _Optional[int] = ..., max_timestamp_us: _Optional[int] = ..., marks: _Optional[bytes] = ...) -> None: ...

class CreateTopicOp(_message.Message):
    __slots__ = ("name", "partitions", "limits", "if_not_exists")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    IF_NOT_EXISTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    partitions: int
    limits: _topics_pb2.TopicLimits
    if_not_exists: bool
    def __init__(self, name: _Optional[str] = ..., partitions: _Optional[int] = ..., limits: _Optional[_Union[_topics_pb2.TopicLimits, _Mapping]] = ..., if_not_exists: _Optional[bool] = ...) -> None: ...

class UpdateTopicOp(_message.Message):
    __slots__ = ("name", "limits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    limits: _topics_pb2.TopicLimits
    def __init__(self, name: _Optional[str] = ..., limits: _Optional[_Union[_topics_pb2.TopicLimits, _Mapping]] = ...) -> None: ...

class DeleteTopicOp(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CommitOffsetsOp(_message.Message):
    __slots__ = ("group", "offsets")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    group: str
    offsets: _containers.RepeatedCompositeFieldContainer[GroupOffset]
    def __init__(self, group: _Optional[str] = ..., offsets: _Optional[_Iterable[_Union[GroupOffset, _Mapping]]] = ...) -> None: ...

class GroupOffset(_message.Message):
    __slots__ = ("topic_id", "partition", "offset", "fence")
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    topic_id: int
    partition: int
    offset: int
    fence: int
    def __init__(self, topic_id: _Optional[int] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., fence: _Optional[int] = ...) -> None: ...

class TrimOp(_message.Message):
    __slots__ = ("topic_id", "partition", "before_offset")
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BEFORE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    topic_id: int
    partition: int
    before_offset: int
    def __init__(self, topic_id: _Optional[int] = ..., partition: _Optional[int] = ..., before_offset: _Optional[int] = ...) -> None: ...

class ExpireProducersOp(_message.Message):
    __slots__ = ("idle_since_us", "limit")
    IDLE_SINCE_US_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    idle_since_us: int
    limit: int
    def __init__(self, idle_since_us: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class OpResult(_message.Message):
    __slots__ = ("error", "append", "topic", "group", "settle", "transact", "marked", "more")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    TRANSACT_FIELD_NUMBER: _ClassVar[int]
    MARKED_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    error: _errors_pb2.Error
    append: _bus_pb2.PublishResponse
    topic: _topics_pb2.Topic
    group: _groups_pb2.Group
    settle: SettleResult
    transact: TransactResult
    marked: _containers.RepeatedCompositeFieldContainer[MarkedRecord]
    more: bool
    def __init__(self, error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ..., append: _Optional[_Union[_bus_pb2.PublishResponse, _Mapping]] = ..., topic: _Optional[_Union[_topics_pb2.Topic, _Mapping]] = ..., group: _Optional[_Union[_groups_pb2.Group, _Mapping]] = ..., settle: _Optional[_Union[SettleResult, _Mapping]] = ..., transact: _Optional[_Union[TransactResult, _Mapping]] = ..., marked: _Optional[_Iterable[_Union[MarkedRecord, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class GroupRow(_message.Message):
    __slots__ = ("definition", "implicit", "created_at_us", "topics_seen")
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    IMPLICIT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_US_FIELD_NUMBER: _ClassVar[int]
    TOPICS_SEEN_FIELD_NUMBER: _ClassVar[int]
    definition: _bus_pb2.GroupDefinition
    implicit: bool
    created_at_us: int
    topics_seen: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, definition: _Optional[_Union[_bus_pb2.GroupDefinition, _Mapping]] = ..., implicit: _Optional[bool] = ..., created_at_us: _Optional[int] = ..., topics_seen: _Optional[_Iterable[int]] = ...) -> None: ...

class PutGroupOp(_message.Message):
    __slots__ = ("group", "definition", "create_only", "implicit")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    CREATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    IMPLICIT_FIELD_NUMBER: _ClassVar[int]
    group: str
    definition: _bus_pb2.GroupDefinition
    create_only: bool
    implicit: bool
    def __init__(self, group: _Optional[str] = ..., definition: _Optional[_Union[_bus_pb2.GroupDefinition, _Mapping]] = ..., create_only: _Optional[bool] = ..., implicit: _Optional[bool] = ...) -> None: ...

class ReshapeOp(_message.Message):
    __slots__ = ("group", "expected", "join", "leave", "owners", "open", "topics_seen")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    TOPICS_SEEN_FIELD_NUMBER: _ClassVar[int]
    group: str
    expected: int
    join: _containers.RepeatedCompositeFieldContainer[MemberRow]
    leave: _containers.RepeatedScalarFieldContainer[str]
    owners: _containers.RepeatedCompositeFieldContainer[OwnerChange]
    open: _containers.RepeatedCompositeFieldContainer[FlowStart]
    topics_seen: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, group: _Optional[str] = ..., expected: _Optional[int] = ..., join: _Optional[_Iterable[_Union[MemberRow, _Mapping]]] = ..., leave: _Optional[_Iterable[str]] = ..., owners: _Optional[_Iterable[_Union[OwnerChange, _Mapping]]] = ..., open: _Optional[_Iterable[_Union[FlowStart, _Mapping]]] = ..., topics_seen: _Optional[_Iterable[int]] = ...) -> None: ...

class MemberRow(_message.Message):
    __slots__ = ("id", "name", "fixed", "grace_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    fixed: bool
    grace_ms: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., fixed: _Optional[bool] = ..., grace_ms: _Optional[int] = ...) -> None: ...

class OwnerChange(_message.Message):
    __slots__ = ("topic_id", "partition", "member")
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    topic_id: int
    partition: int
    member: str
    def __init__(self, topic_id: _Optional[int] = ..., partition: _Optional[int] = ..., member: _Optional[str] = ...) -> None: ...

class FlowStart(_message.Message):
    __slots__ = ("topic_id", "partition", "offset")
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    topic_id: int
    partition: int
    offset: int
    def __init__(self, topic_id: _Optional[int] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class SettleOp(_message.Message):
    __slots__ = ("group", "flows", "dead")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    group: str
    flows: _containers.RepeatedCompositeFieldContainer[FlowSettle]
    dead: _containers.RepeatedCompositeFieldContainer[AppendOp]
    def __init__(self, group: _Optional[str] = ..., flows: _Optional[_Iterable[_Union[FlowSettle, _Mapping]]] = ..., dead: _Optional[_Iterable[_Union[AppendOp, _Mapping]]] = ...) -> None: ...

class FlowSettle(_message.Message):
    __slots__ = ("topic_id", "partition", "fence", "floor", "base", "runs", "retries")
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    topic_id: int
    partition: int
    fence: int
    floor: int
    base: int
    runs: _containers.RepeatedScalarFieldContainer[int]
    retries: _containers.RepeatedCompositeFieldContainer[RetryItem]
    def __init__(self, topic_id: _Optional[int] = ..., partition: _Optional[int] = ..., fence: _Optional[int] = ..., floor: _Optional[int] = ..., base: _Optional[int] = ..., runs: _Optional[_Iterable[int]] = ..., retries: _Optional[_Iterable[_Union[RetryItem, _Mapping]]] = ...) -> None: ...

class RetryItem(_message.Message):
    __slots__ = ("offset", "cause", "delay_ms", "lane", "error", "dead")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    offset: int
    cause: RetryCause
    delay_ms: int
    lane: int
    error: str
    dead: bool
    def __init__(self, offset: _Optional[int] = ..., cause: _Optional[_Union[RetryCause, str]] = ..., delay_ms: _Optional[int] = ..., lane: _Optional[int] = ..., error: _Optional[str] = ..., dead: _Optional[bool] = ...) -> None: ...

class TransactOp(_message.Message):
    __slots__ = ("transaction_id", "appends", "consume", "keep_ms", "unleased")
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    APPENDS_FIELD_NUMBER: _ClassVar[int]
    CONSUME_FIELD_NUMBER: _ClassVar[int]
    KEEP_MS_FIELD_NUMBER: _ClassVar[int]
    UNLEASED_FIELD_NUMBER: _ClassVar[int]
    transaction_id: bytes
    appends: _containers.RepeatedCompositeFieldContainer[AppendOp]
    consume: _containers.RepeatedCompositeFieldContainer[SettleOp]
    keep_ms: int
    unleased: bool
    def __init__(self, transaction_id: _Optional[bytes] = ..., appends: _Optional[_Iterable[_Union[AppendOp, _Mapping]]] = ..., consume: _Optional[_Iterable[_Union[SettleOp, _Mapping]]] = ..., keep_ms: _Optional[int] = ..., unleased: _Optional[bool] = ...) -> None: ...

class SeekGroupOp(_message.Message):
    __slots__ = ("group", "flows")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    group: str
    flows: _containers.RepeatedCompositeFieldContainer[FlowStart]
    def __init__(self, group: _Optional[str] = ..., flows: _Optional[_Iterable[_Union[FlowStart, _Mapping]]] = ...) -> None: ...

class DeleteGroupOp(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: str
    def __init__(self, group: _Optional[str] = ...) -> None: ...

class ExpireMarksOp(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class SweepOp(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class RestoreOp(_message.Message):
    __slots__ = ("group", "flows", "settle")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    SETTLE_FIELD_NUMBER: _ClassVar[int]
    group: str
    flows: _containers.RepeatedCompositeFieldContainer[FlowSettle]
    settle: bool
    def __init__(self, group: _Optional[str] = ..., flows: _Optional[_Iterable[_Union[FlowSettle, _Mapping]]] = ..., settle: _Optional[bool] = ...) -> None: ...

class SettleResult(_message.Message):
    __slots__ = ("flows",)
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    flows: _containers.RepeatedCompositeFieldContainer[FlowState]
    def __init__(self, flows: _Optional[_Iterable[_Union[FlowState, _Mapping]]] = ...) -> None: ...

class FlowState(_message.Message):
    __slots__ = ("topic_id", "partition", "floor", "retries")
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    topic_id: int
    partition: int
    floor: int
    retries: _containers.RepeatedCompositeFieldContainer[RetryState]
    def __init__(self, topic_id: _Optional[int] = ..., partition: _Optional[int] = ..., floor: _Optional[int] = ..., retries: _Optional[_Iterable[_Union[RetryState, _Mapping]]] = ...) -> None: ...

class RetryState(_message.Message):
    __slots__ = ("offset", "attempts", "due_us", "state")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    DUE_US_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    offset: int
    attempts: int
    due_us: int
    state: RecordState
    def __init__(self, offset: _Optional[int] = ..., attempts: _Optional[int] = ..., due_us: _Optional[int] = ..., state: _Optional[_Union[RecordState, str]] = ...) -> None: ...

class TransactResult(_message.Message):
    __slots__ = ("appends", "repeated_call")
    APPENDS_FIELD_NUMBER: _ClassVar[int]
    REPEATED_CALL_FIELD_NUMBER: _ClassVar[int]
    appends: _containers.RepeatedCompositeFieldContainer[_bus_pb2.TopicAcks]
    repeated_call: bool
    def __init__(self, appends: _Optional[_Iterable[_Union[_bus_pb2.TopicAcks, _Mapping]]] = ..., repeated_call: _Optional[bool] = ...) -> None: ...

class MarkedRecord(_message.Message):
    __slots__ = ("batch", "index", "partition", "offset")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    batch: int
    index: int
    partition: int
    offset: int
    def __init__(self, batch: _Optional[int] = ..., index: _Optional[int] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...
