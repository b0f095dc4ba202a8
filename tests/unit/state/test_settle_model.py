"""Settling against a naive model of sets and dictionaries, and replicas against each other.

Chunks are made to hold eight bits, so that floors cross them all the time.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from holdfast.cluster.commands import encode_entry
from holdfast.cluster.group_definition import Definition, backoff_ms, check
from holdfast.cluster.state.limits import StateLimits
from holdfast.storage import bits, groups, journal, partitions
from holdfast.storage.lmdb_store import LmdbStore
from holdfast.storage.port import Table
from holdfast.storage.retries import NEVER_US, State
from holdfast.v1 import bus_pb2, log_pb2

from .group_kit import definition, put, seek
from .replica_kit import Replica, append, commit, create, delete, trim
from .settle_kit import (
    EXPIRED,
    LET_GO,
    LOST,
    NACK,
    PARK,
    REJECT,
    above,
    floor_of,
    flow,
    grow,
    identity,
    item,
    letter,
    restore,
    row_of,
    settle,
    sweep,
    waiting,
)
from .transact_kit import transaction

LIMITS = StateLimits(step_rows=3, scan_rows=4, max_settled_ahead=1 << 30)
DEAD = 3
#: Topic and partition; the last one is of no topic.
PLACES = [(1, 0), (1, 1), (2, 0), (9, 0)]
#: Group g gives a record so many attempts, h any number and has no dead-letter topic.
GROUPS = ("g", "h")
CAUSES = (NACK, EXPIRED, LOST, PARK, REJECT, LET_GO)
CHARGED = (NACK, EXPIRED, LOST, REJECT)


@pytest.fixture(autouse=True)
def small_chunks() -> Iterator[None]:
    before = bits.CHUNK_BITS, bits.CHUNK_BYTES
    bits.CHUNK_BITS, bits.CHUNK_BYTES = 8, 1
    yield
    bits.CHUNK_BITS, bits.CHUNK_BYTES = before


class Refused(Exception):
    """The model would not do it; the argument is the reason."""


@dataclass
class Row:
    attempts: int = 0
    losses: int = 0
    state: State = State.WAITING
    due_us: int = 0


@dataclass
class Flow:
    """One group in one partition: which records are settled, and which wait."""

    settled: set[int] = field(default_factory=set)
    rows: dict[int, Row] = field(default_factory=dict)
    floor: int | None = None
    fence: int = 0

    def at(self, offset: int) -> Row | None:
        return None if offset in self.settled else self.rows.get(offset)

    def tidy(self) -> None:
        floor = self.floor or 0
        while floor in self.settled:
            floor += 1
        if self.settled or self.rows or self.floor is not None:
            self.floor = floor
        self.rows = {offset: row for offset, row in self.rows.items() if offset not in self.settled}


@dataclass
class World:
    ends: dict[tuple[int, int], int]
    flows: dict[tuple[str, int, int], Flow]
    definitions: dict[str, Definition]
    letters: int = 0

    def flow(self, group: str, place: tuple[int, int]) -> Flow:
        return self.flows.setdefault((group, *place), Flow())

    def settle(self, op: log_pb2.SettleOp, now_us: int) -> None:
        for part in op.flows:
            place = (part.topic_id, part.partition)
            if place not in self.ends:
                if any(each.dead for each in part.retries):
                    raise Refused("STALE_GROUP")
                continue
            found = self.flow(op.group, place)
            if part.fence not in (0, found.fence):
                raise Refused("FENCED")
            at = part.base
            for gap, length in zip(part.runs[::2], part.runs[1::2], strict=True):
                found.settled |= set(range(at + gap, at + gap + length))
                at += gap + length
            if max(at if part.runs else 0, part.floor) > self.ends[place]:
                raise Refused("OFFSET_OUT_OF_RANGE")
            for each in part.retries:
                self.retry(op.group, place, found, each, now_us)
            if part.HasField("floor"):
                found.settled |= set(range(part.floor))
                found.floor = max(found.floor or 0, part.floor)
            found.tidy()

    def retry(
        self, group: str, place: tuple[int, int], found: Flow, it: log_pb2.RetryItem, now_us: int
    ) -> None:
        definition = self.definitions[group]
        if it.offset >= self.ends[place]:
            raise Refused("OFFSET_OUT_OF_RANGE")
        if it.offset in found.settled:
            if it.dead:
                raise Refused("STALE_GROUP")
            return
        was = found.at(it.offset)
        row = copy.copy(was or Row())
        row.attempts += it.cause in CHARGED
        row.losses += it.cause == LOST
        exhausted = it.cause != PARK and 0 < definition.max_attempts <= row.attempts
        exhausted |= it.cause == REJECT and definition.dead_letter_topic != ""
        if it.dead and not exhausted:
            raise Refused("STALE_GROUP")
        if it.dead:
            found.settled.add(it.offset)
            self.letters += 1
            return
        if was is None and it.cause == LET_GO:
            return
        row.state, row.due_us = State.WAITING, now_us
        delay_us = it.delay_ms * 1000 if it.HasField("delay_ms") else None
        if exhausted or it.cause == LET_GO:
            pass
        elif it.cause == LOST:
            row.state = State.SUSPECT
        elif it.cause == REJECT or (it.cause == PARK and delay_us is None):
            row.state, row.due_us = State.PARKED_FOR_GOOD, NEVER_US
        elif it.cause == PARK:
            row.state, row.due_us = State.PARKED, now_us + (delay_us or 0)
        elif delay_us is None:
            wait = backoff_ms(definition, identity(group, *place, it.offset), row.attempts)
            row.due_us += wait * 1000
        else:
            row.due_us += delay_us
        found.rows[it.offset] = row


def dead_in(op: log_pb2.SettleOp) -> int:
    return sum(each.dead for part in op.flows for each in part.retries)


def framed(op: log_pb2.SettleOp) -> bytes:
    """The operation with as many dead letters as it says."""
    return settle(op.group, *op.flows, dead=[letter(DEAD, n // 2 % 2) for n in range(dead_in(op))])


def limited(attempts: int) -> bus_pb2.GroupDefinition:
    return definition("t", "u", attempts=attempts, dead_letter_topic="dead")


def unlimited() -> bus_pb2.GroupDefinition:
    return definition("t", retry=bus_pb2.RetryPolicy(initial_ms=20, max_ms=100))


def start(replica: Replica) -> None:
    replica.run(
        create("t", 2), create("u", 1), create("dead", 2), put("g", limited(3)), put("h", unlimited())
    )


#: Mostly within what is there at first.
offsets = st.integers(0, 66)
items = st.builds(
    item,
    offset=offsets,
    cause=st.sampled_from(CAUSES),
    delay_ms=st.none() | st.integers(0, 500),
    error=st.sampled_from(["", "why"]),
)


class Comparison(RuleBasedStateMachine):
    """Every result is what the model says; so are all rows, after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.replica = Replica(LIMITS)
        self.last: log_pb2.SettleOp | None = None
        self.transactions = 0

    @initialize()
    def begin(self) -> None:
        start(self.replica)
        definitions = {"g": check(limited(3)), "h": check(unlimited())}
        self.world = World({(1, 0): 0, (1, 1): 0, (2, 0): 0}, {}, definitions)
        for topic, partition in self.world.ends:
            self.grow(topic, partition, 64)

    def run(self, op: bytes) -> log_pb2.OpResult:
        (result,) = self.replica.run(op).results
        return result

    def grow(self, topic: int, partition: int, count: int) -> None:
        self.run(grow(topic, partition, count))
        self.world.ends[topic, partition] += count

    @rule(place=st.sampled_from(PLACES[:3]), count=st.integers(1, 20))
    def append_records(self, place: tuple[int, int], count: int) -> None:
        if place in self.world.ends:
            self.grow(*place, count)

    @rule(
        data=st.data(),
        group=st.sampled_from(GROUPS),
        places=st.lists(st.sampled_from(PLACES), min_size=1, max_size=3, unique=True),
    )
    def settle(self, data: st.DataObject, group: str, places: list[tuple[int, int]]) -> None:
        op = log_pb2.SettleOp(group=group)
        for place in places:
            acked = data.draw(st.sets(offsets, max_size=6))
            first, length = data.draw(st.tuples(offsets, st.integers(0, 30)))
            if data.draw(st.booleans()):
                acked |= set(range(first, first + length))
            floor = data.draw(st.none() | st.none() | st.integers(0, 60))
            fence = self.world.flow(group, place).fence + data.draw(st.sampled_from([0, 0, 0, 0, 0, 1]))
            part = flow(*place, offsets=self.within(place, acked, data), floor=floor, fence=fence)
            part.retries.extend(data.draw(st.lists(items, max_size=4)))
            op.flows.append(part)
        self.mark_dead(op, data)
        self.apply(op)

    def within(self, place: tuple[int, int], acked: set[int], data: st.DataObject) -> set[int]:
        """Mostly not past the end."""
        if data.draw(st.integers(0, 9)) == 0:
            return acked
        return {offset for offset in acked if offset < self.world.ends.get(place, 0)}

    def mark_dead(self, op: log_pb2.SettleOp, data: st.DataObject) -> None:
        """Say of records that they die, mostly of those that do."""
        if op.group == "h" or data.draw(st.booleans()):
            return
        for part in op.flows:
            for each in part.retries:
                each.dead = True
                try:
                    copy.deepcopy(self.world).settle(op, self.replica.time_us + 1000)
                except Refused:
                    each.dead = data.draw(st.integers(0, 8)) == 0

    def apply(self, op: log_pb2.SettleOp) -> None:
        after = copy.deepcopy(self.world)
        result = self.run(framed(op))
        refused = ""
        try:
            after.settle(op, self.replica.time_us)
        except Refused as error:
            refused = str(error)
        if refused:
            # Of two reasons either may be found first.
            assert result.error.reason in ("STALE_GROUP", "OFFSET_OUT_OF_RANGE", "FENCED")
            return
        assert not result.HasField("error"), result.error
        self.world = after
        self.last = op
        for part, state in zip(op.flows, result.settle.flows, strict=True):
            place = (part.topic_id, part.partition)
            if place not in after.ends:
                assert (state.floor, len(state.retries)) == (-1, 0)
                continue
            found = after.flow(op.group, place)
            assert state.floor == (found.floor or 0)
            wanted = [(each.offset, found.at(each.offset)) for each in part.retries]
            assert [(each.offset, each.attempts, each.state, each.due_us) for each in state.retries] == [
                (offset, 0, 0, 0) if row is None else (offset, row.attempts, int(row.state), row.due_us)
                for offset, row in wanted
            ]

    @rule()
    def repeat(self) -> None:
        """Acks and floors may be said again."""
        if self.last is None:
            return
        op = log_pb2.SettleOp(group=self.last.group)
        for part in self.last.flows:
            again = op.flows.add()
            again.CopyFrom(part)
            del again.retries[:]
            again.fence = 0
        letters = self.world.letters
        self.apply(op)
        assert self.world.letters == letters

    @rule(
        group=st.sampled_from(GROUPS),
        place=st.sampled_from(PLACES),
        offset=offsets,
        stale=st.sampled_from([0, 0, 0, 1]),
    )
    def commit(self, group: str, place: tuple[int, int], offset: int, stale: int) -> None:
        known = self.world.flow(group, place).fence if place in self.world.ends else 0
        result = self.run(commit(group, (*place, offset), fence=known + stale))
        if place not in self.world.ends:
            assert result.error.reason == "UNKNOWN_TOPIC"
        elif known and stale:
            assert result.error.reason == "FENCED"
        elif offset > self.world.ends[place]:
            assert result.error.reason == "OFFSET_OUT_OF_RANGE"
        else:
            found = self.world.flow(group, place)
            found.settled |= set(range(offset))
            found.floor = max(found.floor or 0, offset)
            found.tidy()

    @rule(
        group=st.sampled_from(GROUPS),
        place=st.sampled_from(PLACES),
        named=st.sets(offsets, max_size=20),
        discard=st.booleans(),
    )
    def restore(self, group: str, place: tuple[int, int], named: set[int], discard: bool) -> None:
        end = self.world.ends.get(place, 0)
        result = self.run(
            restore(group, flow(*place, offsets={n for n in named if n < end}), discard=discard)
        )
        assert not result.HasField("error"), result.error
        if place not in self.world.ends:
            return
        found = self.world.flow(group, place)
        parked = [
            offset
            for offset in sorted(named)
            if offset < end
            and (row := found.at(offset)) is not None
            and row.state in (State.PARKED, State.PARKED_FOR_GOOD)
        ]
        assert [each.offset for each in result.settle.flows[0].retries] == parked
        for offset in parked:
            if discard:
                found.settled.add(offset)
            else:
                row = found.rows[offset]
                row.state, row.due_us = State.WAITING, self.replica.time_us
        found.tidy()

    @rule(
        group=st.sampled_from(GROUPS),
        place=st.sampled_from(PLACES[:3]),
        named=st.sets(offsets, min_size=1, max_size=4),
    )
    def consume(self, group: str, place: tuple[int, int], named: set[int]) -> None:
        """A transaction settles what nobody has settled, or does nothing."""
        self.transactions += 1
        op = transaction(self.transactions, [(DEAD, {0: [b"result"]})], [(group, {place: named})])
        result = self.run(op)
        if place not in self.world.ends:
            assert result.error.reason == "UNKNOWN_TOPIC"
            return
        found = self.world.flow(group, place)
        if max(named) >= self.world.ends[place]:
            assert result.error.reason == "OFFSET_OUT_OF_RANGE"
        elif named & found.settled:
            assert result.error.reason == "ALREADY_SETTLED"
        else:
            assert not result.HasField("error"), result.error
            state = partitions.read_state(self.replica.w, *place)
            assert state is not None
            found.settled |= named | set(range(state.start_offset))
            found.tidy()
            self.world.letters += 1

    @rule(group=st.sampled_from(GROUPS), place=st.sampled_from(PLACES[:3]), offset=offsets)
    def seek(self, group: str, place: tuple[int, int], offset: int) -> None:
        """In steps, the first of which fences the flow."""
        if offset > self.world.ends.get(place, -1):
            return
        found = self.world.flow(group, place)
        state = partitions.read_state(self.replica.w, *place)
        assert state is not None
        while self.run(seek(group, (*place, offset))).more:
            assert floor_of(self.replica.w, group, *place) == found.floor
            above(self.replica.w, group, *place)
            waiting(self.replica.w, group, *place)
        floor = max(offset, state.start_offset)
        fence = journal.read_meta(self.replica.w).last_index
        self.world.flows[group, *place] = Flow(set(range(floor)), {}, floor, fence)

    @rule(attempts=st.integers(1, 4))
    def redefine(self, attempts: int) -> None:
        """What has had more attempts already dies of its next failure."""
        result = self.run(put("g", limited(attempts)))
        if not result.HasField("error"):
            self.world.definitions["g"] = check(limited(attempts))

    @rule(place=st.sampled_from(PLACES[:3]), before=offsets)
    def trim(self, place: tuple[int, int], before: int) -> None:
        """Retention does not look at groups."""
        self.run(trim(*place, before))

    @rule(chance=st.integers(0, 5))
    def delete_a_topic(self, chance: int) -> None:
        if chance == 0 and (2, 0) in self.world.ends:
            assert not self.run(delete("u")).HasField("error")
            del self.world.ends[2, 0]

    @rule()
    def sweep_everything(self) -> None:
        for _ in range(500):
            if not self.run(sweep()).more:
                break
        else:
            raise AssertionError("the sweep never ends")
        if (2, 0) not in self.world.ends:
            for group in GROUPS:
                self.world.flows.pop((group, 2, 0), None)
                assert floor_of(self.replica.w, group, 2) is None
                assert above(self.replica.w, group, 2) == set()
                assert waiting(self.replica.w, group, 2) == {}

    @rule(lose=st.booleans())
    def end_turn(self, lose: bool) -> None:
        """A commit, or a turn that changes nothing and is dropped."""
        self.replica.store.commit()
        if lose:
            kept = len(self.replica.entries), self.replica.time_us
            for group in GROUPS:
                parts = [flow(*place, floor=9, retries=[item(12), item(13, PARK)]) for place in PLACES]
                self.replica.run(settle(group, *parts), append(1), restore(group, flow(runs=[0, 20])))
            self.replica.run(sweep(1))
            self.replica.store.abort()
            self.replica.machine.reset()
            del self.replica.entries[kept[0] :]
            self.replica.time_us = kept[1]

    @invariant()
    def rows_are_what_the_model_holds(self) -> None:
        if not hasattr(self, "world"):
            return
        w = self.replica.w
        for (group, topic, partition), found in self.world.flows.items():
            if (topic, partition) not in self.world.ends:
                continue
            floor = found.floor
            assert floor_of(w, group, topic, partition) == floor
            assert row_of(w, group, topic, partition).fence == found.fence
            assert above(w, group, topic, partition) == {n for n in found.settled if n >= (floor or 0)}
            rows = waiting(w, group, topic, partition)
            assert {
                offset: Row(row.attempts, row.losses, row.state, row.due_us) for offset, row in rows.items()
            } == found.rows
        letters = 0
        for partition in (0, 1):
            state = partitions.read_state(w, DEAD, partition)
            assert state is not None
            letters += state.next_offset
        assert letters == self.world.letters

    @invariant()
    def rows_are_counted(self) -> None:
        w = self.replica.w
        for name in groups.list_groups(w):
            row = groups.read(w, name)
            assert row is not None
            assert row.held == len(list(groups.offsets(w, name)))
        wanted = sum(int.from_bytes(value) for _, value in w.scan(Table.REFS))
        assert wanted == w.count(Table.INDEX)

    def teardown(self) -> None:
        """Another replica that was given the same entries holds the same."""
        if not hasattr(self, "world"):
            return
        other = Replica(LIMITS)
        for entry in self.replica.entries:
            other.entry(entry)
            other.machine.reset()
        assert other.dump() == self.replica.dump()
        assert groups.digest(other.w) == groups.digest(self.replica.w)


