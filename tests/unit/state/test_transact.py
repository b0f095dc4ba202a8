"""Transactions: what they are refused for, their bounds, their marks, and a crash at every write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.cluster.commands import encode_entry, encode_op
from holdfast.cluster.state.events import GroupCreated
from holdfast.cluster.state.limits import StateLimits
from holdfast.errors import StorageFullError
from holdfast.storage import acks, bits, cursors, flow_keys, flows, groups, journal, marks, partitions
from holdfast.storage.flows import FlowRow
from holdfast.storage.marks import TRANSACTIONS
from holdfast.storage.port import Table
from holdfast.v1 import bus_pb2, log_pb2

from .replica_kit import Replica, append, commit, delete, trim
from .transact_kit import KEEP_MS, offsets_of, transaction


@pytest.fixture
def replica() -> Replica:
    return prepared(Replica())


def prepared(made: Replica) -> Replica:
    """Topics a (id 1) and b (2) of two partitions, ten records in each of a's, group g."""
    made.topic("a", 2)
    made.topic("b", 2, idempotency_ttl_ms=60_000)
    made.do(append(1, [(0, 10), (1, 10)]))
    made.do(commit("g", (1, 0, 0)))
    return made


def floor(replica: Replica, partition: int = 0, group: str = "g", topic: int = 1) -> int | None:
    return groups.committed(replica.w, group, topic, partition)


def settled(replica: Replica, partition: int = 0, group: str = "g", topic: int = 1) -> list[int]:
    """Above the floor."""
    flow = flow_keys.flow_key(group, topic, partition)
    return [
        offset
        for chunk, value in acks.scan(replica.w, flow)
        for first, end in bits.ranges_of(chunk, value)
        for offset in range(first, end)
    ]


def test_everything_at_once(replica: Replica) -> None:
    result = replica.do(
        transaction(
            1,
            [(2, {0: [b"x", b"y"], 1: [b"z"]}), (1, {0: [b"w"]})],
            [("g", {(1, 0): {0, 1, 4}, (1, 1): {2}})],
        )
    )
    assert offsets_of(result) == {("b", 0): 0, ("b", 1): 0, ("a", 0): 10}
    assert [item.topic for item in result.transact.appends] == ["b", "a"]
    assert (floor(replica), settled(replica)) == (2, [4])
    assert (floor(replica, 1), settled(replica, 1)) == (0, [2])
    assert cursors.marks_of(replica.w, TRANSACTIONS) == 1


def test_what_is_appended_is_touched_and_counted(replica: Replica) -> None:
    applied = replica.run(transaction(1, [(2, {0: [b"x"], 1: [b"z"]})], [("g", {(1, 0): {0}})]))
    assert applied.touched == {(2, 0), (2, 1)}
    refs = sum(int.from_bytes(value, "big") for _, value in replica.w.scan(Table.REFS))
    assert refs == replica.w.count(Table.INDEX)


def raw(change: Callable[[log_pb2.TransactOp], None], blob: bytes = b"") -> bytes:
    op = log_pb2.TransactOp(transaction_id=b"i" * 16, keep_ms=KEEP_MS)
    settle = op.consume.add(group="g")
    settle.flows.add(topic_id=1, partition=0, base=0, runs=[0, 1])
    change(op)
    return encode_op(log_pb2.Op(transact=op), [blob])


def add_append(op: log_pb2.TransactOp, topic: int = 2, **fields: int) -> None:
    made = op.appends.add(topic_id=topic)
    made.batches.add(**({"partition": 0, "count": 1, "length": 3} | fields))


def twice(op: log_pb2.TransactOp) -> None:
    add_append(op, length=1)
    add_append(op, length=2)


def with_producer(op: log_pb2.TransactOp) -> None:
    add_append(op)
    op.appends[0].producer_id = 7


def same_flow(op: log_pb2.TransactOp) -> None:
    op.consume.add(group="g").flows.add(topic_id=1, partition=0, base=3, runs=[0, 1])


def with_floor(op: log_pb2.TransactOp) -> None:
    op.consume[0].flows[0].floor = 3


