"""Idempotency keys in the state: known for as long as the topic said, by stamped time, and bounded."""

from __future__ import annotations

import pytest

from holdfast.cluster.commands import encode_op
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.machine import StateMachine
from holdfast.cluster.state.retention import plan_mark_expiry
from holdfast.storage import cursors, identity, journal, marks, snapshot
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Table
from holdfast.storage.snapshot import Importer
from holdfast.v1 import log_pb2

from .replica_kit import T0, Replica, acks, append, delete, digest, expire_marks, keyed, marked, trim, update

#: The shortest window there is.
TTL_MS = 1_000
TTL_US = TTL_MS * 1000


def with_topic(limits: StateLimits | None = None, partitions: int = 2) -> tuple[Replica, int]:
    replica = Replica(limits)
    return replica, replica.topic("t", partitions, idempotency_ttl_ms=TTL_MS)


def repeats(replica: Replica, op: bytes) -> list[tuple[int, int, int, int]]:
    """Apply an operation that is refused for its keys, and see that nothing changed."""
    before = replica.dump()
    applied = replica.run(op)
    (result,) = applied.results
    assert result.error.reason == "DUPLICATE_KEYS"
    assert not applied.touched
    assert replica.dump() == before
    return marked(result)


def test_a_repeat_is_answered_with_the_first_place() -> None:
    replica, topic_id = with_topic()
    assert acks(replica.do(keyed(topic_id, (0, "a"), (1, "bc")))) == [(0, 0, 1, False), (1, 0, 2, False)]
    assert repeats(replica, keyed(topic_id, (1, "c"))) == [(0, 0, 1, 1)]
    assert repeats(replica, keyed(topic_id, (0, "ba"))) == [(0, 0, 1, 0), (0, 1, 0, 0)]


def test_one_repeat_and_nothing_is_stored() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "a")))
    assert repeats(replica, keyed(topic_id, (0, "bc"), (1, "da"))) == [(1, 1, 0, 0)]
    assert acks(replica.do(keyed(topic_id, (0, "bc"), (1, "d")))) == [(0, 1, 2, False), (1, 0, 1, False)]


def test_twice_in_one_operation() -> None:
    replica, topic_id = with_topic()
    assert repeats(replica, keyed(topic_id, (0, "ab"), (1, "ba"))) == [(1, 0, 0, -1), (1, 1, 0, -1)]


def test_records_without_a_key_are_never_repeats() -> None:
    replica, topic_id = with_topic()
    assert acks(replica.do(keyed(topic_id, (0, "--a-")))) == [(0, 0, 4, False)]
    assert acks(replica.do(keyed(topic_id, (0, "--")))) == [(0, 4, 2, False)]
    assert acks(replica.do(append(topic_id, [(0, 1), (1, 1)]))) == [(0, 6, 1, False), (1, 0, 1, False)]
    assert repeats(replica, keyed(topic_id, (0, "a"))) == [(0, 0, 0, 2)]
    assert marks.count(replica.w) == cursors.marks_of(replica.w, topic_id) == 1


def test_keys_of_two_topics_are_apart() -> None:
    replica, one = with_topic()
    other = replica.topic("u", 1, idempotency_ttl_ms=TTL_MS)
    replica.do(keyed(one, (0, "a")))
    replica.do(keyed(other, (0, "a")))
    assert repeats(replica, keyed(other, (0, "a"))) == [(0, 0, 0, 0)]


def test_it_is_forgotten_by_stamped_time_to_the_microsecond() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "a")))
    stored_at = replica.time_us
    replica.time_us = stored_at + TTL_US - 1 - 1000
    assert repeats(replica, keyed(topic_id, (0, "a"))) == [(0, 0, 0, 0)]
    replica.time_us = stored_at + TTL_US - 1000
    assert acks(replica.do(keyed(topic_id, (1, "a")))) == [(1, 0, 1, False)]
    assert repeats(replica, keyed(topic_id, (0, "a"))) == [(0, 0, 1, 0)]
    assert marks.count(replica.w) == replica.w.count(Table.MARK_AGES) == 1


