from holdfast.v1 import errors_pb2 as _errors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PeerFrame(_message.Message):
    __slots__ = ("term", "boot_id", "hello", "append", "append_reply", "vote_request", "vote_reply", "snapshot_chunk", "snapshot_reply", "forward_request", "forward_reply", "read_index_request", "read_index_reply", "timeout_now", "forward_requests", "forward_replies", "join_query", "join_reply", "row_request", "row_reply")
    TERM_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    APPEND_REPLY_FIELD_NUMBER: _ClassVar[int]
    VOTE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    VOTE_REPLY_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_CHUNK_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_REPLY_FIELD_NUMBER: _ClassVar[int]
    FORWARD_REQUEST_FIELD_NUMBER: _ClassVar[int]
    FORWARD_REPLY_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_REQUEST_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_REPLY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_NOW_FIELD_NUMBER: _ClassVar[int]
    FORWARD_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_REPLIES_FIELD_NUMBER: _ClassVar[int]
    JOIN_QUERY_FIELD_NUMBER: _ClassVar[int]
    JOIN_REPLY_FIELD_NUMBER: _ClassVar[int]
    ROW_REQUEST_FIELD_NUMBER: _ClassVar[int]
    ROW_REPLY_FIELD_NUMBER: _ClassVar[int]
    term: int
    boot_id: int
    hello: Hello
    append: AppendEntries
    append_reply: AppendReply
    vote_request: VoteRequest
    vote_reply: VoteReply
    snapshot_chunk: SnapshotChunk
    snapshot_reply: SnapshotReply
    forward_request: ForwardRequest
    forward_reply: ForwardReply
    read_index_request: ReadIndexRequest
    read_index_reply: ReadIndexReply
    timeout_now: TimeoutNow
    forward_requests: ForwardRequests
    forward_replies: ForwardReplies
    join_query: JoinQuery
    join_reply: JoinReply
    row_request: RowRequest
    row_reply: RowReply
    def __init__(self, term: _Optional[int] = ..., boot_id: _Optional[int] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., append: _Optional[_Union[AppendEntries, _Mapping]] = ..., append_reply: _Optional[_Union[AppendReply, _Mapping]] = ..., vote_request: _Optional[_Union[VoteRequest, _Mapping]] = ..., vote_reply: _Optional[_Union[VoteReply, _Mapping]] = ..., snapshot_chunk: _Optional[_Union[SnapshotChunk, _Mapping]] = ..., snapshot_reply: _Optional[_Union[SnapshotReply, _Mapping]] = ..., forward_request: _Optional[_Union[ForwardRequest, _Mapping]] = ..., forward_reply: _Optional[_Union[ForwardReply, _Mapping]] = ..., read_index_request: _Optional[_Union[ReadIndexRequest, _Mapping]] = ..., read_index_reply: _Optional[_Union[ReadIndexReply, _Mapping]] = ..., timeout_now: _Optional[_Union[TimeoutNow, _Mapping]] = ..., forward_requests: _Optional[_Union[ForwardRequests, _Mapping]] = ..., forward_replies: _Optional[_Union[ForwardReplies, _Mapping]] = ..., join_query: _Optional[_Union[JoinQuery, _Mapping]] = ..., join_reply: _Optional[_Union[JoinReply, _Mapping]] = ..., row_request: _Optional[_Union[RowRequest, _Mapping]] = ..., row_reply: _Optional[_Union[RowReply, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "cluster_id", "node_id", "software_version", "client_address")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    cluster_id: str
    node_id: str
    software_version: str
    client_address: str
    def __init__(self, protocol_version: _Optional[int] = ..., cluster_id: _Optional[str] = ..., node_id: _Optional[str] = ..., software_version: _Optional[str] = ..., client_address: _Optional[str] = ...) -> None: ...

class LogEntry(_message.Message):
    __slots__ = ("index", "term", "command", "kind")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    command: bytes
    kind: int
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., command: _Optional[bytes] = ..., kind: _Optional[int] = ...) -> None: ...

class AppendEntries(_message.Message):
    __slots__ = ("prev_index", "prev_term", "commit_index", "entries", "round")
    PREV_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREV_TERM_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    prev_index: int
    prev_term: int
    commit_index: int
    entries: _containers.RepeatedCompositeFieldContainer[LogEntry]
    round: int
    def __init__(self, prev_index: _Optional[int] = ..., prev_term: _Optional[int] = ..., commit_index: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[LogEntry, _Mapping]]] = ..., round: _Optional[int] = ...) -> None: ...

class AppendReply(_message.Message):
    __slots__ = ("success", "match_index", "last_index", "round", "rejected_prev", "no_room", "storage_low", "uncounted", "joining")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MATCH_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    REJECTED_PREV_FIELD_NUMBER: _ClassVar[int]
    NO_ROOM_FIELD_NUMBER: _ClassVar[int]
    STORAGE_LOW_FIELD_NUMBER: _ClassVar[int]
    UNCOUNTED_FIELD_NUMBER: _ClassVar[int]
    JOINING_FIELD_NUMBER: _ClassVar[int]
    success: bool
    match_index: int
    last_index: int
    round: int
    rejected_prev: int
    no_room: bool
    storage_low: bool
    uncounted: bool
    joining: bool
    def __init__(self, success: _Optional[bool] = ..., match_index: _Optional[int] = ..., last_index: _Optional[int] = ..., round: _Optional[int] = ..., rejected_prev: _Optional[int] = ..., no_room: _Optional[bool] = ..., storage_low: _Optional[bool] = ..., uncounted: _Optional[bool] = ..., joining: _Optional[bool] = ...) -> None: ...

