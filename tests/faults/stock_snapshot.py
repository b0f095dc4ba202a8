"""Faults 3, 4, 17, 18, 19 and 22 on the stock classes: snapshots and what they jump over."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from pysyncobj.serializer import Serializer

from .stock import NO_OP, Lab, StockNode, append, put_entries, snapshot_chunk

#: A follower with nothing asks for the log from its start.
RESET = {"type": "next_node_idx", "next_node_idx": 2, "reset": True, "success": False}


@dataclass
class FalseSuccess:
    succeeded: bool
    applied: list[object]


def stock_03(lab: Lab) -> FalseSuccess:
    """A deposed leader holds an entry nobody else has, and gets the first chunk of a snapshot."""
    node = lab.node("a")
    node.elect("b")
    node.ack("b", 2)
    node.tick(0.11)
    node.disconnect("b", "c")
    node.put("mine alone")
    node.tick()
    node.connect("c")
    node.receive("c", snapshot_chunk(2, b"half a snapshot", first=True, last=False, commit=9))
    node.tick()
    return FalseSuccess(node.succeeded("mine alone"), node.values)


@dataclass
class CorruptSnapshot:
    acked_success: bool
    acked_index: int
    values: list[object]


def stock_04(lab: Lab) -> CorruptSnapshot:
    """A snapshot arrives damaged."""
    node = lab.node("b", ("a", "c"))
    node.receive("a", append(1, (1, 0), put_entries(2, 1, ["x"])))
    node.receive("a", snapshot_chunk(1, b"not a snapshot", first=True, last=False, commit=9))
    answer = node.receive("a", snapshot_chunk(1, b"", first=False, last=True, commit=9))
    message = answer[-1][1]
    return CorruptSnapshot(message["success"], message["next_node_idx"] - 1, node.values)


def stock_17() -> tuple[bytes, bytes, bytes]:
    """Two snapshots and what a receiver made of them, having missed a message between two links."""
    old, new = b"AAAABBBBCCCC", b"aaaabbbbcccc"
    receiver = _serializer()
    assert not receiver.setTransmissionData(_chunks(old)[0])
    # The link breaks and is up again; the first chunk of the new transfer went down with it.
    done = [receiver.setTransmissionData(chunk) for chunk in _chunks(new)[1:]]
    assert done[-1]
    return old, new, receiver._Serializer__inMemorySerializedData


def _serializer() -> Serializer:
    return Serializer(None, 4, False, None, None, None)


def _chunks(data: bytes) -> list[tuple[bytes, bool, bool]]:
    sender = _serializer()
    sender._Serializer__inMemorySerializedData = data
    chunks: list[tuple[bytes, bool, bool]] = []
    while not chunks or not chunks[-1][2]:
        chunks.append(sender.getTransmissionData("receiver"))
    return chunks


@dataclass
class DeafTransfer:
    chunks_at_once: int
    bytes_at_once: int
    replies: int
    leader_before: bool
    leader_after: bool


def stock_18(lab: Lab) -> DeafTransfer:
    """A leader feeds a snapshot to the only other live node, over a slow link."""
    leader, follower = compacted_leader(lab, values=400, logCompactionBatchSize=16, leaderFallbackTimeout=5.0)
    leader.disconnect("c")
    at_once = chunks_to(leader.tick(0.11), "b")
    # Again, now with a link that takes 50 ms for each message.
    leader.receive("b", RESET)
    leader.outbox.on_send = lambda to, message: lab.clock.advance(0.05)
    was, replies, chunks = leader.is_leader, 0, 0
    for _ in range(100):
        for message in chunks_to(leader.tick(0.11), "b"):
            chunks += 1
            assert not message["serialized"][2], "the transfer ended before the leader stepped down"
            replies += len(follower.receive("a", message))
        if not leader.is_leader:
            break
    assert chunks
    size = sum(len(message["serialized"][0]) for message in at_once)
    return DeafTransfer(len(at_once), size, replies, was, leader.is_leader)


def chunks_to(sent: list[tuple[str, dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    return [m for to, m in sent if to == name and m.get("serialized") is not None]


def compacted_leader(lab: Lab, *, values: int, **conf: Any) -> tuple[StockNode, StockNode]:
    """A leader whose log starts behind a snapshot, and a follower that has nothing."""
    leader, follower = lab.node("a", **conf), lab.node("b", ("a", "c"))
    leader.elect("c")
    rng = random.Random(2)
    for _ in range(values):
        leader.put(rng.random())
    leader.tick(0.11)
    leader.tick(0.11)
    leader.ack("c", leader.last_index)
    leader.tick(0.11)
    leader.obj.forceLogCompaction()
    leader.tick()
    leader.tick()
    assert leader.log[0][0] > 2
    leader.receive("b", RESET)
    leader.outbox.sent.clear()
    return leader, follower


@dataclass
class ReadError:
    error_on_the_leader: type[Exception] | None
    serialized_sent: object
    error_on_the_follower: type[Exception] | None


class _BadDisk:
    def read(self, size: int) -> bytes:
        raise OSError(5, "Input/output error")

    def close(self) -> None:
        pass


def stock_19(lab: Lab) -> ReadError:
    """The disk fails while the leader reads its snapshot."""
    leader, follower = compacted_leader(lab, values=3, useFork=False, fullDumpFile=str(lab.path / "dump"))
    serializer = leader.private("serializer")
    peer = next(node for node in leader.obj.otherNodes if node.id == "b")
    serializer._Serializer__transmissions[peer] = {"file": _BadDisk(), "transmitted": 0}
    here = _error_of(lambda: leader.tick(0.11))
    message = next(m for to, m in leader.outbox.sent if to == "b" and "serialized" in m)
    there = _error_of(lambda: follower.receive("a", message))
    return ReadError(here, message["serialized"], there)


def _error_of(action: Any) -> type[Exception] | None:
    try:
        action()
    except TypeError as error:
        return type(error)
    return None


@dataclass
class Hanging:
    answers_after_jump: int
    applied_after_jump: int
    waiting_for: int
    answers_after_broken_link: int


def stock_22(lab: Lab) -> Hanging:
    """A waiter whose index a snapshot jumps over, one whose forwarded command met a broken link: a minute."""
    donor, _ = compacted_leader(lab, values=8)
    snapshot = donor.private("serializer")._Serializer__inMemorySerializedData

    node = lab.node("b", ("a", "c"))
    node.elect("c")
    node.put("waiting")
    node.tick()
    waiting_for = node.last_index
    node.receive("a", snapshot_chunk(2, snapshot, first=True, last=False))
    node.receive("a", snapshot_chunk(2, b"", first=False, last=True))
    end = (node.last_index, node.journal[-1][2])
    for _ in range(600):
        node.receive("a", append(2, end))
        node.tick(0.1)

    forwarding = lab.node("b", ("a", "c"))
    forwarding.receive("a", append(1, (1, 0), [(NO_OP, 2, 1)]))
    forwarding.put("forwarded")
    forwarding.tick()
    assert any(m["type"] == "apply_command" for _, m in forwarding.outbox.sent)
    forwarding.disconnect("a")
    forwarding.connect("a")
    for _ in range(600):
        forwarding.receive("a", append(1, (2, 1)))
        forwarding.tick(0.1)
    return Hanging(
        len(node.outcomes["waiting"]), node.applied, waiting_for, len(forwarding.outcomes["forwarded"])
    )
