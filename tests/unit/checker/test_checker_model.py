"""A naive bus that keeps every promise, run at random: clean; with one change to its history, never."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.chaos.checker import check
from holdfast.chaos.checker.history import (
    Acked,
    Assigned,
    Committed,
    Delivered,
    Event,
    History,
    OffsetRead,
    Outcome,
    Publish,
    Read,
    Replica,
)

PARTITIONS = 2
NODES = ("n1", "n2", "n3")


class NaiveBus:
    """Lists and dicts, one clock that counts steps; every answer is right at once or unknown."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.history = History()
        self.logs: list[list[str]] = [[] for _ in range(PARTITIONS)]
        self.sequences: dict[str, int] = {}
        self.published = 0
        self.sessions = 0
        self.session: list[str] = [""] * PARTITIONS
        self.next = [0] * PARTITIONS
        self.acked: list[set[int]] = [set() for _ in range(PARTITIONS)]
        self.committed = [0] * PARTITIONS
        self.late: list[tuple[int, str]] = []

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def step(self) -> None:
        actions = [self.publish] * 5 + [self.deliver] * 4 + [self.ack] * 3 + [self.commit, self.replay]
        self.random.choice([*actions, self.connect, self.read_offset])()

    def publish(self) -> None:
        chance = self.random
        producer = chance.choice(["p", "q"])
        self.sequences[producer] = sequence = self.sequences.get(producer, -1) + 1
        value = f"v{self.published}"
        self.published += 1
        key = chance.choice([None, "k0", "k1"])
        partition = int(key[1]) if key else chance.randrange(PARTITIONS)
        event = Publish("c", producer, sequence, "t", value, self.tick(), key=key)
        self.history.add(event)
        fate = chance.random()
        if fate < 0.1:
            event.outcome = Outcome.FAIL
        elif fate < 0.15:
            pass  # unknown, without effect
        else:
            self.logs[partition].append(value)
            if fate < 0.9:
                event.outcome = Outcome.OK
                event.partition, event.offset = partition, len(self.logs[partition]) - 1
        event.ended = self.tick()

    def connect(self) -> None:
        partition = self.random.randrange(PARTITIONS)
        self.sessions += 1
        self.session[partition] = f"s{self.sessions}"
        self.next[partition] = self.committed[partition]
        self.acked[partition] = {o for o in self.acked[partition] if o < self.committed[partition]}
        self.history.add(
            Assigned(
                "m",
                "g",
                self.session[partition],
                self.sessions,
                "t",
                partition,
                self.committed[partition],
                self.tick(),
                "earliest",
            )
        )

    def deliver(self) -> None:
        partition = self.random.randrange(PARTITIONS)
        offset = self.next[partition]
        if self.session[partition] and offset < len(self.logs[partition]):
            self.next[partition] += 1
            value = self.logs[partition][offset]
            session = self.session[partition]
            self.history.add(Delivered("m", "g", session, "t", partition, offset, value, self.tick()))

    def ack(self) -> None:
        partition = self.random.randrange(PARTITIONS)
        waiting = list(range(self.committed[partition], self.next[partition]))
        if self.session[partition] and waiting:
            first = self.random.choice(waiting)
            last = self.random.randrange(first, self.next[partition])
            self.acked[partition] |= set(range(first, last + 1))
            session = self.session[partition]
            self.history.add(Acked("m", "g", session, "t", partition, first, last, self.tick()))

    def commit(self) -> None:
        partition = self.random.randrange(PARTITIONS)
        if not self.session[partition]:
            return
        while self.committed[partition] in self.acked[partition]:
            self.committed[partition] += 1
        session = self.session[partition]
        self.history.add(Committed("g", "t", partition, self.committed[partition], self.tick(), session))

    def replay(self) -> None:
        partition = self.random.randrange(PARTITIONS)
        log = self.logs[partition]
        first = self.random.randint(0, len(log))
        began = self.tick()
        records = list(enumerate(log))[first:]
        self.history.add(
            Read("r", "t", partition, first, began, records, self.tick(), Outcome.OK, to_end=True)
        )

    def read_offset(self) -> None:
        partition = self.random.randrange(PARTITIONS)
        began = self.tick()
        self.history.add(
            OffsetRead("g", "t", partition, began, self.tick(), Outcome.OK, self.committed[partition])
        )

    def rest(self) -> None:
        for partition, log in enumerate(self.logs):
            for node in NODES:
                records = list(enumerate(log))
                self.history.add(Replica(node, "t", partition, 0, len(log), "d", records, "c"))


