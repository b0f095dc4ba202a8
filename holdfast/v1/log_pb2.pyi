from holdfast.v1 import errors_pb2 as _errors_pb2
from holdfast.v1 import bus_pb2 as _bus_pb2
from holdfast.v1 import topics_pb2 as _topics_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Op(_message.Message):
    __slots__ = ("append", "create_topic", "update_topic", "delete_topic", "commit_offsets", "trim", "expire_producers")
    APPEND_FIELD_NUMBER: _ClassVar[int]
    CREATE_TOPIC_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TOPIC_FIELD_NUMBER: _ClassVar[int]
    DELETE_TOPIC_FIELD_NUMBER: _ClassVar[int]
    COMMIT_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    TRIM_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_PRODUCERS_FIELD_NUMBER: _ClassVar[int]
    append: AppendOp
    create_topic: CreateTopicOp
    update_topic: UpdateTopicOp
    delete_topic: DeleteTopicOp
    commit_offsets: CommitOffsetsOp
    trim: TrimOp
    expire_producers: ExpireProducersOp
    def __init__(self, append: _Optional[_Union[AppendOp, _Mapping]] = ..., create_topic: _Optional[_Union[CreateTopicOp, _Mapping]] = ..., update_topic: _Optional[_Union[UpdateTopicOp, _Mapping]] = ..., delete_topic: _Optional[_Union[DeleteTopicOp, _Mapping]] = ..., commit_offsets: _Optional[_Union[CommitOffsetsOp, _Mapping]] = ..., trim: _Optional[_Union[TrimOp, _Mapping]] = ..., expire_producers: _Optional[_Union[ExpireProducersOp, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("partition", "base_sequence", "count", "length", "min_timestamp_us", "max_timestamp_us")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BASE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    MIN_TIMESTAMP_US_FIELD_NUMBER: _ClassVar[int]
    MAX_TIMESTAMP_US_FIELD_NUMBER: _ClassVar[int]
    partition: int
    base_sequence: int
    count: int
    length: int
    min_timestamp_us: int
    max_timestamp_us: int
    def __init__(self, partition: _Optional[int] = ..., base_sequence: _Optional[int] = ..., count: _Optional[int] = ..., length: _Optional[int] = ..., min_timestamp_us: _Optional[int] = ..., max_timestamp_us: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("topic_id", "partition", "offset")
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    topic_id: int
    partition: int
    offset: int
    def __init__(self, topic_id: _Optional[int] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("error", "append", "topic")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    error: _errors_pb2.Error
    append: _bus_pb2.PublishResponse
    topic: _topics_pb2.Topic
    def __init__(self, error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ..., append: _Optional[_Union[_bus_pb2.PublishResponse, _Mapping]] = ..., topic: _Optional[_Union[_topics_pb2.Topic, _Mapping]] = ...) -> None: ...
