from holdfast.v1 import bus_pb2 as _bus_pb2
from holdfast.v1 import errors_pb2 as _errors_pb2
from holdfast.v1 import records_pb2 as _records_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Group(_message.Message):
    __slots__ = ("name", "definition", "generation", "implicit", "created_at_us", "members", "partitions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    IMPLICIT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_US_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    definition: _bus_pb2.GroupDefinition
    generation: int
    implicit: bool
    created_at_us: int
    members: _containers.RepeatedCompositeFieldContainer[GroupMember]
    partitions: _containers.RepeatedCompositeFieldContainer[GroupPartition]
    def __init__(self, name: _Optional[str] = ..., definition: _Optional[_Union[_bus_pb2.GroupDefinition, _Mapping]] = ..., generation: _Optional[int] = ..., implicit: _Optional[bool] = ..., created_at_us: _Optional[int] = ..., members: _Optional[_Iterable[_Union[GroupMember, _Mapping]]] = ..., partitions: _Optional[_Iterable[_Union[GroupPartition, _Mapping]]] = ...) -> None: ...

class GroupMember(_message.Message):
    __slots__ = ("id", "name", "fixed", "grace_ms", "joined_at_us")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    JOINED_AT_US_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    fixed: bool
    grace_ms: int
    joined_at_us: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., fixed: _Optional[bool] = ..., grace_ms: _Optional[int] = ..., joined_at_us: _Optional[int] = ...) -> None: ...

class GroupPartition(_message.Message):
    __slots__ = ("topic", "partition", "floor", "settled_above", "retrying", "owner", "fence")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    SETTLED_ABOVE_FIELD_NUMBER: _ClassVar[int]
    RETRYING_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    floor: int
    settled_above: int
    retrying: int
    owner: str
    fence: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., floor: _Optional[int] = ..., settled_above: _Optional[int] = ..., retrying: _Optional[int] = ..., owner: _Optional[str] = ..., fence: _Optional[int] = ...) -> None: ...