class VoteRequest(_message.Message):
    __slots__ = ("pre_vote", "term", "last_index", "last_term", "transfer")
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_TERM_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    pre_vote: bool
    term: int
    last_index: int
    last_term: int
    transfer: bool
    def __init__(self, pre_vote: _Optional[bool] = ..., term: _Optional[int] = ..., last_index: _Optional[int] = ..., last_term: _Optional[int] = ..., transfer: _Optional[bool] = ...) -> None: ...

class VoteReply(_message.Message):
    __slots__ = ("pre_vote", "term", "granted")
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    pre_vote: bool
    term: int
    granted: bool
    def __init__(self, pre_vote: _Optional[bool] = ..., term: _Optional[int] = ..., granted: _Optional[bool] = ...) -> None: ...

class SnapshotChunk(_message.Message):
    __slots__ = ("snapshot_id", "offset", "crc32c", "data", "last", "last_index", "last_term", "round", "store_bytes")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_TERM_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: int
    offset: int
    crc32c: int
    data: bytes
    last: bool
    last_index: int
    last_term: int
    round: int
    store_bytes: int
    def __init__(self, snapshot_id: _Optional[int] = ..., offset: _Optional[int] = ..., crc32c: _Optional[int] = ..., data: _Optional[bytes] = ..., last: _Optional[bool] = ..., last_index: _Optional[int] = ..., last_term: _Optional[int] = ..., round: _Optional[int] = ..., store_bytes: _Optional[int] = ...) -> None: ...

class SnapshotReply(_message.Message):
    __slots__ = ("snapshot_id", "next_offset", "installed", "refused", "round", "uncounted")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    UNCOUNTED_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: int
    next_offset: int
    installed: bool
    refused: bool
    round: int
    uncounted: bool
    def __init__(self, snapshot_id: _Optional[int] = ..., next_offset: _Optional[int] = ..., installed: _Optional[bool] = ..., refused: _Optional[bool] = ..., round: _Optional[int] = ..., uncounted: _Optional[bool] = ...) -> None: ...

class ForwardRequest(_message.Message):
    __slots__ = ("id", "op")
    ID_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    id: int
    op: bytes
    def __init__(self, id: _Optional[int] = ..., op: _Optional[bytes] = ...) -> None: ...

class ForwardReply(_message.Message):
    __slots__ = ("id", "result", "error", "index")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    id: int
    result: bytes
    error: _errors_pb2.Error
    index: int
    def __init__(self, id: _Optional[int] = ..., result: _Optional[bytes] = ..., error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ..., index: _Optional[int] = ...) -> None: ...

class ForwardRequests(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ForwardRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ForwardRequest, _Mapping]]] = ...) -> None: ...

class ForwardReplies(_message.Message):
    __slots__ = ("replies",)
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[ForwardReply]
    def __init__(self, replies: _Optional[_Iterable[_Union[ForwardReply, _Mapping]]] = ...) -> None: ...

class ReadIndexRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ReadIndexReply(_message.Message):
    __slots__ = ("id", "index", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    index: int
    error: _errors_pb2.Error
    def __init__(self, id: _Optional[int] = ..., index: _Optional[int] = ..., error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ...) -> None: ...

class TimeoutNow(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JoinQuery(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("nonce", "fresh", "joined", "commit_index")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    COMMIT_INDEX_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    fresh: bool
    joined: bool
    commit_index: int
    def __init__(self, nonce: _Optional[int] = ..., fresh: _Optional[bool] = ..., joined: _Optional[bool] = ..., commit_index: _Optional[int] = ...) -> None: ...

class RowRequest(_message.Message):
    __slots__ = ("id", "index", "term", "index_key")
    ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    INDEX_KEY_FIELD_NUMBER: _ClassVar[int]
    id: int
    index: int
    term: int
    index_key: bytes
    def __init__(self, id: _Optional[int] = ..., index: _Optional[int] = ..., term: _Optional[int] = ..., index_key: _Optional[bytes] = ...) -> None: ...

class RowReply(_message.Message):
    __slots__ = ("id", "found", "index", "term", "kind", "command", "crc32c", "committed", "index_key", "index_row")
    ID_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    INDEX_KEY_FIELD_NUMBER: _ClassVar[int]
    INDEX_ROW_FIELD_NUMBER: _ClassVar[int]
    id: int
    found: bool
    index: int
    term: int
    kind: int
    command: bytes
    crc32c: int
    committed: bool
    index_key: bytes
    index_row: bytes
    def __init__(self, id: _Optional[int] = ..., found: _Optional[bool] = ..., index: _Optional[int] = ..., term: _Optional[int] = ..., kind: _Optional[int] = ..., command: _Optional[bytes] = ..., crc32c: _Optional[int] = ..., committed: _Optional[bool] = ..., index_key: _Optional[bytes] = ..., index_row: _Optional[bytes] = ...) -> None: ...
