"""Frames on their way out: some at once, some only after the turn's commit.

What confirms or follows from a write (acks, votes, vote requests) is held
until the transaction with that write is durable.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cluster.ports import Transport
from holdfast.cluster.raft.messages import PeerFrame


class Outbox:
    """Holds frames in order; a success ack replaces the one before it in the turn if it confirms as much."""

    def __init__(self, transport: Transport, *, hold: bool = True) -> None:
        self._transport = transport
        self._hold = hold
        self._held: list[tuple[str, PeerFrame] | None] = []
        #: Node -> where its last success ack is held, and the index that it confirms.
        self._last_ack: dict[str, tuple[int, int]] = {}

    def send(self, node_id: str, frame: PeerFrame) -> bool:
        """Now. False when the transport dropped it."""
        return self._transport.send(node_id, frame)

    def send_append(self, node_id: str, frame: PeerFrame, commands: Sequence[bytes]) -> bool:
        """An append whose entries lack their commands; now. False when the transport dropped it."""
        return self._transport.send_append(node_id, frame, commands)

    def hold(self, node_id: str, frame: PeerFrame, *, ack: bool = False) -> None:
        """After the commit. ``ack``: a success ack, which may stand for earlier ones."""
        if not self._hold:
            self._transport.send(node_id, frame)
            return
        if ack:
            match = frame.append_reply.match_index
            before = self._last_ack.get(node_id)
            if before is not None and before[1] <= match:
                self._held[before[0]] = None
            self._last_ack[node_id] = (len(self._held), match)
        else:
            # Never merge acks across another frame: order is kept.
            self._last_ack.pop(node_id, None)
        self._held.append((node_id, frame))

    def release(self, term: int) -> None:
        """The commit is done: send what was held, except what a newer term has overtaken."""
        if not self._held:
            return
        held, self._held = self._held, []
        self._last_ack.clear()
        for item in held:
            if item is not None and item[1].term == term:
                self._transport.send(item[0], item[1])
