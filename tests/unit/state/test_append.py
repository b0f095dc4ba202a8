"""Appends: offsets, times, atomicity, idempotent producers."""

from __future__ import annotations

import pytest

from holdfast.cluster.commands import encode_entry, encode_op
from holdfast.cluster.state.limits import StateLimits
from holdfast.records import decode_batch
from holdfast.storage import partitions, producers
from holdfast.v1 import log_pb2

from .replica_kit import T0, Replica, ack, acks, append, delete, expire, trim


def read_all(replica: Replica, topic_id: int, partition: int) -> list[bytes]:
    values = []
    for row in partitions.index_scan(replica.w, topic_id, partition, 0):
        batch = decode_batch(partitions.read_batch(replica.w, row, verify=True))
        assert batch.count == row.count
        values += batch.values
    return values


def test_offsets_have_no_gaps_and_batches_are_found_again() -> None:
    replica = Replica()
    topic_id = replica.topic("t", 2)
    applied = replica.run(
        append(topic_id, [(0, 3), (1, 1)], fill=b"a"),
        append(topic_id, [(0, 2)], fill=b"b", times=(5, 9)),
    )
    assert acks(applied.results[0]) == [(0, 0, 3, False), (1, 0, 1, False)]
    assert acks(applied.results[1]) == [(0, 3, 2, False)]
    assert applied.touched == {(topic_id, 0), (topic_id, 1)}
    replica.do(append(topic_id, [(0, 1)], fill=b"c"))
    assert read_all(replica, topic_id, 0) == [b"a"] * 3 + [b"b"] * 2 + [b"c"]
    assert read_all(replica, topic_id, 1) == [b"a"]
    row = partitions.index_at(replica.w, topic_id, 0, 4)
    assert row is not None
    assert (row.base_offset, row.min_timestamp_us, row.max_timestamp_us) == (3, 5, 9)


def test_append_time_is_the_stamped_time_and_never_goes_back() -> None:
    replica = Replica()
    topic_id = replica.topic()
    replica.time_us = T0
    assert ack(replica.do(append(topic_id))).append_time_us == T0 + 1000
    replica.time_us = T0 - 5_000_000
    assert ack(replica.do(append(topic_id))).append_time_us == T0 + 1000
    replica.time_us = T0 + 1_000_000
    assert ack(replica.do(append(topic_id))).append_time_us == T0 + 1_001_000


def test_a_stamp_before_1970_is_taken_as_1970() -> None:
    replica = Replica()
    topic_id = replica.topic()
    applied = replica.entry(encode_entry(-5, [append(topic_id)]))
    assert ack(applied.results[0]).append_time_us == 0


def test_all_or_none() -> None:
    replica = Replica()
    topic_id = replica.topic("t", 2)
    assert replica.refused(append(topic_id, [(0, 1), (2, 1)])) == (
        "UNKNOWN_PARTITION",
        {"topic": "t", "partitions": "2"},
    )
    replica.do(append(topic_id, [(0, 1, 0), (1, 1, 0)], producer=7))
    assert replica.refused(append(topic_id, [(0, 1, 1), (1, 1, 5)], producer=7)) == (
        "SEQUENCE_GAP",
        {"expected": "1"},
    )


def test_a_refused_operation_leaves_the_others_of_its_entry() -> None:
    replica = Replica()
    topic_id = replica.topic()
    applied = replica.run(append(topic_id), append(topic_id + 1), append(topic_id))
    assert [each.error.reason for each in applied.results] == ["", "UNKNOWN_TOPIC", ""]
    assert ack(applied.results[2]).base_offset == 1


def op_of(topic_id: int, *batches: dict[str, int], blob: bytes = b"12345", producer: int = 0) -> bytes:
    op = log_pb2.AppendOp(topic_id=topic_id, producer_id=producer)
    for batch in batches:
        op.batches.add(**batch)
    return encode_op(log_pb2.Op(append=op), [blob])


