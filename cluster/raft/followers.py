"""What a leader knows of one follower: link, flow control, what it was told."""

from __future__ import annotations

from collections import deque

from holdfast.cluster.raft.seam import PeerNode
from holdfast.cluster.raft.settings import EngineSettings


class Follower:
    """The state of one peer. Match and next index are PySyncObj's; the rest is here.

    While ``probing``, one append is sent and awaited: the follower's log is not
    yet known to join ours. Otherwise appends are sent ahead, within a window of
    bytes and messages. The next index goes back on a refusal only.
    """

    __slots__ = (
        "answered_round",
        "boot_id",
        "connected",
        "inflight",
        "inflight_bytes",
        "joining",
        "last_progress",
        "link_broken",
        "link_fresh",
        "node",
        "node_id",
        "paused_until",
        "probe_sent",
        "probing",
        "sent_round",
        "storage_low",
        "told_commit",
    )

    def __init__(self, node: PeerNode) -> None:
        self.node = node
        self.node_id: str = node.id
        self.connected = False
        #: The peer's process is known to be gone.
        self.link_broken = False
        #: The id of the run of the peer's process that this link belongs to.
        self.boot_id = 0
        self.link_fresh = True
        self.answered_round = 0
        #: It lost its disk and does not vote yet.
        self.joining = False
        self.paused_until = 0.0
        self.inflight: deque[tuple[int, int]] = deque()
        self.reset()

    def reset(self) -> None:
        """Forget what is in flight: a new link, or a new term."""
        self.probing = True
        self.probe_sent = False
        self.inflight.clear()
        self.inflight_bytes = 0
        self.last_progress = 0.0
        self.sent_round = 0
        self.told_commit = 0
        self.paused_until = 0.0
        #: It said that it has no room for records.
        self.storage_low = False

    def can_send(self, settings: EngineSettings) -> bool:
        if self.probing:
            return not self.probe_sent
        return self.inflight_bytes < settings.window_bytes and len(self.inflight) < settings.window_messages

    def sent(self, last_index: int, size: int, now: float) -> None:
        if not self.inflight:
            self.last_progress = now
        self.inflight.append((last_index, size))
        self.inflight_bytes += size

    def acked(self, match_index: int, now: float) -> None:
        self.probing = False
        self.probe_sent = False
        self.last_progress = now
        inflight = self.inflight
        while inflight and inflight[0][0] <= match_index:
            self.inflight_bytes -= inflight.popleft()[1]

    def refused(self) -> None:
        self.probing = True
        self.probe_sent = False
        self.inflight.clear()
        self.inflight_bytes = 0