def with_retry(op: log_pb2.TransactOp) -> None:
    op.consume[0].flows[0].retries.add(offset=1)


def with_dead(op: log_pb2.TransactOp) -> None:
    op.consume[0].dead.add(topic_id=2)


def assign(path: str, value: Any) -> Callable[[log_pb2.TransactOp], None]:
    def change(op: log_pb2.TransactOp) -> None:
        target: Any = op
        *steps, last = path.split(".")
        for step in steps:
            target = target[int(step)] if step.isdigit() else getattr(target, step)
        if isinstance(value, list):
            del getattr(target, last)[:]
            getattr(target, last).extend(value)
        else:
            setattr(target, last, value)

    return change


BAD: list[tuple[Callable[[log_pb2.TransactOp], None], bytes, str]] = [
    (assign("transaction_id", b"short"), b"", "INVALID_ARGUMENT"),
    (assign("transaction_id", b"i" * 17), b"", "INVALID_ARGUMENT"),
    (assign("keep_ms", 0), b"", "INVALID_ARGUMENT"),
    (assign("keep_ms", -5), b"", "INVALID_ARGUMENT"),
    (assign("keep_ms", 1 << 62), b"", "INVALID_ARGUMENT"),
    (assign("consume", []), b"", "INVALID_ARGUMENT"),
    (lambda op: None, b"xyz", "MALFORMED_BATCH"),
    (add_append, b"xy", "MALFORMED_BATCH"),
    (add_append, b"wxyz", "MALFORMED_BATCH"),
    (lambda op: add_append(op, partition=2), b"xyz", "UNKNOWN_PARTITION"),
    (lambda op: add_append(op, topic=9), b"xyz", "UNKNOWN_TOPIC"),
    (lambda op: add_append(op, count=0), b"xyz", "MALFORMED_BATCH"),
    (twice, b"xyz", "INVALID_ARGUMENT"),
    (with_producer, b"xyz", "INVALID_ARGUMENT"),
    (same_flow, b"", "INVALID_ARGUMENT"),
    (with_floor, b"", "INVALID_ARGUMENT"),
    (with_retry, b"", "INVALID_ARGUMENT"),
    (with_dead, b"", "INVALID_ARGUMENT"),
    (assign("consume.0.flows", []), b"", "INVALID_ARGUMENT"),
    (assign("consume.0.group", "nobody"), b"", "UNKNOWN_GROUP"),
    (assign("consume.0.group", "no/body"), b"", "INVALID_ARGUMENT"),
    (assign("consume.0.group", ""), b"", "INVALID_ARGUMENT"),
    (assign("consume.0.flows.0.topic_id", 9), b"", "UNKNOWN_TOPIC"),
    (assign("consume.0.flows.0.partition", 9), b"", "UNKNOWN_TOPIC"),
    (assign("consume.0.flows.0.fence", 3), b"", "FENCED"),
    (assign("consume.0.flows.0.base", -1), b"", "INVALID_ARGUMENT"),
    (assign("consume.0.flows.0.runs", [1]), b"", "INVALID_ARGUMENT"),
    (assign("consume.0.flows.0.runs", []), b"", "INVALID_ARGUMENT"),
    (assign("consume.0.flows.0.runs", [3, 0]), b"", "INVALID_ARGUMENT"),
    (assign("consume.0.flows.0.runs", [0, 11]), b"", "OFFSET_OUT_OF_RANGE"),
    (assign("consume.0.flows.0.runs", [(1 << 64) - 1, 1]), b"", "OFFSET_OUT_OF_RANGE"),
]


@pytest.mark.parametrize(("change", "blob", "reason"), BAD)
def test_refused_whole(
    replica: Replica, change: Callable[[log_pb2.TransactOp], None], blob: bytes, reason: str
) -> None:
    assert replica.refused(raw(change, blob))[0] == reason
    replica.do(raw(lambda op: None))