def test_malformed_appends() -> None:
    replica = Replica(StateLimits(max_batches_per_append=2))
    topic_id = replica.topic("t", 3)
    good = {"partition": 0, "count": 1, "length": 5}
    for op in (
        op_of(topic_id),
        op_of(topic_id, blob=b""),
        op_of(topic_id, good | {"count": 0}),
        op_of(topic_id, good | {"length": 4}),
        op_of(topic_id, good | {"length": 6}),
        op_of(topic_id, good, good | {"partition": 1, "length": 0}),
        op_of(topic_id, good | {"length": 2}, good | {"length": 3}),
        op_of(topic_id, good | {"min_timestamp_us": 2, "max_timestamp_us": 1}),
        op_of(topic_id, good | {"length": 1}, good | {"partition": 1, "length": 1}, good | {"partition": 2}),
        op_of(topic_id, good, producer=1 << 63),
        op_of(topic_id, good | {"base_sequence": (1 << 64) - 1}, producer=7),
    ):
        assert replica.refused(op)[0] in ("INVALID_ARGUMENT", "MALFORMED_BATCH")


# -- idempotent producers ------------------------------------------------------


@pytest.fixture
def replica() -> Replica:
    made = Replica()
    made.topic("t", 2)
    return made


def test_a_retry_is_answered_with_the_first_offsets(replica: Replica) -> None:
    first = replica.do(append(1, [(0, 3, 0)], producer=7))
    replica.do(append(1, [(0, 5)]))
    replica.do(append(1, [(0, 2, 3)], producer=7))
    before = replica.dump()
    applied = replica.run(append(1, [(0, 3, 0)], producer=7), append(1, [(0, 2, 3)], producer=7))
    assert applied.touched == set()
    assert acks(applied.results[0]) == [(0, 0, 3, True)]
    assert acks(applied.results[1]) == [(0, 8, 2, True)]
    assert ack(applied.results[0]).append_time_us == ack(first).append_time_us
    assert replica.dump() == before


def test_a_retry_may_be_cut_differently(replica: Replica) -> None:
    replica.do(append(1, [(0, 4)]))
    replica.do(append(1, [(0, 10, 0)], producer=7))
    assert acks(replica.do(append(1, [(0, 3, 4)], producer=7))) == [(0, 8, 3, True)]


def test_a_retry_older_than_what_is_remembered_is_still_a_duplicate(replica: Replica) -> None:
    for i in range(20):
        replica.do(append(1, [(0, 2, 2 * i)], producer=7))
    for i in range(20):
        expected = 2 * i if i >= 20 - producers.MAX_RECENT else -1
        result = ack(replica.do(append(1, [(0, 2, 2 * i)], producer=7)))
        assert (result.base_offset, result.duplicate) == (expected, True)
    # Spanning two remembered batches, its place is not one range for sure.
    assert acks(replica.do(append(1, [(0, 4, 36)], producer=7))) == [(0, -1, 4, True)]


def test_gaps_and_overlaps(replica: Replica) -> None:
    assert replica.refused(append(1, [(0, 1, 1)], producer=7)) == ("SEQUENCE_GAP", {"expected": "0"})
    replica.do(append(1, [(0, 5, 0)], producer=7))
    assert replica.refused(append(1, [(0, 1, 6)], producer=7)) == ("SEQUENCE_GAP", {"expected": "5"})
    assert replica.refused(append(1, [(0, 2, 4)], producer=7)) == ("SEQUENCE_GAP", {"expected": "5"})
    assert replica.refused(append(1, [(0, 9, 0)], producer=7)) == ("SEQUENCE_GAP", {"expected": "5"})
    replica.do(append(1, [(0, 1, 5)], producer=7))


def test_epochs_fence(replica: Replica) -> None:
    replica.do(append(1, [(0, 5, 0)], producer=7, epoch=1))
    assert replica.refused(append(1, [(0, 1, 5)], producer=7, epoch=2)) == (
        "SEQUENCE_GAP",
        {"expected": "0"},
    )
    assert acks(replica.do(append(1, [(0, 5, 0)], producer=7, epoch=2))) == [(0, 5, 5, False)]
    assert replica.refused(append(1, [(0, 1, 5)], producer=7, epoch=1)) == (
        "PRODUCER_FENCED",
        {"epoch": "2"},
    )
    assert replica.refused(append(1, [(0, 5, 0)], producer=7, epoch=1))[0] == "PRODUCER_FENCED"
    assert acks(replica.do(append(1, [(0, 5, 0)], producer=7, epoch=2))) == [(0, 5, 5, True)]


