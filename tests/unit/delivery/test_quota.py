"""Sharing out by quota: valid, balanced, and exactly as few moves as any balanced assignment needs."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.quota import share_out

Owners = dict[PartitionKey, str]


def all_of(topics: dict[int, int]) -> list[PartitionKey]:
    return [(topic, number) for topic, count in topics.items() for number in range(count)]


def moves(before: Owners, after: Owners, members: set[str]) -> int:
    """Partitions taken from a member that is still there."""
    return sum(1 for key, name in before.items() if key in after and name in members and after[key] != name)


def least_moves(before: Owners, members: set[str], partitions: list[PartitionKey]) -> int:
    """The fewest moves of any balanced assignment, by dynamic programming over the members.

    ``best[j]`` is the most partitions that can stay when j of the members looked at so far have
    the larger share: nothing of the greedy choice the code under test makes is assumed.
    """
    held = Counter(before[key] for key in partitions if before.get(key) in members)
    share, larger = divmod(len(partitions), len(members))
    best = [0]
    for name in members:
        has = held[name]
        grown = [-1] * min(len(best) + 1, larger + 1)
        for j, stay in enumerate(best):
            if stay < 0:
                continue
            if j < len(grown):
                grown[j] = max(grown[j], stay + min(has, share))
            if j + 1 < len(grown):
                grown[j + 1] = max(grown[j + 1], stay + min(has, share + 1))
        best = grown
    return held.total() - best[larger]


def check(members: set[str], partitions: list[PartitionKey], before: Owners) -> Owners:
    """Share out, and look at everything that must hold of it."""
    after = share_out(members, partitions, before)
    assert after.keys() == set(partitions)
    loads = Counter(after.values())
    assert set(loads) <= members
    shares = [loads[name] for name in members]
    assert max(shares) - min(shares) <= 1
    assert moves(before, after, members) == least_moves(before, members, partitions)
    assert share_out(members, partitions, after) == after  # and then nothing moves
    return after


def test_the_bound_itself() -> None:
    """The dynamic programme against all choices of who has the larger share, where they can be counted."""
    draw = random.Random(7)
    for _ in range(200):
        members = {f"m{i}" for i in range(draw.randint(1, 5))}
        partitions = all_of({1: draw.randint(0, 9)})
        before = {key: f"m{draw.randint(0, 5)}" for key in partitions}
        held = Counter(name for name in before.values() if name in members)
        share, larger = divmod(len(partitions), len(members))
        counted = min(
            sum(max(0, held[name] - share - (name in chosen)) for name in members)
            for chosen in map(set, combinations(sorted(members), larger))
        )
        assert least_moves(before, members, partitions) == counted


@settings(max_examples=60)
@given(
    st.integers(1, 200),
    st.dictionaries(st.integers(1, 6), st.integers(1, 120), min_size=1, max_size=5),
    st.integers(0, 2**32),
)
def test_any_owners_before(members: int, topics: dict[int, int], seed: int) -> None:
    """Previous owners drawn at random, lopsided, some of them gone, some partitions new or gone."""
    draw = random.Random(seed)
    names = [f"m{i:03}" for i in range(members)]
    favourites = draw.choices([*names, "gone", "left"], k=draw.randint(1, 12))
    everywhere = all_of({topic: count + 5 for topic, count in topics.items()})
    before = {
        key: draw.choice(favourites if draw.random() < 0.7 else names)
        for key in everywhere
        if draw.random() < 0.9
    }
    check(set(names), all_of(topics), before)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(0, 200), st.randoms())
def test_joins_and_leaves(changes: list[int], partitions: int, draw: random.Random) -> None:
    """Each id joins, or leaves when it is there; sometimes several at once, sometimes a new topic."""
    members: set[str] = set()
    topics = {1: partitions}
    owners: Owners = {}
    for each in changes:
        members ^= {f"m{each}"}
        if draw.random() < 0.2:
            topics[len(topics) + 1] = draw.randint(1, 10)
        if draw.random() < 0.3 or not members:
            continue  # goes along with the next
        owners = check(members, all_of(topics), owners)


def test_a_hundred_members() -> None:
    """One leaves, one joins, and nothing moves that need not."""
    members = {f"m{i:03}" for i in range(100)}
    partitions = all_of({1: 512, 2: 488})
    owners = check(members, partitions, {})
    assert set(Counter(owners.values()).values()) == {10}
    members.remove("m042")
    after = check(members, partitions, owners)
    assert [key for key, name in owners.items() if name != "m042" and after[key] != name] == []
    members.add("m100")
    again = check(members, partitions, after)
    moved = {key for key in partitions if again[key] != after[key]}
    assert len(moved) == 10
    assert {again[key] for key in moved} == {"m100"}


def test_the_same_whatever_the_order() -> None:
    members = [f"m{i}" for i in range(7)]
    partitions = all_of({1: 20, 2: 11})
    before = {key: members[key[1] % 3] for key in partitions}
    expected = share_out(members, partitions, before)
    draw = random.Random(1)
    for _ in range(5):
        draw.shuffle(members)
        draw.shuffle(partitions)
        shuffled = dict(draw.sample(sorted(before.items()), len(before)))
        assert share_out(members, partitions, shuffled) == expected


def test_topics_are_spread() -> None:
    """Who joins is given some of each topic, not the whole of one; so is everybody at the start."""
    partitions = all_of({1: 8, 2: 8})
    start = share_out({"a", "b"}, partitions, {})
    assert Counter((name, key[0]) for key, name in start.items()) == dict.fromkeys(
        [("a", 1), ("a", 2), ("b", 1), ("b", 2)], 4
    )
    after = share_out({"a", "b", "c", "d"}, partitions, start)
    assert set(Counter((name, key[0]) for key, name in after.items()).values()) == {2}


@pytest.mark.parametrize("members", [set(), {"a"}])
def test_next_to_nothing(members: set[str]) -> None:
    assert share_out(members, [], {(1, 0): "a"}) == {}
    assert share_out(members, [(1, 0)], {}) == dict.fromkeys([(1, 0)] if members else [], "a")