def test_a_record_is_consumed_once(replica: Replica) -> None:
    replica.do(transaction(1, consume=[("g", {(1, 0): {0, 3}})]))
    for offsets, first in (({0}, 0), ({2, 3}, 3), ({1, 3, 4}, 3)):
        assert replica.refused(transaction(2, [(2, {0: [b"x"]})], [("g", {(1, 0): offsets})])) == (
            "ALREADY_SETTLED",
            {"group": "g", "topic": "a", "partition": "0", "offset": str(first)},
        )
    replica.do(commit("h", (1, 0, 0)))
    replica.do(transaction(2, consume=[("h", {(1, 0): {0, 3}})]))
    replica.do(commit("g", (1, 0, 5)))
    assert replica.refused(transaction(3, consume=[("g", {(1, 0): {4}})]))[0] == "ALREADY_SETTLED"


def test_two_groups_in_one_transaction_are_all_or_nothing(replica: Replica) -> None:
    replica.do(commit("h", (1, 0, 3)))
    assert replica.refused(transaction(1, consume=[("g", {(1, 0): {0}}), ("h", {(1, 0): {2}})]))[0] == (
        "ALREADY_SETTLED"
    )
    replica.do(transaction(1, consume=[("g", {(1, 0): {0}}), ("h", {(1, 0): {3}})]))
    assert (floor(replica), floor(replica, group="h")) == (1, 4)


def test_an_owner_s_fence(replica: Replica) -> None:
    flows.write(replica.w, "g", 1, 0, FlowRow(fence=8, owner="m"))
    op = {"consume": [("g", {(1, 0): {0}})]}
    reason, facts = replica.refused(transaction(1, fences={("g", 1, 0): 7}, **op))  # type: ignore[arg-type]
    assert (reason, facts["generation"]) == ("FENCED", "8")
    replica.do(transaction(1, fences={("g", 1, 0): 8}, **op))  # type: ignore[arg-type]
    row = flows.read(replica.w, "g", 1, 0)
    assert (row.fence, row.owner) == (8, "m")


def test_what_is_trimmed_holds_no_floor(replica: Replica) -> None:
    replica.do(append(1, [(0, 10)]))
    replica.do(trim(1, 0, 10))
    replica.do(transaction(1, consume=[("g", {(1, 0): {12}})]))
    assert (floor(replica), settled(replica)) == (10, [12])
    # Handed out before it was trimmed.
    replica.do(trim(1, 0, 20))
    replica.do(append(1, [(0, 1)]))
    replica.do(transaction(2, consume=[("g", {(1, 0): {15, 20}})]))
    assert (floor(replica), settled(replica)) == (21, [])


def test_what_a_transaction_appends_it_does_not_consume(replica: Replica) -> None:
    op = transaction(1, [(1, {0: [b"x"]})], [("g", {(1, 0): {10}})])
    assert replica.refused(op)[0] == "OFFSET_OUT_OF_RANGE"


# -- repeats -------------------------------------------------------------------


def test_a_repeat_is_answered_for_as_long_as_was_asked(replica: Replica) -> None:
    op = transaction(1, [(2, {0: [b"x"]})], [("g", {(1, 0): {0}})], keep_ms=1_000)
    first = replica.do(op)
    replica.time_us += 997_000
    before = replica.dump()
    again = replica.do(op)
    assert again.transact.repeated_call
    assert again.transact.appends == first.transact.appends
    assert replica.dump() == before
    # Whatever else it asks for, and whether it makes sense.
    other = raw(assign("transaction_id", (1).to_bytes(16, "big")), b"nonsense")
    assert replica.do(other).transact.repeated_call
    replica.time_us += 2_000
    assert replica.refused(op)[0] == "ALREADY_SETTLED"
    assert not replica.do(transaction(1, [(2, {0: [b"y"]})])).transact.repeated_call
    assert cursors.marks_of(replica.w, TRANSACTIONS) == marks.count(replica.w) == 1


def test_a_repeat_within_one_entry(replica: Replica) -> None:
    op = transaction(1, [(2, {0: [b"x"]})])
    applied = replica.run(op, op)
    assert [result.transact.repeated_call for result in applied.results] == [False, True]
    state = partitions.read_state(replica.w, 2, 0)
    assert state is not None
    assert state.next_offset == 1


def test_a_transaction_that_only_consumes_is_known_too(replica: Replica) -> None:
    op = transaction(1, consume=[("g", {(1, 0): {0}})])
    assert replica.do(op).HasField("transact")
    assert replica.do(op).transact.repeated_call


