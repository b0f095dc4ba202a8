"""What waits for the commit of its turn, and what need not be said twice."""

from __future__ import annotations

from holdfast.cluster.ports import Transport
from holdfast.cluster.raft.messages import Envelope, PeerFrame
from holdfast.cluster.raft.outbox import Outbox

ENVELOPE = Envelope(1)


class Wire:
    """A transport that takes everything."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, PeerFrame]] = []

    def send(self, node_id: str, frame: PeerFrame) -> bool:
        self.sent.append((node_id, frame))
        return True


def _outbox() -> tuple[Outbox, Wire]:
    wire = Wire()
    transport: Transport = wire  # type: ignore[assignment]
    return Outbox(transport), wire


def _ack(match: int, round_number: int = 0) -> PeerFrame:
    return ENVELOPE.append_reply(1, success=True, match_index=match, round_number=round_number)


def _matches(wire: Wire) -> list[tuple[str, int]]:
    return [(node_id, frame.append_reply.match_index) for node_id, frame in wire.sent]


def test_nothing_held_leaves_before_the_commit() -> None:
    outbox, wire = _outbox()
    outbox.hold("n1", _ack(5), ack=True)
    assert wire.sent == []
    outbox.release(1)
    assert _matches(wire) == [("n1", 5)]
    outbox.release(1)
    assert len(wire.sent) == 1


def test_one_ack_stands_for_those_before_it() -> None:
    outbox, wire = _outbox()
    for match in (5, 6, 6, 9):
        outbox.hold("n1", _ack(match), ack=True)
    outbox.hold("n2", _ack(3), ack=True)
    outbox.release(1)
    assert _matches(wire) == [("n1", 9), ("n2", 3)]


def test_an_ack_that_confirms_less_replaces_none() -> None:
    outbox, wire = _outbox()
    outbox.hold("n1", _ack(12), ack=True)
    outbox.hold(
        "n1", _ack(10, round_number=7), ack=True
    )  # of a heartbeat sent before the entries were known to fit
    outbox.release(1)
    assert _matches(wire) == [("n1", 12), ("n1", 10)]


def test_acks_are_not_merged_across_a_refusal() -> None:
    outbox, wire = _outbox()
    outbox.hold("n1", _ack(5), ack=True)
    outbox.hold("n1", ENVELOPE.append_reply(1, success=False))
    outbox.hold("n1", _ack(6), ack=True)
    outbox.release(1)
    assert [frame.append_reply.success for _, frame in wire.sent] == [True, False, True]


def test_what_a_newer_term_has_overtaken_is_not_sent() -> None:
    outbox, wire = _outbox()
    outbox.hold("n1", _ack(5), ack=True)
    outbox.release(2)
    assert wire.sent == []
