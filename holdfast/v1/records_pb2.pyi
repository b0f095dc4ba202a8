from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Compression(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPRESSION_NONE: _ClassVar[Compression]
    COMPRESSION_ZSTD: _ClassVar[Compression]
COMPRESSION_NONE: Compression
COMPRESSION_ZSTD: Compression

class Record(_message.Message):
    __slots__ = ("key", "value", "timestamp_us", "headers", "topic", "partition", "offset", "append_time_us", "attempts")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_US_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    timestamp_us: int
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    topic: str
    partition: int
    offset: int
    append_time_us: int
    attempts: int
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., timestamp_us: _Optional[int] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., append_time_us: _Optional[int] = ..., attempts: _Optional[int] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class Records(_message.Message):
    __slots__ = ("values", "keys", "base_timestamp_us", "timestamp_deltas_us", "headers")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    BASE_TIMESTAMP_US_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_DELTAS_US_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[bytes]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    base_timestamp_us: int
    timestamp_deltas_us: _containers.RepeatedScalarFieldContainer[int]
    headers: _containers.RepeatedCompositeFieldContainer[RecordHeaders]
    def __init__(self, values: _Optional[_Iterable[bytes]] = ..., keys: _Optional[_Iterable[bytes]] = ..., base_timestamp_us: _Optional[int] = ..., timestamp_deltas_us: _Optional[_Iterable[int]] = ..., headers: _Optional[_Iterable[_Union[RecordHeaders, _Mapping]]] = ...) -> None: ...

class RecordHeaders(_message.Message):
    __slots__ = ("index", "headers")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    index: int
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    def __init__(self, index: _Optional[int] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ...) -> None: ...

class RecordBatch(_message.Message):
    __slots__ = ("count", "compression", "crc32c", "records")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    count: int
    compression: Compression
    crc32c: int
    records: bytes
    def __init__(self, count: _Optional[int] = ..., compression: _Optional[_Union[Compression, str]] = ..., crc32c: _Optional[int] = ..., records: _Optional[bytes] = ...) -> None: ...

class StoredBatch(_message.Message):
    __slots__ = ("topic", "partition", "base_offset", "append_time_us", "first_offset", "last_offset", "batch")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BASE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_US_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    base_offset: int
    append_time_us: int
    first_offset: int
    last_offset: int
    batch: bytes
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., base_offset: _Optional[int] = ..., append_time_us: _Optional[int] = ..., first_offset: _Optional[int] = ..., last_offset: _Optional[int] = ..., batch: _Optional[bytes] = ...) -> None: ...