def test_transactions_remembered_are_bounded() -> None:
    replica = prepared(Replica(StateLimits(max_marks_per_topic=2)))
    for number in (1, 2):
        replica.do(transaction(number, [(2, {0: [b"x"]})], keep_ms=1_000))
    assert replica.refused(transaction(3, [(2, {0: [b"x"]})]))[0] == "OVERLOADED"
    assert replica.do(transaction(1, [(2, {0: [b"x"]})])).transact.repeated_call
    replica.time_us += 1_000_000
    replica.do(transaction(3, [(2, {0: [b"x"]})]))
    assert marks.count(replica.w) == 1, "and the expired ones are gone"


# -- idempotency keys ----------------------------------------------------------


def test_known_keys_refuse_all_and_are_named_through_all_batches(replica: Replica) -> None:
    known = {b"x": b"k" * 16, b"y": b"l" * 16}
    replica.do(transaction(1, [(2, {0: [b"x", b"y"]})], marks=known))
    op = transaction(
        2,
        [(1, {0: [b"a"], 1: [b"b"]}), (2, {0: [b"new", b"y"], 1: [b"x"]})],
        [("g", {(1, 0): {0}})],
        marks=known,
    )
    before = replica.dump()
    (result,) = replica.run(op).results
    assert result.error.reason == "DUPLICATE_KEYS"
    assert [(m.batch, m.index, m.partition, m.offset) for m in result.marked] == [(2, 1, 0, 1), (3, 0, 0, 0)]
    assert replica.dump() == before


# -- bounds --------------------------------------------------------------------


def test_bounds() -> None:
    limits = StateLimits(max_transaction_bytes=100, max_batches_per_append=2, max_settle_runs=3)
    replica = prepared(Replica(limits))
    reason, facts = replica.refused(transaction(1, [(2, {0: [b"x" * 101]})]))
    assert (reason, facts["limit"]) == ("TRANSACTION_TOO_LARGE", "100")
    assert int(facts["size"]) > 100
    assert replica.refused(transaction(1, [(1, {0: [b"x"]}), (2, {0: [b"x"], 1: [b"x"]})])) == (
        "TRANSACTION_TOO_LARGE",
        {"size": "3", "limit": "2"},
    )
    assert replica.refused(transaction(1, consume=[("g", {(1, 0): {0, 2}, (1, 1): {1, 3}})])) == (
        "TRANSACTION_TOO_LARGE",
        {"size": "4", "limit": "3"},
    )
    replica.do(transaction(1, [(1, {0: [b"x"]}), (2, {0: [b"x"]})], [("g", {(1, 0): {0, 2}, (1, 1): {1}})]))


def test_how_far_ahead_of_the_first_open_record_others_may_be_settled() -> None:
    replica = prepared(Replica(StateLimits(max_settled_ahead=5)))
    assert replica.refused(transaction(1, consume=[("g", {(1, 0): {5}})]))[0] == "LIMIT_EXCEEDED"
    replica.do(transaction(1, consume=[("g", {(1, 0): {4}})]))
    replica.do(transaction(2, consume=[("g", {(1, 0): {0}})]))
    replica.do(transaction(3, consume=[("g", {(1, 0): {5}})]))


# -- hidden groups -------------------------------------------------------------


def test_a_hidden_group_comes_with_its_first_record() -> None:
    events: list[object] = []
    replica = prepared(Replica(StateLimits(max_groups=2), events.append))
    replica.do(transaction(1, consume=[("_dead/a", {(1, 0): {1}, (1, 1): {0}})]))
    assert GroupCreated("_dead/a") in events
    assert groups.exists(replica.w, "_dead/a")
    assert (floor(replica, 0, "_dead/a"), settled(replica, 0, "_dead/a")) == (0, [1])
    assert floor(replica, 1, "_dead/a") == 1
    replica.do(transaction(2, consume=[("_dead/a", {(1, 0): {2}})]))
    assert replica.refused(transaction(3, consume=[("_dead/b", {(2, 0): {0}})]))[0] == "OFFSET_OUT_OF_RANGE"
    replica.do(append(2))
    assert replica.refused(transaction(3, consume=[("_dead/b", {(2, 0): {0}})]))[0] == "LIMIT_EXCEEDED"