def test_a_repeat_does_not_make_it_known_for_longer() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "a")))
    replica.time_us += TTL_US // 2
    repeats(replica, keyed(topic_id, (0, "a")))
    replica.time_us += TTL_US // 2
    assert acks(replica.do(keyed(topic_id, (0, "a")))) == [(0, 1, 1, False)]


def test_what_was_trimmed_is_still_known() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "a")))
    replica.do(trim(topic_id, 0, 1))
    assert repeats(replica, keyed(topic_id, (0, "a"))) == [(0, 0, 0, 0)]


def test_another_window_is_for_what_comes() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "a")))
    replica.do(update("t", idempotency_ttl_ms=10 * TTL_MS))
    replica.do(keyed(topic_id, (0, "b")))
    replica.time_us += 2 * TTL_US
    assert repeats(replica, keyed(topic_id, (0, "ab"))) == [(0, 1, 0, 1)]


def test_a_topic_without_a_window_takes_no_keys() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "a")))
    replica.do(update("t"))
    reason, facts = replica.refused(keyed(topic_id, (0, "b")))
    assert (reason, facts["field"]) == ("FAILED_PRECONDITION", "idempotency_keys")


def test_what_is_refused() -> None:
    replica, topic_id = with_topic()
    assert replica.refused(keyed(topic_id, (0, "a"), producer=7)) == (
        "INVALID_ARGUMENT",
        {"field": "idempotency_keys"},
    )
    for size in (15, 17, 32):
        op = log_pb2.AppendOp(topic_id=topic_id)
        op.batches.add(partition=0, count=1, length=1, marks=b"k" * size)
        assert replica.refused(encode_op(log_pb2.Op(append=op), [b"x"]))[0] == "MALFORMED_BATCH"
    assert replica.refused(keyed(topic_id, (0, "a"), (5, "b")))[0] == "UNKNOWN_PARTITION"


# -- bounds -----------------------------------------------------------------------------


def full(limits: StateLimits) -> tuple[Replica, int]:
    """As many marks as there may be, none of them over: ten."""
    replica, topic_id = with_topic(limits)
    replica.do(keyed(topic_id, (0, "abcdefghij")))
    return replica, topic_id


@pytest.mark.parametrize(
    "limits", [StateLimits(max_marks_per_topic=10), StateLimits(max_marks=10)], ids=["topic", "all"]
)
def test_at_the_bound_it_is_told_to_try_again(limits: StateLimits) -> None:
    replica, topic_id = full(limits)
    before = replica.dump()
    (result,) = replica.run(keyed(topic_id, (0, "k"))).results
    assert (result.error.reason, result.error.retry_after_ms) == ("OVERLOADED", 1000)
    assert result.error.metadata["limit"] == "10"
    assert replica.dump() == before
    # Repeats, and records without keys, pass as ever.
    assert repeats(replica, keyed(topic_id, (0, "j"))) == [(0, 0, 0, 9)]
    replica.do(append(topic_id))
    replica.time_us += TTL_US
    replica.do(keyed(topic_id, (0, "k")))
    assert marks.count(replica.w) == 1


def test_a_full_topic_leaves_the_others_alone() -> None:
    replica, _ = full(StateLimits(max_marks_per_topic=10))
    other = replica.topic("u", 1, idempotency_ttl_ms=TTL_MS)
    replica.do(keyed(other, (0, "k")))


def test_one_operation_is_not_larger_than_the_bound() -> None:
    replica, topic_id = with_topic(StateLimits(max_marks_per_topic=3))
    assert replica.refused(keyed(topic_id, (0, "abcd")))[0] == "OVERLOADED"
    replica.do(keyed(topic_id, (0, "abc")))


def test_who_writes_cleans_up_a_bounded_number() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "abcdefghijklmnopqrstuvwxyz")))
    replica.time_us += TTL_US
    replica.do(keyed(topic_id, (0, "ABC")))  # 2 x 3 + 8 of the 26
    assert marks.count(replica.w) == cursors.marks_of(replica.w, topic_id) == 26 - 14 + 3
    replica.do(append(topic_id))
    assert marks.count(replica.w) == 15
    replica.do(keyed(topic_id, (0, "DE")))
    assert marks.count(replica.w) == cursors.marks_of(replica.w, topic_id) == 5


