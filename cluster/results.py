"""What the engine tells the rest of the broker: results, progress, status.

All are immutable and safe to hand from the engine thread to any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from holdfast.errors import HoldfastError
from holdfast.v1 import log_pb2


class Role(StrEnum):
    """A voter's part in the current term."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of one proposal or read barrier.

    ``token`` is what the caller handed in. Exactly one of ``result`` and
    ``error`` is set for a proposal; a read barrier that succeeded has neither.
    ``index`` is the log index the operation was applied at (proposal) or that
    is now visible here (barrier); 0 with an error.
    """

    token: object
    result: log_pb2.OpResult | None
    error: HoldfastError | None
    index: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Where this node stands after a turn.

    ``applied_index`` is what the state machine has executed; ``visible_index``
    (never higher) is what a store snapshot taken from now on shows: whoever reads
    the store after a result waits for it to be reached.
    ``touched`` names the partitions that changed and became visible since the
    last report, ``groups`` those whose definition or positions somebody else than their
    coordinator has changed since; ``topics_index`` is the last applied entry that may have
    changed a topic's definition.
    """

    applied_index: int
    commit_index: int
    term: int
    role: Role
    leader_id: str | None
    touched: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    visible_index: int = 0
    topics_index: int = 0
    groups: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One other voter as seen from here; ``match_index`` is known to a leader only (else 0)."""

    node_id: str
    connected: bool
    match_index: int


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A moment of the engine; from any thread."""

    node_id: str
    role: Role
    term: int
    leader_id: str | None
    commit_index: int
    applied_index: int
    visible_index: int
    first_log_index: int
    last_log_index: int
    durable_index: int
    peers: tuple[PeerStatus, ...]
    accepting_writes: bool
    pending_proposals: int
    #: It lost its disk and does not vote until that can do no harm.
    joining: bool = False


class ResultSink(Protocol):
    """Where results go; ``rpc`` carries them to its event loop."""

    def deliver(self, completed: Sequence[Completed], progress: Progress) -> None:
        """Called on the engine thread, at most once a turn: results, and what has changed.

        Must not block and must not raise.
        """
        ...
