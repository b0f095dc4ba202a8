"""Sharing partitions out: valid, balanced, sticky, with no move too many."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.delivery.assignment import PartitionKey, assign

Topics = dict[int, int]


def check(owners: dict[PartitionKey, str], members: dict[str, set[int]], partitions: Topics) -> None:
    """Every partition somebody reads has exactly one owner, who reads it."""
    read = {topic for topics in members.values() for topic in topics}
    expected = {(t, n) for t, count in partitions.items() if t in read for n in range(count)}
    assert owners.keys() == expected
    assert all(key[0] in members[owner] for key, owner in owners.items())


def loads(owners: dict[PartitionKey, str], members: dict[str, set[int]]) -> list[int]:
    counts = Counter(owners.values())
    return sorted(counts.get(name, 0) for name in members)


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=25),
    st.dictionaries(st.integers(1, 3), st.integers(1, 9), min_size=1, max_size=3),
)
def test_equal_members_share_evenly_and_move_the_minimum(changes: list[str], partitions: Topics) -> None:
    members: dict[str, set[int]] = {}
    owners: dict[PartitionKey, str] = {}
    total = sum(partitions.values())
    for name in changes:  # a name joins, or leaves when it is there
        before = owners
        joined = name not in members
        if joined:
            members[name] = set(partitions)
        else:
            del members[name]
        owners = assign(members, partitions, before)
        if not members:
            assert owners == {}
            continue
        check(owners, members, partitions)
        shares = loads(owners, members)
        assert shares[-1] - shares[0] <= 1
        moved = [key for key, owner in before.items() if owner in members and owners[key] != owner]
        if joined:
            assert all(owners[key] == name for key in moved)
            assert len(moved) <= total // len(members)
        else:
            assert moved == []


@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sets(st.integers(1, 3), min_size=1)), min_size=1, max_size=12
    ),
    st.fixed_dictionaries({1: st.integers(1, 6), 2: st.integers(1, 6), 3: st.integers(1, 6)}),
)
def test_members_that_read_different_topics(changes: list[tuple[str, set[int]]], partitions: Topics) -> None:
    members: dict[str, set[int]] = {}
    owners: dict[PartitionKey, str] = {}
    for name, topics in changes:
        if name in members:
            del members[name]
        else:
            members[name] = topics
        owners = assign(members, partitions, owners)
        check(owners, members, partitions)
        counts = Counter(owners.values())
        for key, owner in owners.items():
            for other, read in members.items():
                if key[0] in read:
                    assert counts[owner] - counts[other] <= 1


def test_nothing_changes_without_a_reason() -> None:
    members = {"a": {1}, "b": {1}, "c": {1}}
    owners = assign(members, {1: 7}, {})
    assert assign(members, {1: 7}, owners) == owners


def test_more_members_than_partitions() -> None:
    members = {name: {1} for name in "abcd"}
    owners = assign(members, {1: 2}, {})
    assert loads(owners, members) == [0, 0, 1, 1]


def test_the_choosy_are_served_first() -> None:
    owners = assign({"a": {1, 2}, "b": {2}}, {1: 2, 2: 2}, {})
    assert {key: owner for key, owner in owners.items() if key[0] == 1} == {(1, 0): "a", (1, 1): "a"}
    assert {owner for key, owner in owners.items() if key[0] == 2} == {"b"}