def test_a_key_whose_mark_is_over_and_still_there_is_new() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "abcdefghijklmnopqrst")))
    replica.time_us += TTL_US
    assert acks(replica.do(keyed(topic_id, (0, "t")))) == [(0, 20, 1, False)]
    assert marks.count(replica.w) == replica.w.count(Table.MARK_AGES) == 20 - 10
    assert cursors.marks_of(replica.w, topic_id) == 10


# -- expiry -----------------------------------------------------------------------------


def test_expiry_goes_in_steps_and_says_when_more_is_left() -> None:
    replica, topic_id = with_topic(StateLimits(step_rows=4))
    replica.do(keyed(topic_id, (0, "abcdefghij")))
    assert not replica.do(expire_marks()).more
    assert marks.count(replica.w) == 10
    replica.time_us += TTL_US
    assert replica.do(expire_marks()).more
    assert marks.count(replica.w) == 6
    assert replica.do(expire_marks(limit=1)).more
    assert replica.do(expire_marks()).more
    assert not replica.do(expire_marks()).more
    assert marks.count(replica.w) == replica.w.count(Table.MARK_AGES) == 0
    assert not list(replica.w.scan(Table.CURSORS))


def test_marks_of_a_deleted_topic_expire() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "ab")))
    replica.do(delete("t"))
    again = replica.topic("t", 1, idempotency_ttl_ms=TTL_MS)
    replica.do(keyed(again, (0, "ab")))
    assert marks.count(replica.w) == 4
    replica.time_us += TTL_US
    replica.do(expire_marks())
    assert marks.count(replica.w) == 0
    assert not list(replica.w.scan(Table.CURSORS))


def test_what_the_leader_plans() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "abcdefghij")))
    now = replica.time_us
    limits = StateLimits(step_rows=4)
    assert plan_mark_expiry(replica.w, now + TTL_US - 1, limits=limits) == []
    ops = plan_mark_expiry(replica.w, now + TTL_US, limits=limits)
    assert [op.expire_marks.limit for op in ops] == [4, 4, 4]
    assert len(plan_mark_expiry(replica.w, now + TTL_US, limits=limits, max_ops=2)) == 2
    replica.time_us = now + TTL_US
    replica.run(*map(encode_op, ops))
    assert marks.count(replica.w) == 0


# -- what outlives a process ------------------------------------------------------------


def test_a_restart_keeps_them_and_a_turn_that_is_lost_does_not() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "a")))
    replica.store.commit()
    replica.do(keyed(topic_id, (0, "b")))
    replica.store.abort()
    replica.machine = StateMachine()
    assert repeats(replica, keyed(topic_id, (0, "a"))) == [(0, 0, 0, 0)]
    assert acks(replica.do(keyed(topic_id, (0, "b")))) == [(0, 1, 1, False)]


def test_a_snapshot_has_them() -> None:
    replica, topic_id = with_topic()
    replica.do(keyed(topic_id, (0, "a"), (1, "b")))
    identity.write_identity(replica.w, "c", "n1")
    replica.store.commit()
    copy = Replica(store=MemoryStore())
    identity.write_identity(copy.w, "c", "n2")
    copy.store.commit()
    importer = Importer(copy.store)
    with replica.store.read() as reader:
        for piece in snapshot.export(reader):
            importer.feed(piece)
    importer.install()
    copy.machine.reset()
    copy.time_us = replica.time_us
    assert journal.read_meta(copy.w).applied_index == journal.read_meta(replica.w).applied_index
    assert copy.dump() == replica.dump()
    assert repeats(copy, keyed(topic_id, (0, "ab"))) == [(0, 0, 0, 0), (0, 1, 1, 0)]
    assert marks.read(copy.w, topic_id, digest("a"), T0) == marks.read(replica.w, topic_id, digest("a"), T0)
