"""Frames that no correct peer sends: dropped, answered, or proof of divergence, but never a crash."""

from __future__ import annotations

import random

import pytest
from google.protobuf.message import Message

from holdfast.chaos.sim import SimCluster
from holdfast.cluster.ports import PeerMessage
from holdfast.errors import HoldfastError
from holdfast.v1 import peer_pb2

BODIES = [field.name for field in peer_pb2.PeerFrame.DESCRIPTOR.fields if field.message_type is not None]
LABEL_REPEATED = 3


def scribble(message: Message, rng: random.Random, near: int) -> None:
    """Fill fields at random, with numbers that are often plausible."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.25:
            continue
        if field.is_repeated:
            if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                for _ in range(rng.randrange(3)):
                    scribble(getattr(message, field.name).add(), rng, near)
        elif field.message_type is not None:
            scribble(getattr(message, field.name), rng, near)
        elif field.cpp_type == field.CPPTYPE_BOOL:
            setattr(message, field.name, rng.random() < 0.5)
        elif field.cpp_type == field.CPPTYPE_STRING:
            text = rng.randbytes(rng.randrange(20))
            setattr(message, field.name, text if field.type == field.TYPE_BYTES else text.hex())
        else:
            top = (1 << 32) - 1 if "32" in str(field.type) or field.cpp_type in (3, 1) else (1 << 62)
            values = [0, 1, near, max(0, near - 1), near + 1, rng.randrange(near + 3), rng.randrange(top)]
            setattr(message, field.name, min(rng.choice(values), top))


@pytest.mark.parametrize("seed", range(30))
def test_scribbled_frames(seed: int) -> None:
    rng = random.Random(seed)
    sim = SimCluster(3, seed=seed)
    leader = sim.elect()
    for i in range(5):
        sim.publish(b"%d" % i)
    sim.settle()
    node = leader if rng.random() < 0.5 else sim.followers()[0]
    other = next(n for n in sim.ids if n != node.node_id)
    for _ in range(60):
        if node.engine is None or node.transport is None:
            assert isinstance(node.failure, HoldfastError)
            return
        core = node.engine.core
        frame = peer_pb2.PeerFrame(
            term=rng.choice([core.term, core.term, core.term - 1, core.term + 1, 0]),
            boot_id=core.followers[other].boot_id,
        )
        body = rng.choice([name for name in BODIES if name != "hello"])
        getattr(frame, body).SetInParent()
        scribble(getattr(frame, body), rng, core.journal.last_index)
        node.transport.push(PeerMessage(other, frame))
        sim.run_for(0.01)


def test_strangers_and_empty_frames_are_dropped() -> None:
    sim = SimCluster(3, seed=1)
    leader = sim.elect()
    assert leader.engine is not None
    core = leader.engine.core
    before = (core.term, core.leading, core.journal.last_index)
    core.receive("nobody", peer_pb2.PeerFrame(term=99, vote_request=peer_pb2.VoteRequest(term=99)), 0.0)
    core.receive("n9", peer_pb2.PeerFrame(term=99), 0.0)
    peer = next(iter(core.followers.values()))
    core.receive(peer.node_id, peer_pb2.PeerFrame(term=99, boot_id=peer.boot_id), 0.0)
    core.receive(peer.node_id, peer_pb2.PeerFrame(term=99, boot_id=peer.boot_id + 1), 0.0)
    assert (core.term, core.leading, core.journal.last_index) == before


def test_version_and_membership_entries_are_refused() -> None:
    """14, 15: PySyncObj would unpickle them."""
    sim = SimCluster(3, seed=2)
    sim.elect()
    sim.settle()
    follower = sim.followers()[0]
    assert follower.engine is not None
    core = follower.engine.core
    leader_id = core.leader_id
    assert leader_id is not None
    last = core.journal.last_index
    for kind in (2, 3, 77):
        frame = peer_pb2.PeerFrame(term=core.term, boot_id=core.followers[leader_id].boot_id)
        frame.append.prev_index = last
        frame.append.prev_term = core.journal.last_term
        frame.append.commit_index = last + 1
        frame.append.entries.add(index=last + 1, term=core.term, kind=kind, command=b"cos\nsystem\n.")
        core.receive(leader_id, frame, sim.world.now)
        core.tick()
        assert core.journal.last_index == last