Comparison.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestComparison = Comparison.TestCase


# -- determinism -----------------------------------------------------------------


def random_op(rng: random.Random) -> bytes:
    group = rng.choice("ggh")
    places = rng.sample(PLACES, rng.randint(1, 3))
    match rng.randrange(12):
        case 0:
            return commit(group, (*places[0], rng.randint(0, 60)))
        case 1:
            return trim(*places[0], rng.randint(0, 60))
        case 2:
            return sweep(rng.randint(0, 4))
        case 3:
            named = rng.sample(range(60), 20)
            return restore(group, flow(*places[0], offsets=named), discard=rng.random() < 0.3)
        case 7:
            return seek(group, *[(*place, rng.randint(0, 60)) for place in places])
        case 8:
            named = rng.sample(range(60), 2)
            return transaction(rng.randint(0, 99), [(DEAD, {1: [b"x"]})], [(group, {places[0]: named})])
        case 4 if rng.random() < 0.05:
            return delete(rng.choice(["u", "dead"]))
        case 5 | 6:
            return grow(rng.choice([1, 1, 2, DEAD]), rng.randint(0, 1), rng.randint(1, 9))
        case _:
            op = log_pb2.SettleOp(group=group)
            for place in places:
                more: dict[str, Any] = {"floor": rng.randint(0, 40)} if rng.random() < 0.2 else {}
                op.flows.append(flow(*place, offsets=rng.sample(range(50), rng.randint(0, 9)), **more))
                for _ in range(rng.randint(0, 3)):
                    cause = rng.choice(CAUSES)
                    dead = cause == REJECT and group == "g" and rng.random() < 0.8
                    op.flows[-1].retries.append(item(rng.randint(0, 45), cause, dead=dead))
            return framed(op)