class PutGroupRequest(_message.Message):
    __slots__ = ("name", "definition", "create_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    CREATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    definition: _bus_pb2.GroupDefinition
    create_only: bool
    def __init__(self, name: _Optional[str] = ..., definition: _Optional[_Union[_bus_pb2.GroupDefinition, _Mapping]] = ..., create_only: _Optional[bool] = ...) -> None: ...

class GetGroupRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: str
    limit: int
    def __init__(self, after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListGroupsResponse(_message.Message):
    __slots__ = ("groups", "next")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    next: str
    def __init__(self, groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class SeekGroupRequest(_message.Message):
    __slots__ = ("name", "topic", "partitions", "to")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    name: str
    topic: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    to: _bus_pb2.Position
    def __init__(self, name: _Optional[str] = ..., topic: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ..., to: _Optional[_Union[_bus_pb2.Position, _Mapping]] = ...) -> None: ...

class DeleteGroupRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteGroupResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLagRequest(_message.Message):
    __slots__ = ("group", "linearizable", "after", "limit")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    LINEARIZABLE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    group: str
    linearizable: bool
    after: str
    limit: int
    def __init__(self, group: _Optional[str] = ..., linearizable: _Optional[bool] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class GetLagResponse(_message.Message):
    __slots__ = ("lags", "as_of_us", "next", "applied_index")
    LAGS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_US_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    lags: _containers.RepeatedCompositeFieldContainer[PartitionLag]
    as_of_us: int
    next: str
    applied_index: int
    def __init__(self, lags: _Optional[_Iterable[_Union[PartitionLag, _Mapping]]] = ..., as_of_us: _Optional[int] = ..., next: _Optional[str] = ..., applied_index: _Optional[int] = ...) -> None: ...

class PartitionLag(_message.Message):
    __slots__ = ("group", "topic", "partition", "records", "oldest_append_us", "seconds", "floor", "end", "retrying", "parked")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_APPEND_US_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    RETRYING_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    group: str
    topic: str
    partition: int
    records: int
    oldest_append_us: int
    seconds: float
    floor: int
    end: int
    retrying: int
    parked: int
    def __init__(self, group: _Optional[str] = ..., topic: _Optional[str] = ..., partition: _Optional[int] = ..., records: _Optional[int] = ..., oldest_append_us: _Optional[int] = ..., seconds: _Optional[float] = ..., floor: _Optional[int] = ..., end: _Optional[int] = ..., retrying: _Optional[int] = ..., parked: _Optional[int] = ...) -> None: ...

class ListRetriesRequest(_message.Message):
    __slots__ = ("group", "parked_only", "after", "limit")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PARKED_ONLY_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    group: str
    parked_only: bool
    after: RetryPlace
    limit: int
    def __init__(self, group: _Optional[str] = ..., parked_only: _Optional[bool] = ..., after: _Optional[_Union[RetryPlace, _Mapping]] = ..., limit: _Optional[int] = ...) -> None: ...

class RetryPlace(_message.Message):
    __slots__ = ("topic", "partition", "offset")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class ListRetriesResponse(_message.Message):
    __slots__ = ("retries", "next")
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    retries: _containers.RepeatedCompositeFieldContainer[Retry]
    next: RetryPlace
    def __init__(self, retries: _Optional[_Iterable[_Union[Retry, _Mapping]]] = ..., next: _Optional[_Union[RetryPlace, _Mapping]] = ...) -> None: ...

class Retry(_message.Message):
    __slots__ = ("place", "attempts", "losses", "parked", "due_us", "first_failed_us", "errors")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    DUE_US_FIELD_NUMBER: _ClassVar[int]
    FIRST_FAILED_US_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    place: RetryPlace
    attempts: int
    losses: int
    parked: bool
    due_us: int
    first_failed_us: int
    errors: _containers.RepeatedCompositeFieldContainer[AttemptError]
    def __init__(self, place: _Optional[_Union[RetryPlace, _Mapping]] = ..., attempts: _Optional[int] = ..., losses: _Optional[int] = ..., parked: _Optional[bool] = ..., due_us: _Optional[int] = ..., first_failed_us: _Optional[int] = ..., errors: _Optional[_Iterable[_Union[AttemptError, _Mapping]]] = ...) -> None: ...

class AttemptError(_message.Message):
    __slots__ = ("time_us", "error")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    error: str
    def __init__(self, time_us: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("group", "places", "discard")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    group: str
    places: _containers.RepeatedCompositeFieldContainer[RetryPlace]
    discard: bool
    def __init__(self, group: _Optional[str] = ..., places: _Optional[_Iterable[_Union[RetryPlace, _Mapping]]] = ..., discard: _Optional[bool] = ...) -> None: ...

class RestoreResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: int
    def __init__(self, records: _Optional[int] = ...) -> None: ...

class DeadLetterFilter(_message.Message):
    __slots__ = ("group", "origin_topic", "error_contains", "key", "from_us", "to_us", "offsets", "partition")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_TOPIC_FIELD_NUMBER: _ClassVar[int]
    ERROR_CONTAINS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    FROM_US_FIELD_NUMBER: _ClassVar[int]
    TO_US_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    group: str
    origin_topic: str
    error_contains: str
    key: bytes
    from_us: int
    to_us: int
    offsets: _containers.RepeatedScalarFieldContainer[int]
    partition: int
    def __init__(self, group: _Optional[str] = ..., origin_topic: _Optional[str] = ..., error_contains: _Optional[str] = ..., key: _Optional[bytes] = ..., from_us: _Optional[int] = ..., to_us: _Optional[int] = ..., offsets: _Optional[_Iterable[int]] = ..., partition: _Optional[int] = ...) -> None: ...

class ListDeadLettersRequest(_message.Message):
    __slots__ = ("topic", "filter", "limit", "brief")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BRIEF_FIELD_NUMBER: _ClassVar[int]
    topic: str
    filter: DeadLetterFilter
    limit: int
    brief: bool
    def __init__(self, topic: _Optional[str] = ..., filter: _Optional[_Union[DeadLetterFilter, _Mapping]] = ..., limit: _Optional[int] = ..., brief: _Optional[bool] = ...) -> None: ...

class DeadLetterPage(_message.Message):
    __slots__ = ("letters",)
    LETTERS_FIELD_NUMBER: _ClassVar[int]
    letters: _containers.RepeatedCompositeFieldContainer[DeadLetter]
    def __init__(self, letters: _Optional[_Iterable[_Union[DeadLetter, _Mapping]]] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("topic", "partition", "offset", "group", "origin_topic", "origin_partition", "origin_offset", "origin_append_us", "attempts", "errors", "first_failed_us", "dead_us", "redrives", "record")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_TOPIC_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_PARTITION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_APPEND_US_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FAILED_US_FIELD_NUMBER: _ClassVar[int]
    DEAD_US_FIELD_NUMBER: _ClassVar[int]
    REDRIVES_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    group: str
    origin_topic: str
    origin_partition: int
    origin_offset: int
    origin_append_us: int
    attempts: int
    errors: _containers.RepeatedCompositeFieldContainer[AttemptError]
    first_failed_us: int
    dead_us: int
    redrives: int
    record: _records_pb2.Record
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., group: _Optional[str] = ..., origin_topic: _Optional[str] = ..., origin_partition: _Optional[int] = ..., origin_offset: _Optional[int] = ..., origin_append_us: _Optional[int] = ..., attempts: _Optional[int] = ..., errors: _Optional[_Iterable[_Union[AttemptError, _Mapping]]] = ..., first_failed_us: _Optional[int] = ..., dead_us: _Optional[int] = ..., redrives: _Optional[int] = ..., record: _Optional[_Union[_records_pb2.Record, _Mapping]] = ...) -> None: ...

class RedriveRequest(_message.Message):
    __slots__ = ("topic", "filter", "dry_run", "per_second", "limit", "to", "force")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    topic: str
    filter: DeadLetterFilter
    dry_run: bool
    per_second: int
    limit: int
    to: str
    force: bool
    def __init__(self, topic: _Optional[str] = ..., filter: _Optional[_Union[DeadLetterFilter, _Mapping]] = ..., dry_run: _Optional[bool] = ..., per_second: _Optional[int] = ..., limit: _Optional[int] = ..., to: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class RedriveProgress(_message.Message):
    __slots__ = ("matched", "redriven", "refused", "last_error", "done", "sample")
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    REDRIVEN_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    matched: int
    redriven: int
    refused: int
    last_error: _errors_pb2.Error
    done: bool
    sample: _containers.RepeatedCompositeFieldContainer[DeadLetter]
    def __init__(self, matched: _Optional[int] = ..., redriven: _Optional[int] = ..., refused: _Optional[int] = ..., last_error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ..., done: _Optional[bool] = ..., sample: _Optional[_Iterable[_Union[DeadLetter, _Mapping]]] = ...) -> None: ...

class DiscardRequest(_message.Message):
    __slots__ = ("topic", "filter", "dry_run", "limit")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    topic: str
    filter: DeadLetterFilter
    dry_run: bool
    limit: int
    def __init__(self, topic: _Optional[str] = ..., filter: _Optional[_Union[DeadLetterFilter, _Mapping]] = ..., dry_run: _Optional[bool] = ..., limit: _Optional[int] = ...) -> None: ...

class DiscardProgress(_message.Message):
    __slots__ = ("matched", "discarded", "done", "sample")
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    DISCARDED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    matched: int
    discarded: int
    done: bool
    sample: _containers.RepeatedCompositeFieldContainer[DeadLetter]
    def __init__(self, matched: _Optional[int] = ..., discarded: _Optional[int] = ..., done: _Optional[bool] = ..., sample: _Optional[_Iterable[_Union[DeadLetter, _Mapping]]] = ...) -> None: ...
