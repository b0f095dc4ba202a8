"""What the consensus core needs of those who drive it: a state machine, and callers to answer."""

from __future__ import annotations

from typing import Protocol

from holdfast.cluster.raft.messages import PeerFrame
from holdfast.storage.port import Writer
from holdfast.v1 import log_pb2


class AppliedLike(Protocol):
    """What applying one entry gave."""

    @property
    def results(self) -> list[log_pb2.OpResult]: ...

    @property
    def touched(self) -> set[tuple[int, int]]: ...

    @property
    def topics_changed(self) -> bool: ...

    @property
    def groups_changed(self) -> set[str]: ...


class MachineLike(Protocol):
    """The deterministic state machine: total; it raises only when the store does."""

    def apply(self, writer: Writer, index: int, entry: bytes, /) -> AppliedLike: ...

    def reset(self) -> None: ...


class Host(Protocol):
    """What the core calls back, on the engine's thread."""

    def append_proposals(self, now: float) -> None: ...

    def applied(self, index: int, term: int, results: list[log_pb2.OpResult]) -> None: ...

    def leadership_changed(self, leading: bool, now: float) -> None: ...

    def link_lost(self, node_id: str) -> None: ...

    def round_answered(self) -> None: ...

    def jumped(self, index: int) -> None: ...

    def receive(self, node_id: str, kind: str, frame: PeerFrame, now: float) -> None: ...
