"""Frames between engines, built and checked. No pickle, nothing of PySyncObj's on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.errors import HoldfastError, from_reason
from holdfast.v1 import errors_pb2, log_pb2, peer_pb2

PeerFrame = peer_pb2.PeerFrame

#: Kinds of log entry; PySyncObj's numbers. Version (3) and membership (2)
#: entries are refused: both would be unpickled.
COMMAND = 0
NO_OP = 1
#: What PySyncObj itself appends when it becomes leader.
STOCK_NO_OP = b"\x01"


class Command(NamedTuple):
    """The content of a log entry; what PySyncObj carries as an opaque command."""

    kind: int
    data: bytes


#: As PySyncObj's journal has them: command, index, term.
Entry = tuple[Command, int, int]


class Envelope:
    """Stamps frames with the sender's term and the id of this run of its process."""

    __slots__ = ("boot_id",)

    def __init__(self, boot_id: int) -> None:
        self.boot_id = boot_id

    def append(
        self,
        term: int,
        *,
        prev_index: int,
        prev_term: int,
        commit_index: int,
        round_number: int,
        entries: Sequence[Entry] = (),
        apart: bool = False,
    ) -> PeerFrame:
        """``apart``: the entries' commands go beside the frame."""
        frame = PeerFrame(term=term, boot_id=self.boot_id)
        body = frame.append
        body.prev_index = prev_index
        body.prev_term = prev_term
        body.commit_index = commit_index
        body.round = round_number
        add = body.entries.add
        for (kind, data), index, entry_term in entries:
            add(index=index, term=entry_term, command=b"" if apart else data, kind=kind)
        return frame

    def append_reply(
        self,
        term: int,
        *,
        success: bool,
        match_index: int = 0,
        last_index: int = 0,
        round_number: int = 0,
        rejected_prev: int = 0,
        no_room: bool = False,
        storage_low: bool = False,
        uncounted: bool = False,
        joining: bool = False,
    ) -> PeerFrame:
        return PeerFrame(
            term=term,
            boot_id=self.boot_id,
            append_reply=peer_pb2.AppendReply(
                success=success,
                match_index=match_index,
                last_index=last_index,
                round=round_number,
                rejected_prev=rejected_prev,
                no_room=no_room,
                storage_low=storage_low,
                uncounted=uncounted,
                joining=joining,
            ),
        )

    def vote_request(
        self,
        term: int,
        *,
        for_term: int,
        last_index: int,
        last_term: int,
        pre_vote: bool = False,
        transfer: bool = False,
    ) -> PeerFrame:
        return PeerFrame(
            term=term,
            boot_id=self.boot_id,
            vote_request=peer_pb2.VoteRequest(
                pre_vote=pre_vote,
                term=for_term,
                last_index=last_index,
                last_term=last_term,
                transfer=transfer,
            ),
        )

    def vote_reply(self, term: int, *, for_term: int, granted: bool, pre_vote: bool = False) -> PeerFrame:
        return PeerFrame(
            term=term,
            boot_id=self.boot_id,
            vote_reply=peer_pb2.VoteReply(pre_vote=pre_vote, term=for_term, granted=granted),
        )

    def timeout_now(self, term: int) -> PeerFrame:
        return PeerFrame(term=term, boot_id=self.boot_id, timeout_now=peer_pb2.TimeoutNow())

    def join_query(self, term: int, nonce: int) -> PeerFrame:
        return PeerFrame(term=term, boot_id=self.boot_id, join_query=peer_pb2.JoinQuery(nonce=nonce))

    def join_reply(self, term: int, *, nonce: int, fresh: bool, joined: bool, commit_index: int) -> PeerFrame:
        reply = peer_pb2.JoinReply(nonce=nonce, fresh=fresh, joined=joined, commit_index=commit_index)
        return PeerFrame(term=term, boot_id=self.boot_id, join_reply=reply)

    def snapshot_chunk(self, term: int, chunk: peer_pb2.SnapshotChunk) -> PeerFrame:
        return PeerFrame(term=term, boot_id=self.boot_id, snapshot_chunk=chunk)

    def snapshot_reply(self, term: int, reply: peer_pb2.SnapshotReply) -> PeerFrame:
        return PeerFrame(term=term, boot_id=self.boot_id, snapshot_reply=reply)

    def forward(self, term: int, requests: Sequence[tuple[int, bytes]]) -> PeerFrame:
        """Operations for the leader: (id, op), at least one."""
        frame = PeerFrame(term=term, boot_id=self.boot_id)
        if len(requests) == 1:
            frame.forward_request.id, frame.forward_request.op = requests[0]
        else:
            add = frame.forward_requests.requests.add
            for request_id, op in requests:
                add(id=request_id, op=op)
        return frame

    def forward_replies(self, term: int, replies: Sequence[peer_pb2.ForwardReply]) -> PeerFrame:
        """Answers to forwarded operations, at least one."""
        if len(replies) == 1:
            return PeerFrame(term=term, boot_id=self.boot_id, forward_reply=replies[0])
        return PeerFrame(
            term=term, boot_id=self.boot_id, forward_replies=peer_pb2.ForwardReplies(replies=replies)
        )

    def row_request(self, term: int, request: peer_pb2.RowRequest) -> PeerFrame:
        return PeerFrame(term=term, boot_id=self.boot_id, row_request=request)

    def row_reply(self, term: int, reply: peer_pb2.RowReply) -> PeerFrame:
        return PeerFrame(term=term, boot_id=self.boot_id, row_reply=reply)

    def read_index_request(self, term: int, request_id: int) -> PeerFrame:
        return PeerFrame(
            term=term, boot_id=self.boot_id, read_index_request=peer_pb2.ReadIndexRequest(id=request_id)
        )

    def read_index_reply(
        self, term: int, request_id: int, index: int, error: HoldfastError | None = None
    ) -> PeerFrame:
        body = peer_pb2.ReadIndexReply(id=request_id, index=index)
        if error is not None:
            body.error.CopyFrom(error_to_proto(error))
        return PeerFrame(term=term, boot_id=self.boot_id, read_index_reply=body)


