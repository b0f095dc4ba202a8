"""What a store holds after a fixed history never changes, byte for byte.

``tests/golden/rows.txt`` is the whole store: table, key, value. A change here
is a change of the format on disk: it needs a new format version and a
migration, and then new golden rows (run this file as a script).
"""

from __future__ import annotations

from pathlib import Path

from holdfast.cluster.commands import encode_entry, encode_op
from holdfast.cluster.state.machine import StateMachine
from holdfast.records import encode_batch
from holdfast.rpc.peer.framing import encode_frame
from holdfast.storage import (
    acks,
    cursors,
    flow_keys,
    flows,
    groups,
    journal,
    marks,
    members,
    retries,
    snapshot,
)
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Table, Writer
from holdfast.v1 import bus_pb2, log_pb2, peer_pb2, topics_pb2

ROWS = Path(__file__).parent.parent / "golden" / "rows.txt"
START_US = 1_700_000_000_000_000


def _append(values: list[bytes], *, sequence: int, partition: int = 0) -> bytes:
    batch = encode_batch(values, keys=[b"k"] * len(values), timestamps_us=START_US)
    op = log_pb2.AppendOp(topic_id=1, producer_id=77, producer_epoch=2)
    op.batches.add(
        partition=partition,
        base_sequence=sequence,
        count=len(values),
        length=len(batch),
        min_timestamp_us=START_US,
        max_timestamp_us=START_US,
    )
    return encode_op(log_pb2.Op(append=op), [batch])


def history() -> MemoryStore:
    """A small history that touches every table."""
    limits = topics_pb2.TopicLimits(max_record_bytes=1000, retention_ms=60_000, retention_bytes=1 << 20)
    commit = log_pb2.CommitOffsetsOp(group="g")
    commit.offsets.add(topic_id=1, partition=0, offset=2)
    turns = [
        [encode_op(log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name="t", partitions=2, limits=limits)))],
        [_append([b"one", b"two"], sequence=0), _append([b"three"], sequence=0, partition=1)],
        [_append([b"four"], sequence=2), encode_op(log_pb2.Op(commit_offsets=commit))],
    ]
    store = MemoryStore()
    machine = StateMachine()
    writer = store.writer()
    journal.set_term_and_vote(writer, 3, "n2")
    for index, ops in enumerate(turns, start=2):
        entry = encode_entry(START_US + index, ops)
        journal.append(writer, index, 3, journal.EntryKind.COMMAND, entry)
        for result in machine.apply(writer, index, entry).results:
            assert not result.HasField("error"), result.error
        journal.set_commit(writer, index)
        journal.set_applied(writer, index)
    _groups(writer)
    journal.append(writer, 5, 3, journal.EntryKind.NO_OP, b"")
    journal.trim_to(writer, 3, 3, 100)
    store.commit()
    return store


def _groups(writer: Writer) -> None:
    definition = bus_pb2.GroupDefinition(topics=["t"], ordering=bus_pb2.ORDERING_KEY)
    row = log_pb2.GroupRow(definition=definition, created_at_us=START_US, topics_seen=[1])
    groups.write(writer, "h", groups.GroupRow(0, 17, row.SerializeToString(deterministic=True)))
    flow = flow_keys.flow_key("h", 1, 0)
    flows.write(writer, "h", 1, 0, flows.FlowRow(17, 2, 1, START_US, "member-1"))
    acks.write(writer, flow, 0, 0b1010)
    errors = ((START_US, "ValueError: no price"), (START_US + 1, "again"))
    retries.write(
        writer, flow, 2, retries.RetryRow(2, 1, retries.State.WAITING, START_US + 9, START_US, 5, errors)
    )
    members.write(writer, "h", "member-1", members.MemberRow("worker", True, 30_000, START_US))
    marks.write(writer, 1, b"d" * 16, marks.Mark(START_US + 60, 1, 0))
    marks.write_transaction(writer, b"t" * 16, START_US + 60, b"answer")
    cursors.add_marks(writer, 1, 1)
    cursors.set_sweep(writer, flow)


def lines() -> list[str]:
    """Every row, the stream of a snapshot, and a frame between brokers."""
    store = history()
    found = []
    with store.read() as reader:
        for table in Table:
            rows = [f"{table.value} {key.hex()} {value.hex()}" for key, value in reader.scan(table)]
            assert rows, f"the history leaves table {table.value} empty"
            found += rows
        found.append(f"snapshot - {b''.join(snapshot.export(reader)).hex()}")
    frame = peer_pb2.PeerFrame(term=3, boot_id=9, forward_request=peer_pb2.ForwardRequest(id=1, op=b"op"))
    found.append(f"peer_frame - {encode_frame(frame).hex()}")
    return found


def test_bytes_on_disk_and_between_brokers() -> None:
    assert lines() == ROWS.read_text().splitlines()


if __name__ == "__main__":
    ROWS.write_text("\n".join(lines()) + "\n")
