"""Topics: create, update, delete, names and limits."""

from __future__ import annotations

import pytest

from holdfast.cluster.state.events import TopicCreated, TopicDeleted, TopicUpdated
from holdfast.cluster.state.limits import StateLimits
from holdfast.cluster.state.retention import plan_trims
from holdfast.storage import groups, journal, partitions, producers, topics
from holdfast.storage.port import Table

from .replica_kit import Replica, append, commit, create, delete, trim, update

SMALL = StateLimits(max_topics=3, max_partitions_per_topic=4, max_partitions=8, step_rows=16)


def test_a_topic_has_what_was_asked_for() -> None:
    replica = Replica()
    topic = replica.do(create("flights", 12, max_record_bytes=1000, retention_ms=5, retention_bytes=7)).topic
    assert (topic.id, topic.name, topic.partitions) == (1, "flights", 12)
    assert (topic.limits.max_record_bytes, topic.limits.retention_ms) == (1000, 5)
    assert topic.limits.retention_bytes == 7
    assert topic.created_at_us == replica.time_us
    for partition in range(12):
        state = partitions.read_state(replica.w, topic.id, partition)
        assert state is not None
        assert (state.start_offset, state.next_offset, state.bytes) == (0, 0, 0)
    assert partitions.read_state(replica.w, topic.id, 12) is None


def test_no_partition_count_means_the_default() -> None:
    replica = Replica(StateLimits(default_partitions=3))
    assert replica.do(create("t", 0)).topic.partitions == 3


def test_ids_are_never_given_out_twice() -> None:
    replica = Replica()
    first = replica.topic("a")
    replica.do(delete("a"))
    assert replica.topic("a") == first + 1


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "x" * 249, "..."])
def test_good_names(name: str) -> None:
    Replica().topic(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "ä", "a\n", "x" * 250, "x" * 10_000])
def test_bad_names(name: str) -> None:
    reason, metadata = Replica().refused(create(name))
    assert (reason, metadata["field"]) == ("INVALID_ARGUMENT", "name")


def test_an_existing_name() -> None:
    replica = Replica()
    topic_id = replica.topic("t", 2)
    assert replica.refused(create("t", 2)) == ("TOPIC_EXISTS", {"topic": "t", "partitions": "2"})
    assert replica.do(create("t", 2, if_not_exists=True)).topic.id == topic_id
    assert replica.do(create("t", 0, if_not_exists=True)).topic.id == topic_id
    assert replica.refused(create("t", 3, if_not_exists=True))[0] == "TOPIC_EXISTS"


def test_bounds() -> None:
    replica = Replica(SMALL)
    assert replica.refused(create("t", 5))[1]["field"] == "partitions"
    assert replica.refused(create("t", retention_ms=-1))[1]["field"] == "limits.retention_ms"
    assert replica.refused(create("t", retention_bytes=-1))[1]["field"] == "limits.retention_bytes"
    assert replica.refused(create("t", max_record_bytes=1 << 30))[1]["field"] == "limits.max_record_bytes"
    replica.topic("a", 4)
    replica.topic("b", 3)
    assert replica.refused(create("c", 2)) == ("LIMIT_EXCEEDED", {"limit": "8"})
    replica.topic("c", 1)
    assert replica.refused(create("d", 1)) == ("LIMIT_EXCEEDED", {"limit": "3"})
    replica.do(delete("a"))
    replica.topic("d", 4)


def test_update_replaces_all_limits() -> None:
    replica = Replica()
    topic_id = replica.topic("t", 2, retention_ms=5, retention_bytes=6)
    replica.do(append(topic_id))
    topic = replica.do(update("t", retention_bytes=9)).topic
    assert (topic.id, topic.partitions) == (topic_id, 2)
    assert (topic.limits.retention_ms, topic.limits.retention_bytes) == (0, 9)
    assert topics.find(replica.w, "t") == topics.read(replica.w, topic_id)
    assert replica.machine._catalog.topic(replica.w, topic_id).retention_bytes == 9
    assert replica.refused(update("u")) == ("UNKNOWN_TOPIC", {"topic": "u"})
    assert replica.refused(update("t", retention_ms=-1))[0] == "INVALID_ARGUMENT"


def test_a_deleted_topic_is_gone_at_once() -> None:
    replica = Replica()
    topic_id = replica.topic("t")
    replica.do(append(topic_id, producer=7))
    replica.do(commit("g", (topic_id, 0, 1)))
    replica.do(delete("t"))
    assert replica.refused(delete("t"))[0] == "UNKNOWN_TOPIC"
    assert replica.refused(append(topic_id)) == ("UNKNOWN_TOPIC", {"topic_id": str(topic_id)})
    assert replica.refused(commit("g", (topic_id, 0, 1)))[0] == "UNKNOWN_TOPIC"
    for table in (Table.PARTITIONS, Table.INDEX, Table.REFS, Table.OFFSETS):
        assert replica.w.count(table) == 0
    assert producers.count(replica.w) == 0
    assert groups.exists(replica.w, "g")
    assert plan_trims(replica.w, replica.time_us) == []


def test_a_large_topic_is_deleted_in_steps() -> None:
    replica = Replica(SMALL)
    keep = replica.topic("keep")
    topic_id = replica.topic("t", 4)
    for i in range(200):
        replica.do(append(topic_id, [(i % 4, 1)], producer=i + 1))
    for i in range(40):
        replica.do(commit(f"g{i}", (topic_id, 0, 1), (keep, 0, 0)))
    replica.do(append(keep))
    last = journal.read_meta(replica.w).last_index
    journal.trim_to(replica.w, last, 1, 10_000)
    rows = replica.w.count(Table.JOURNAL)
    replica.do(delete("t"))
    rounds = 0
    while ops := plan_trims(replica.w, replica.time_us, limits=SMALL):
        rounds += 1
        before = {table: replica.w.count(table) for table in Table}
        for op in ops:
            replica.do(trim(op.trim.topic_id, op.trim.partition, op.trim.before_offset))
            after = {table: replica.w.count(table) for table in Table}
            assert all(before[table] - after[table] <= SMALL.step_rows for table in Table)
            before = after
        assert rounds < 100
    assert replica.w.count(Table.PARTITIONS) == 1
    assert replica.w.count(Table.INDEX) == 1
    assert replica.w.count(Table.OFFSETS) == 40
    assert producers.count(replica.w) == 0
    # The journal rows of its batches are gone too; what came since is still the log's.
    since = journal.read_meta(replica.w).last_index - last
    assert replica.w.count(Table.JOURNAL) == rows - 200 + since
    assert replica.refused(trim(topic_id, 0, 1))[0] == "UNKNOWN_TOPIC"


def test_events() -> None:
    seen: list[object] = []
    replica = Replica(events=seen.append)
    topic_id = replica.topic("t", 2)
    replica.do(update("t"))
    replica.do(delete("t"))
    assert seen == [TopicCreated(topic_id, "t", 2), TopicUpdated(topic_id, "t"), TopicDeleted(topic_id, "t")]
