"""Whole-state transfer to a follower that the log no longer reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.cluster.raft.followers import Follower
from holdfast.cluster.raft.messages import PeerFrame

if TYPE_CHECKING:
    from holdfast.cluster.raft.core import RaftCore


class Snapshots:
    def __init__(self, core: RaftCore) -> None:
        self._core = core

    def feed(self, follower: Follower, now: float, beat: bool) -> None:
        raise NotImplementedError

    def on_chunk(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        raise NotImplementedError

    def on_reply(self, follower: Follower, frame: PeerFrame, now: float) -> None:
        raise NotImplementedError

    def link_lost(self, follower: Follower) -> None:
        return

    def stop_sending(self) -> None:
        return

    def next_wakeup(self) -> float | None:
        return None