def run(seed: int, steps: int) -> History:
    bus = NaiveBus(seed)
    for _ in range(steps):
        bus.step()
    bus.rest()
    return bus.history


def replicas(events: list[Event], chance: random.Random, least: int) -> list[Replica]:
    """All replicas of one partition that holds at least so many records; none: there is no such."""
    held = sorted({e.partition for e in events if isinstance(e, Replica) and len(e.records) >= least})
    if not held:
        return []
    partition = chance.choice(held)
    return [e for e in events if isinstance(e, Replica) and e.partition == partition]


def rewrite(events: list[Event], changed: list[Replica], values: list[str]) -> None:
    for replica in changed:
        events[events.index(replica)] = msgspec.structs.replace(
            replica, records=list(enumerate(values)), end_offset=len(values)
        )


def acked_offsets(events: list[Event], partition: int) -> list[int]:
    return [
        e.offset
        for e in events
        if isinstance(e, Publish)
        and e.outcome is Outcome.OK
        and e.partition == partition
        and e.offset is not None
    ]


def drop_everywhere(events: list[Event], chance: random.Random) -> bool:
    """An acked record is gone from all replicas, and the later ones moved down."""
    changed = replicas(events, chance, 1)
    offsets = acked_offsets(events, changed[0].partition) if changed else []
    if not offsets:
        return False
    values = [value for _, value in changed[0].records]
    del values[chance.choice(offsets)]
    rewrite(events, changed, values)
    return True


def drop_on_one(events: list[Event], chance: random.Random) -> bool:
    """The last record is missing on one replica."""
    changed = replicas(events, chance, 1)
    if changed:
        rewrite(events, [chance.choice(changed)], [value for _, value in changed[0].records[:-1]])
    return bool(changed)


def drop_within(events: list[Event], chance: random.Random) -> bool:
    """A hole in one replica."""
    changed = replicas(events, chance, 3)
    if not changed:
        return False
    one = chance.choice(changed)
    records = list(one.records)
    del records[chance.randrange(1, len(records) - 1)]
    events[events.index(one)] = msgspec.structs.replace(one, records=records)
    return True


def swap(events: list[Event], chance: random.Random) -> bool:
    """Two records change places on all replicas; one of them was acknowledged."""
    changed = replicas(events, chance, 2)
    offsets = acked_offsets(events, changed[0].partition) if changed else []
    if not offsets:
        return False
    values = [value for _, value in changed[0].records]
    one = chance.choice(offsets)
    two = chance.choice([offset for offset in range(len(values)) if offset != one])
    values[one], values[two] = values[two], values[one]
    rewrite(events, changed, values)
    return True


def duplicate(events: list[Event], chance: random.Random) -> bool:
    """A record lies in the log twice, on all replicas."""
    changed = replicas(events, chance, 1)
    if changed:
        values = [value for _, value in changed[0].records]
        rewrite(events, changed, [*values, chance.choice(values)])
    return bool(changed)


def alter(events: list[Event], chance: random.Random) -> bool:
    """A record has another value on all replicas."""
    changed = replicas(events, chance, 1)
    if changed:
        values = [value for _, value in changed[0].records]
        values[chance.randrange(len(values))] += "!"
        rewrite(events, changed, values)
    return bool(changed)


def resurrect(events: list[Event], chance: random.Random) -> bool:
    """A publish that failed is in the log after all."""
    failed = [e.value for e in events if isinstance(e, Publish) and e.outcome is Outcome.FAIL]
    changed = replicas(events, chance, 0)
    if failed:
        rewrite(events, changed, [*(value for _, value in changed[0].records), chance.choice(failed)])
    return bool(failed)


def alter_read(events: list[Event], chance: random.Random) -> bool:
    """One replay shows another value."""
    reads = [e for e in events if isinstance(e, Read) and e.records]
    if not reads:
        return False
    one = chance.choice(reads)
    records = list(one.records)
    place = chance.randrange(len(records))
    records[place] = (records[place][0], "other")
    events[events.index(one)] = msgspec.structs.replace(one, records=records)
    return True


def shorten_read(events: list[Event], chance: random.Random) -> bool:
    """A linearizable replay to the end misses its last record, which was acknowledged before."""
    found = []
    for event in events:
        if isinstance(event, Read) and event.records:
            last = event.records[-1][0]
            if last in acked_offsets(events, event.partition):
                found.append(event)
    if not found:
        return False
    one = chance.choice(found)
    events[events.index(one)] = msgspec.structs.replace(one, records=one.records[:-1])
    return True