def forward_reply(
    request_id: int, result: log_pb2.OpResult | None, error: HoldfastError | None, index: int
) -> peer_pb2.ForwardReply:
    reply = peer_pb2.ForwardReply(id=request_id, index=index)
    if error is not None:
        reply.error.CopyFrom(error_to_proto(error))
    elif result is not None:
        reply.result = result.SerializeToString()
    return reply


def entries_of(append: peer_pb2.AppendEntries, commands: Sequence[bytes] = ()) -> list[Entry]:
    """The entries of an append, as PySyncObj's journal takes them; ``commands`` when they came beside it."""
    if commands:
        pairs = zip(append.entries, commands, strict=True)
        return [(Command(e.kind, command), e.index, e.term) for e, command in pairs]
    return [(Command(e.kind, e.command), e.index, e.term) for e in append.entries]


def append_fault(append: peer_pb2.AppendEntries) -> str | None:
    """Why an append cannot be what a correct leader sends; None when it can."""
    expected = append.prev_index
    term = append.prev_term
    for entry in append.entries:
        expected += 1
        if entry.index != expected:
            return "indexes_not_contiguous"
        if entry.term < term:
            return "terms_go_back"
        term = entry.term
    return None


def has_foreign_kind(append: peer_pb2.AppendEntries) -> bool:
    """True when an entry is neither a command nor a no-op (14, 15)."""
    return any(entry.kind > NO_OP for entry in append.entries)


def error_to_proto(error: HoldfastError) -> errors_pb2.Error:
    return errors_pb2.Error(
        reason=error.reason,
        message=error.message,
        retriable=error.retriable,
        retry_after_ms=error.retry_after_ms,
        metadata=error.metadata,
    )


def error_from_proto(error: errors_pb2.Error) -> HoldfastError:
    return from_reason(
        error.reason,
        error.message,
        metadata=dict(error.metadata),
        retry_after_ms=error.retry_after_ms,
    )
