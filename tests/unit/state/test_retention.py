"""Plans of retention, deletion and expiry, carried out to the end."""

from __future__ import annotations

from holdfast.cluster.commands import encode_op
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.retention import plan_expiry, plan_trims
from holdfast.storage import partitions, producers
from holdfast.storage.partitions import PartitionState

from .replica_kit import T0, Replica, append, delete, update

STEP = StateLimits(step_rows=4, scan_rows=8)


def state(replica: Replica, topic_id: int, partition: int = 0) -> PartitionState:
    found = partitions.read_state(replica.w, topic_id, partition)
    assert found is not None
    return found


def fill(replica: Replica, topic_id: int, batches: int, partition: int = 0) -> None:
    """Batches of two records, a second apart."""
    for _ in range(batches):
        replica.time_us += 999_000
        replica.do(append(topic_id, [(partition, 2)]))


def carry_out(replica: Replica, now_us: int) -> int:
    rounds = 0
    while ops := plan_trims(replica.w, now_us, limits=STEP):
        replica.run(*[encode_op(op) for op in ops])
        rounds += 1
        assert rounds < 100, "a plan that never ends"
    return rounds


def test_nothing_to_do() -> None:
    replica = Replica(STEP)
    assert plan_trims(replica.w, T0) == []
    fill(replica, replica.topic("t", 3), 5)
    replica.topic("old", retention_ms=1, retention_bytes=1)
    assert plan_trims(replica.w, T0 + 10**15) == []


def test_by_time() -> None:
    replica = Replica(STEP)
    topic_id = replica.topic("t", retention_ms=10_000)
    fill(replica, topic_id, 30)
    assert plan_trims(replica.w, replica.time_us - 25_000_000) == []
    assert carry_out(replica, replica.time_us) == 5
    # Eleven stay, of 0 to 10 seconds ago: as old as the retention is not older.
    assert state(replica, topic_id).start_offset == 38
    assert carry_out(replica, T0 + 60_000_000) == 3
    assert state(replica, topic_id).start_offset == state(replica, topic_id).next_offset == 60
    assert state(replica, topic_id).bytes == 0


def test_by_size() -> None:
    replica = Replica(STEP)
    topic_id = replica.topic("t")
    fill(replica, topic_id, 30)
    size = state(replica, topic_id).bytes // 30
    replica.do(update("t", retention_bytes=10 * size + size // 2))
    assert carry_out(replica, T0) == 5
    assert state(replica, topic_id).start_offset == 40
    assert state(replica, topic_id).bytes == 10 * size


def test_the_stricter_of_both_counts() -> None:
    replica = Replica(STEP)
    topic_id = replica.topic("t")
    fill(replica, topic_id, 20)
    size = state(replica, topic_id).bytes // 20
    replica.do(update("t", retention_bytes=15 * size, retention_ms=10_500))
    carry_out(replica, replica.time_us)
    assert state(replica, topic_id).start_offset == 18
    replica.do(update("t", retention_bytes=5 * size, retention_ms=10_500))
    carry_out(replica, replica.time_us)
    assert state(replica, topic_id).start_offset == 30


def test_plans_are_bounded_and_go_round() -> None:
    replica = Replica(STEP)
    topic_id = replica.topic("t", 5)
    other = replica.topic("u", 1)
    for partition in range(5):
        fill(replica, topic_id, 1, partition)
    fill(replica, other, 1)
    replica.do(update("t", retention_bytes=1))
    replica.do(update("u", retention_bytes=1))
    seen = []
    after = (0, 0)
    for _ in range(4):
        ops = plan_trims(replica.w, T0, after=after, max_ops=2)
        places = [(op.trim.topic_id, op.trim.partition) for op in ops]
        after = places[-1]
        seen.append(places)
    # (0, 0) lies before every partition, so the first plan begins at the first.
    assert seen == [
        [(topic_id, 0), (topic_id, 1)],
        [(topic_id, 2), (topic_id, 3)],
        [(topic_id, 4), (other, 0)],
        [(topic_id, 0), (topic_id, 1)],
    ]
    assert plan_trims(replica.w, T0, after=(other, 7))[0].trim.partition == 0


def test_deleted_topics_are_cleaned_up() -> None:
    replica = Replica(STEP)
    topic_id = replica.topic("t", 3)
    for partition in range(3):
        fill(replica, topic_id, 10, partition)
    replica.do(delete("t"))
    again = replica.topic("t", 3)
    fill(replica, again, 1)
    carry_out(replica, T0)
    assert [topic for topic, _, _ in partitions.scan_states(replica.w)] == [again] * 3
    assert state(replica, again).next_offset == 2


def test_expiry_goes_round_all_producers() -> None:
    replica = Replica(STEP)
    assert plan_expiry(replica.w, T0, idle_us=1) is None
    topic_id = replica.topic()
    for producer in range(1, 41):
        replica.do(append(topic_id, producer=producer))
    busy = [5, 17, 40]
    replica.time_us += 10_000_000
    for producer in busy:
        replica.do(append(topic_id, [(0, 1, 1)], producer=producer))
    for _ in range(30):
        op = plan_expiry(replica.w, replica.time_us, idle_us=5_000_000, limits=STEP)
        assert op is not None
        before = producers.count(replica.w)
        replica.do(encode_op(op))
        assert before - producers.count(replica.w) <= STEP.step_rows
    assert producers.count(replica.w) == len(busy)
    for producer in busy:
        assert producers.read(replica.w, topic_id, 0, producer) is not None
