"""Faults of our own that a review found; each test failed before its fix."""

from __future__ import annotations

from holdfast.cluster import events
from holdfast.storage import journal as rows
from holdfast.v1 import errors_pb2, peer_pb2

from .ours import Frame, OurNode, append, append_reply, replies
from .ours_snapshot import chunk, donor, needs_snapshot, snapshot_replies
from .stock import Clock


def test_a_follower_that_takes_nothing_does_not_pin_the_store_for_ever() -> None:
    """Resending counted as progress, so that a paused follower held a read transaction without end."""
    leader = needs_snapshot(Clock())
    settings = leader.settings
    waited = 0.0
    while waited < settings.snapshot_stall + 5 * settings.snapshot_retry:
        leader.receive("c", append_reply(leader.term, leader.last_index))
        leader.tick(0.2)
        waited += 0.2
    aborted = [event for event in leader.events if isinstance(event, events.SnapshotAborted)]
    assert [event.peer_id for event in aborted] == ["b"]
    assert leader.is_leader


def test_a_snapshot_older_than_the_state_is_answered_not_loaded() -> None:
    """It used to be loaded, and its refusal by the store halted the node."""
    data, covers = donor(["v0", "v1"])
    node = OurNode(Clock(), "b", ("a", "c"))
    values = [f"v{number}" for number in range(30)]
    entries: list[tuple[int, int, str | None]] = [(2 + at, 1, value) for at, value in enumerate(values)]
    node.receive("a", append(1, (1, 0), entries, commit=31))
    node.tick(0.01)
    core = node.engine.core
    core.commit_store()
    core.journal.trim(20, 100)
    core.commit_store()
    with node.store.read() as reader:
        assert rows.read_meta(reader).base_index == 20 > covers[0]
    answers = snapshot_replies(node.receive("a", chunk(1, data, 0, covers=covers, last=True)))
    assert [answer.installed for answer in answers] == [True]
    assert node.values == values


def test_half_a_snapshot_is_let_go_when_another_leader_sends_entries() -> None:
    """It kept its half-filled environment, and the disk under it, until the old link broke."""
    data, covers = donor([f"v{number}" for number in range(9)])
    node = OurNode(Clock(), "b", ("a", "c"))
    node.receive("a", chunk(1, data[:40], 0, covers=covers))
    node.receive("c", append(2, (1, 0), [(2, 2, None)]))
    answer = snapshot_replies(node.receive("c", chunk(2, data[40:80], 40, covers=covers)))
    assert [reply.next_offset for reply in answer] == [0], "nothing is half received any more"


def test_a_snapshot_nobody_needs_any_more_is_dropped() -> None:
    """A late ack made it needless; its timer, never served again, kept the leader spinning."""
    leader = needs_snapshot(Clock())
    leader.tick(0.2)
    leader.receive("b", append_reply(leader.term, leader.last_index))
    for _ in range(20):
        leader.receive("b", append_reply(leader.term, leader.last_index))
        leader.receive("c", append_reply(leader.term, leader.last_index))
        leader.tick(0.1)
    leader.tick()
    now = leader.clock.now
    assert leader.engine.next_wakeup(now) > now
    assert not leader.engine.core.snapshots._sending


def test_a_read_is_not_asked_of_a_deposed_leader_without_pause() -> None:
    """Its refusals were answered with the same question, as fast as the link allowed."""
    node = OurNode(Clock(), "a")
    node.receive("b", append(1, (1, 0), [(2, 1, None)], commit=2))
    node.engine.read_barrier("read", node.clock.now + 5.0)
    asked = 0
    sent = node.tick()
    for _ in range(200):
        questions = [frame.read_index_request for frame in replies(sent, "read_index_request")]
        asked += len(questions)
        refusals = [
            Frame(
                term=1,
                read_index_reply=peer_pb2.ReadIndexReply(
                    id=question.id, error=errors_pb2.Error(reason="NO_LEADER", message="not me")
                ),
            )
            for question in questions
        ]
        node.clock.advance(0.0002)
        sent = node.receive("b", *refusals)
        assert node.engine.next_wakeup(node.clock.now) > node.clock.now
    assert 2 <= asked <= 10  # in 40 ms
    # The next leader answers it.
    for _ in range(30):
        for question in replies(sent, "read_index_request"):
            answer = peer_pb2.ReadIndexReply(id=question.read_index_request.id, index=2)
            node.receive("b", Frame(term=1, read_index_reply=answer))
        sent = node.tick(0.001)
    assert node.sink.completed["read"].error is None
