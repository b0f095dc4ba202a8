"""Sharing a group's partitions among its members: sticky, balanced, minimal moves."""

from __future__ import annotations

from collections.abc import Collection, Mapping

#: (topic id, partition)
PartitionKey = tuple[int, int]


def assign(
    members: Mapping[str, Collection[int]],
    partitions: Mapping[int, int],
    previous: Mapping[PartitionKey, str],
) -> dict[PartitionKey, str]:
    """Who owns what.

    A partition stays with its owner unless the owner is gone or no longer reads
    the topic, or another member that reads it has at least two partitions fewer.
    Deterministic: the same arguments give the same result.

    Args:
        members: topic ids each member reads.
        partitions: partition count of each topic.
        previous: the owners so far.
    """
    readers: dict[int, list[str]] = {
        topic: sorted(name for name, topics in members.items() if topic in topics) for topic in partitions
    }
    owned: dict[str, set[PartitionKey]] = {name: set() for name in members}
    orphans: list[PartitionKey] = []
    for topic, count in partitions.items():
        if not readers[topic]:
            continue
        for number in range(count):
            key = (topic, number)
            owner = previous.get(key)
            if owner is not None and owner in members and topic in members[owner]:
                owned[owner].add(key)
            else:
                orphans.append(key)
    # The choosiest first: what few members can take must not find them full.
    orphans.sort(key=lambda key: (len(readers[key[0]]), key))
    for key in orphans:
        owned[min(readers[key[0]], key=lambda name: (len(owned[name]), name))].add(key)
    _balance(owned, readers)
    return {key: name for name, keys in owned.items() for key in keys}


def _balance(owned: dict[str, set[PartitionKey]], readers: Mapping[int, list[str]]) -> None:
    """Move one partition at a time from the fullest to the emptiest that may have it.

    Each move lowers the sum of squared loads, so it ends; with equal
    subscriptions it moves no more partitions than balance needs.
    """
    moved = True
    while moved:
        moved = False
        for giver in sorted(owned, key=lambda name: (-len(owned[name]), name)):
            best: tuple[int, str, PartitionKey] | None = None
            # One candidate per topic is enough: its partitions are alike.
            highest: dict[int, PartitionKey] = {}
            for key in owned[giver]:
                if key[0] not in highest or key > highest[key[0]]:
                    highest[key[0]] = key
            for topic, key in highest.items():
                taker = min(readers[topic], key=lambda name: (len(owned[name]), name))
                choice = (len(owned[taker]), taker, key)
                if best is None or choice < best:
                    best = choice
            if best is not None and len(owned[giver]) - best[0] >= 2:
                owned[giver].remove(best[2])
                owned[best[1]].add(best[2])
                moved = True
                break