# -- crashes -------------------------------------------------------------------


class Failing:
    """A writer that fails at its n-th write."""

    def __init__(self, writer: Any, at: int) -> None:
        self._writer = writer
        self._left = at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._writer, name)
        return self._counted(found) if name in ("put", "append", "delete") else found

    def _counted(self, write: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            if self._left == 0:
                raise StorageFullError("no room")
            self._left -= 1
            return write(*arguments)

        return counted


def test_a_crash_at_any_write_leaves_nothing_of_it(replica: Replica) -> None:
    replica.do(transaction(1, consume=[("g", {(1, 0): {3}})], keep_ms=1_000))
    replica.time_us += 2_000_000
    replica.store.commit()
    op = transaction(
        2,
        [(2, {0: [b"x", b"y"], 1: [b"z"]}), (1, {0: [b"w"]})],
        [("g", {(1, 0): {0, 1, 2, 5}, (1, 1): {7}}), ("_dead/a", {(1, 0): {0}})],
        marks={b"x": b"k" * 16},
    )
    entry = encode_entry(replica.time_us, [op])
    index = journal.read_meta(replica.w).last_index + 1
    before = replica.dump()
    failures = 0
    while True:
        journal.append(replica.w, index, 1, journal.EntryKind.COMMAND, entry)
        try:
            applied = replica.machine.apply(Failing(replica.w, failures), index, entry)  # type: ignore[arg-type]
        except StorageFullError:
            replica.store.abort()
            replica.machine.reset()
            assert replica.dump() == before
            failures += 1
            continue
        break
    assert failures > 15, "every write of it was failed once"
    (result,) = applied.results
    assert not result.HasField("error"), result
    assert offsets_of(result) == {("b", 0): 0, ("b", 1): 0, ("a", 0): 10}
    whole = prepared(Replica())
    whole.do(transaction(1, consume=[("g", {(1, 0): {3}})], keep_ms=1_000))
    whole.time_us = replica.time_us - 1_000
    whole.do(op)
    assert replica.dump() == whole.dump()


def test_who_coordinates_a_defined_group_hears_of_what_nobody_was_leased(replica: Replica) -> None:
    definition = bus_pb2.GroupDefinition(topics=["a"])
    put = log_pb2.PutGroupOp(group="defined", definition=definition)
    replica.do(encode_op(log_pb2.Op(put_group=put)))
    for unleased, group, told in (
        (True, "defined", {"defined"}),
        (True, "g", set()),
        (False, "defined", set()),
    ):
        op = log_pb2.TransactOp(keep_ms=KEEP_MS, unleased=unleased)
        op.transaction_id = f"{group}{unleased}".encode().ljust(16)
        partition = int(not unleased)
        op.consume.add(group=group).flows.add(topic_id=1, partition=partition, base=0, runs=[0, 1])
        applied = replica.run(encode_op(log_pb2.Op(transact=op)))
        assert not applied.results[0].HasField("error"), applied.results
        assert applied.groups_changed == told


def test_a_hidden_group_goes_with_its_topic(replica: Replica) -> None:
    """Or topics of dead letters that come and go would fill the bound of groups."""
    replica.do(transaction(1, consume=[("_dead/a", {(1, 0): {1, 3}, (1, 1): {0}}), ("g", {(1, 0): {0}})]))
    replica.do(delete("a"))
    assert groups.list_groups(replica.w) == ["g"]
    for _ in range(10):
        replica.do(encode_op(log_pb2.Op(sweep=log_pb2.SweepOp(limit=100))))
    left = [key for table in (Table.OFFSETS, Table.FLOWS, Table.ACKS) for key in replica.w.scan_keys(table)]
    assert not left
    topic = replica.topic("a", 1)
    replica.do(append(topic, [(0, 3)]))
    replica.do(transaction(2, consume=[("_dead/a", {(topic, 0): {0}})]))
    assert floor(replica, 0, "_dead/a", topic) == 1
