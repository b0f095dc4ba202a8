"""Topics, producers and groups."""

from __future__ import annotations

import pytest

from holdfast.errors import StorageError
from holdfast.storage import groups, producers, topics
from holdfast.storage.groups import CommittedOffset
from holdfast.storage.port import Store
from holdfast.storage.producers import ProducerRow
from holdfast.storage.topics import TopicRow


def topic(topic_id: int, name: str) -> TopicRow:
    return TopicRow(topic_id, name, 12, 1 << 20, 3_600_000, 0, 1_700_000_000_000_000)


def test_topics(store: Store) -> None:
    w = store.writer()
    assert topics.next_id(w) == 1
    assert topics.find(w, "flights") is None
    b, a = topic(topics.take_id(w), "flüge"), topic(topics.take_id(w), "arrivals")
    assert (b.id, a.id) == (1, 2)
    topics.write(w, b)
    topics.write(w, a)
    assert topics.read(w, 1) == b
    assert topics.find(w, "arrivals") == a
    assert list(topics.scan(w)) == [b, a]
    assert list(topics.scan_by_name(w)) == [a, b]
    assert topics.count(w) == 2
    changed = TopicRow(1, "flüge", 12, 5, 6, 7, b.created_at_us)
    topics.write(w, changed)
    assert topics.find(w, "flüge") == changed
    assert topics.remove(w, 1) is True
    assert topics.remove(w, 1) is False
    assert topics.find(w, "flüge") is None
    assert topics.take_id(w) == 3  # ids do not come back


def test_a_topic_name_is_one_topic(store: Store) -> None:
    w = store.writer()
    topics.write(w, topic(1, "a"))
    with pytest.raises(StorageError, match="belongs to topic 1"):
        topics.write(w, topic(2, "a"))
    with pytest.raises(StorageError, match="is named 'a'"):
        topics.write(w, topic(1, "b"))


def test_producers_keep_the_last_eight(store: Store) -> None:
    w = store.writer()
    assert producers.read(w, 1, 0, 7) is None
    fresh = ProducerRow(0, -1, 5)
    producers.write(w, 1, 0, 7, fresh)
    assert producers.read(w, 1, 0, 7) == fresh
    many = tuple((i * 10, 10, i * 100, 1_000 + i) for i in range(12))
    packed = b""
    for number, batch in enumerate(many):
        packed = producers.pack_next(packed, *batch)
        producers.write(w, 1, 0, (1 << 64) - 1, ProducerRow(3, 10 * number + 9, 6, packed))
        row = producers.read(w, 1, 0, (1 << 64) - 1)
        assert row is not None
        assert row.recent == many[: number + 1][-8:]
    assert row == ProducerRow(3, 119, 6, packed)
    assert producers.count(w) == 2


def test_expiry_is_bounded_and_gets_round(store: Store) -> None:
    w = store.writer()
    for i in range(10):
        producers.write(w, 1, 0, i, ProducerRow(0, 0, i))
    assert producers.expire(w, 5, limit=2, scan_limit=4) == 2  # 0, 1
    assert producers.expire(w, 5, limit=2, scan_limit=4) == 2  # 2, 3
    assert producers.expire(w, 5, limit=2, scan_limit=4) == 1  # 4, then 5 to 7
    assert producers.expire(w, 5, limit=2, scan_limit=4) == 0  # 8, 9: the end
    assert producers.count(w) == 5
    assert producers.expire(w, 7, limit=9, scan_limit=4) == 2  # from the start again: 5, 6
    assert [i for i in range(10) if producers.read(w, 1, 0, i)] == [7, 8, 9]
    assert producers.expire(w, 100, limit=0) == 0


def test_producers_of_a_dropped_partition_go(store: Store) -> None:
    w = store.writer()
    for partition in (0, 1, 2):
        for i in range(5):
            producers.write(w, 1, partition, i, ProducerRow(0, 0, 0))
    assert producers.drop_partition(w, 1, 1, limit=3) is False
    assert producers.drop_partition(w, 1, 1, limit=3) is True
    assert producers.count(w) == 10
    assert producers.read(w, 1, 1, 0) is None


def test_group_offsets(store: Store) -> None:
    w = store.writer()
    assert groups.committed(w, "g", 1, 0) is None
    assert not groups.exists(w, "g")
    groups.commit_offset(w, "g", 1, 0, 5)
    groups.commit_offset(w, "g", 1, 0, 9)
    groups.commit_offset(w, "g", 1, 1, 2)
    groups.commit_offset(w, "g", 2, 0, 3)
    groups.commit_offset(w, "gg", 1, 0, 1)
    groups.commit_offset(w, "a", 1, 0, 1)
    assert groups.committed(w, "g", 1, 0) == 9
    assert list(groups.offsets(w, "g")) == [
        CommittedOffset(1, 0, 9),
        CommittedOffset(1, 1, 2),
        CommittedOffset(2, 0, 3),
    ]
    assert list(groups.offsets(w, "g", 2)) == [CommittedOffset(2, 0, 3)]
    assert groups.list_groups(w) == ["a", "g", "gg"]
    assert groups.list_groups(w, after="a", limit=1) == ["g"]
    assert groups.count(w) == 3
    assert groups.committed(w, "x" * 600, 1, 0) is None


def test_group_and_topic_deletion(store: Store) -> None:
    w = store.writer()
    for name in ("a", "b"):
        for partition in range(4):
            groups.commit_offset(w, name, 1, partition, 1)
            groups.commit_offset(w, name, 0xFFFFFFFF, partition, 1)
    steps = 1
    while not groups.delete_topic(w, 0xFFFFFFFF, limit=3):
        steps += 1
    assert steps == 3
    assert [o.topic_id for o in groups.offsets(w, "a")] == [1] * 4
    assert not groups.delete_group(w, "a", limit=4)
    assert groups.delete_group(w, "a", limit=4)
    assert groups.list_groups(w) == ["b"]
    assert len(list(groups.offsets(w, "b"))) == 4