def test_sequences_are_of_one_producer_and_partition(replica: Replica) -> None:
    other = replica.topic("u")
    replica.do(append(1, [(0, 5, 0)], producer=7))
    for op in (
        append(1, [(1, 1, 0)], producer=7),
        append(1, [(0, 1, 0)], producer=8),
        append(other, [(0, 1, 0)], producer=7),
    ):
        assert not ack(replica.do(op)).duplicate


def test_a_request_may_mix_retries_and_news(replica: Replica) -> None:
    replica.do(append(1, [(0, 2, 0)], producer=7))
    applied = replica.run(append(1, [(0, 2, 0), (1, 3, 0)], producer=7))
    assert acks(applied.results[0]) == [(0, 0, 2, True), (1, 0, 3, False)]
    assert applied.touched == {(1, 1)}


def test_retries_within_one_entry(replica: Replica) -> None:
    op = append(1, [(0, 2, 0)], producer=7)
    applied = replica.run(op, op, append(1, [(0, 2, 2)], producer=7))
    assert [acks(each)[0][1:] for each in applied.results] == [(0, 2, False), (0, 2, True), (2, 2, False)]


def test_a_retry_of_what_was_trimmed_is_a_duplicate(replica: Replica) -> None:
    replica.do(append(1, [(0, 2, 0)], producer=7))
    replica.do(trim(1, 0, 2))
    assert acks(replica.do(append(1, [(0, 2, 0)], producer=7))) == [(0, 0, 2, True)]


def test_idle_producers_expire_by_stamped_time(replica: Replica) -> None:
    replica.do(append(1, [(0, 2, 0)], producer=7))
    middle = replica.time_us + 1
    replica.do(append(1, [(0, 2, 0)], producer=8))
    replica.do(expire(middle, limit=0))
    assert producers.count(replica.w) == 2
    replica.do(expire(middle))
    assert producers.count(replica.w) == 1
    assert replica.refused(append(1, [(0, 2, 2)], producer=7)) == ("SEQUENCE_GAP", {"expected": "0"})
    assert ack(replica.do(append(1, [(0, 2, 0)], producer=8))).duplicate


def test_producers_are_bounded() -> None:
    replica = Replica(StateLimits(max_producers=3))
    topic_id = replica.topic("t", 2)
    replica.do(append(topic_id, [(0, 1), (1, 1)], producer=1))
    assert replica.refused(append(topic_id, [(0, 1), (1, 1)], producer=2)) == (
        "LIMIT_EXCEEDED",
        {"limit": "3"},
    )
    replica.do(append(topic_id, [(0, 1)], producer=2))
    assert replica.refused(append(topic_id, [(0, 1)], producer=3))[0] == "LIMIT_EXCEEDED"
    replica.do(append(topic_id, [(0, 1, 1)], producer=2))
    replica.do(append(topic_id, [(0, 1)]))


def test_batches_of_an_entry_may_go_within_the_entry(replica: Replica) -> None:
    applied = replica.run(
        append(1, [(0, 1), (1, 1)]), trim(1, 0, 1), append(1, [(1, 1)]), delete("t"), append(1, [(0, 1)])
    )
    reasons = [each.error.reason for each in applied.results]
    assert reasons == ["", "", "", "", "UNKNOWN_TOPIC"]


def test_a_producer_of_a_dropped_transaction_is_not_known() -> None:
    replica = Replica()
    topic_id = replica.topic()
    replica.store.commit()
    replica.do(append(topic_id, [(0, 3, 0)], producer=7))
    replica.store.abort()
    replica.machine.reset()
    assert acks(replica.do(append(topic_id, [(0, 3, 0)], producer=7))) == [(0, 0, 3, False)]


def test_no_more_producers_are_kept_in_mind_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.cluster.state.catalog._MAX_PRODUCERS", 3)
    replica = Replica()
    topic_id = replica.topic("t", 8)
    batches = [(partition, 2, 0) for partition in range(8)]
    replica.do(append(topic_id, batches, producer=7))
    assert len(replica.machine._catalog.producers) <= 3
    again = acks(replica.do(append(topic_id, batches, producer=7)))
    assert again == [(partition, 0, 2, True) for partition in range(8)]