def history(seed: int) -> tuple[Replica, list[list[log_pb2.OpResult]], random.Random]:
    rng = random.Random(seed)
    first = Replica(LIMITS)
    start(first)
    results = [first.entry(encode_entry(first.time_us, [grow(t, p, 50) for t, p in PLACES[:3]])).results]
    for _ in range(60):
        # Stamps of successive leaders: mostly onward, sometimes back.
        first.time_us += rng.choice([1000, 1000, 50_000, -200_000])
        entry = encode_entry(first.time_us, [random_op(rng) for _ in range(rng.randint(0, 5))])
        results.append(first.entry(entry).results)
    return first, results, rng


def test_replicas_agree_whatever_their_turns() -> None:
    """The same entries: commits at other places, aborts and restarts in between."""
    done_something = 0
    for seed in range(15):
        first, results, rng = history(seed)
        done_something += sum(not each.HasField("error") for entry in results for each in entry)
        second = Replica(LIMITS)
        given = first.entries
        done = committed = 0
        while done < len(given):
            applied = second.entry(given[done])
            assert not done or applied.results == results[done - 1]
            done += 1
            if rng.random() < 0.2:
                second.store.commit()
                committed = done
            elif rng.random() < 0.1:
                second.store.abort()
                second.machine.reset()
                done = committed
        assert second.dump() == first.dump(), f"seed {seed}"
        assert groups.digest(second.w) == groups.digest(first.w)
        assert second.digests() == first.digests()
    assert done_something > 1000


def test_stores_agree(tmp_path: Path) -> None:
    """LMDB and memory hold the same rows after the same entries, and after a restart."""
    memory, results, _ = history(1)
    store = LmdbStore(tmp_path, quota_bytes=1 << 26)
    try:
        disk = Replica(LIMITS, store=store)
        start(disk)
        given = memory.entries[1:]
        for entry, wanted in zip(given[:30], results[:30], strict=True):
            assert disk.entry(entry).results == wanted
        store.commit()
    finally:
        store.close()
    store = LmdbStore(tmp_path, quota_bytes=1 << 26)
    try:
        disk = Replica(LIMITS, store=store)
        for entry, wanted in zip(given[30:], results[30:], strict=True):
            assert disk.entry(entry).results == wanted
        assert disk.dump() == memory.dump()
        assert groups.digest(disk.w) == groups.digest(memory.w)
    finally:
        store.close()