def drop_from_read(events: list[Event], chance: random.Random) -> bool:
    """A replay leaves one out."""
    reads = [e for e in events if isinstance(e, Read) and len(e.records) > 1]
    if not reads:
        return False
    one = chance.choice(reads)
    records = list(one.records)
    del records[chance.randrange(len(records) - 1)]
    events[events.index(one)] = msgspec.structs.replace(one, records=records)
    return True


def repeat_delivery(events: list[Event], chance: random.Random) -> bool:
    """A record is delivered twice in a row."""
    given = [e for e in events if isinstance(e, Delivered)]
    if given:
        one = chance.choice(given)
        events.insert(events.index(one), one)
    return bool(given)


def skip_delivery(events: list[Event], chance: random.Random) -> bool:
    """A record is not delivered, and the next one is, with nothing acked in between."""
    found = []
    for one in events:
        if not isinstance(one, Delivered):
            continue
        later = [
            e
            for e in events
            if isinstance(e, Delivered) and e.session == one.session and e.offset == one.offset + 1
        ]
        covered = [
            e
            for e in events
            if isinstance(e, Acked) and e.partition == one.partition and e.first <= one.offset <= e.last
        ]
        if later and not any(e.at < later[0].at for e in covered):
            found.append(one)
    if found:
        events.remove(chance.choice(found))
    return bool(found)


def rewind_commit(events: list[Event], chance: random.Random) -> bool:
    """A session is told a smaller offset than before."""
    told = [e for e in events if isinstance(e, Committed) and e.offset > 0]
    if told:
        one = chance.choice(told)
        back = msgspec.structs.replace(one, offset=chance.randrange(one.offset))
        events.insert(events.index(one) + 1, back)
    return bool(told)


def advance_commit(events: list[Event], chance: random.Random) -> bool:
    """An offset is confirmed one beyond what was acknowledged."""
    told = [e for e in events if isinstance(e, Committed)]
    if told:
        one = chance.choice(told)
        acks = [e for e in events if isinstance(e, Acked) and e.partition == one.partition and e.at <= one.at]
        covered = {offset for e in acks for offset in range(e.first, e.last + 1)}
        ahead = one.offset
        while ahead in covered:
            ahead += 1
        events[events.index(one)] = msgspec.structs.replace(one, offset=ahead + 1)
    return bool(told)


def rewind_start(events: list[Event], chance: random.Random) -> bool:
    """A session starts below what was confirmed."""
    found = [
        e
        for e in events
        if isinstance(e, Assigned)
        and any(
            isinstance(c, Committed) and c.partition == e.partition and c.offset > 0 and c.at < e.at
            for c in events
        )
    ]
    if found:
        one = chance.choice(found)
        events[events.index(one)] = msgspec.structs.replace(
            one, start_offset=chance.randrange(one.start_offset)
        )
    return bool(found)


def stale_offset(events: list[Event], chance: random.Random) -> bool:
    """The group's offset is read below what was confirmed."""
    found = [
        e
        for e in events
        if isinstance(e, OffsetRead)
        and e.offset
        and any(
            isinstance(c, Committed)
            and c.partition == e.partition
            and c.offset == e.offset
            and c.at < e.started
            for c in events
        )
    ]
    if found:
        one = chance.choice(found)
        events[events.index(one)] = msgspec.structs.replace(one, offset=(one.offset or 1) - 1)
    return bool(found)


MUTATIONS: list[Callable[[list[Event], random.Random], bool]] = [
    drop_everywhere,
    drop_on_one,
    drop_within,
    swap,
    duplicate,
    alter,
    resurrect,
    alter_read,
    shorten_read,
    drop_from_read,
    repeat_delivery,
    skip_delivery,
    rewind_commit,
    advance_commit,
    rewind_start,
    stale_offset,
]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(0, 150))
def test_a_naive_bus_keeps_every_promise(seed: int, steps: int) -> None:
    assert check(run(seed, steps)) == []


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_one_change_is_found(mutate: Callable[[list[Event], random.Random], bool]) -> None:
    changed = 0

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 2**32), steps=st.integers(100, 200))
    def changed_once(seed: int, steps: int) -> None:
        nonlocal changed
        history = run(seed, steps)
        if mutate(history.events, random.Random(seed)):
            changed += 1
            assert check(history), "the change went unseen"

    changed_once()
    assert changed > 0
