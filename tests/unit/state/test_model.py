"""Random operations against a naive model, and replicas against each other."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.cluster.commands import encode_entry
from holdfast.cluster.state.limits import StateLimits
from holdfast.storage import groups, partitions
from holdfast.storage.lmdb_store import LmdbStore
from holdfast.storage.port import Reader, Table

from . import group_kit
from .replica_kit import T0, Replica, append, commit, create, delete, expire, trim

LIMITS = StateLimits(max_topics=3, max_partitions_per_topic=3, step_rows=4, scan_rows=4)
NAMES = st.sampled_from(["a", "b", "c", "d"])
GROUPS = st.sampled_from(["g", "h"])
PRODUCERS = st.integers(1, 3)
PARTITIONS = st.integers(0, 3)


@dataclass
class Stored:
    """A batch in the model."""

    base: int
    count: int
    fill: bytes


@dataclass
class Producer:
    epoch: int
    expected: int = 0
    #: sequence -> offset of every record of this epoch
    offsets: dict[int, int] = field(default_factory=dict)


@dataclass
class Log:
    batches: list[Stored] = field(default_factory=list)
    start: int = 0
    end: int = 0
    producers: dict[int, Producer] = field(default_factory=dict)

    def put(self, count: int, fill: bytes) -> int:
        base = self.end
        self.batches.append(Stored(base, count, fill))
        self.end += count
        return base


@dataclass
class Topic:
    id: int
    logs: list[Log]
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)


class Comparison(RuleBasedStateMachine):
    """Every result is what the model says; so is every log in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.replica = Replica(LIMITS)
        self.topics: dict[str, Topic] = {}
        self.next_id = 1
        self.serial = 0

    def run(self, op: bytes) -> tuple[str, list[tuple[int, bool]], dict[str, str]]:
        """Reason ("" for success), acks as (base offset, duplicate), metadata."""
        (result,) = self.replica.run(op).results
        found = [(each.base_offset, each.duplicate) for each in result.append.acks]
        return result.error.reason, found, dict(result.error.metadata)

    @rule(name=NAMES, count=st.integers(1, 3))
    def create(self, name: str, count: int) -> None:
        reason, _, _ = self.run(create(name, count))
        if name in self.topics:
            assert reason == "TOPIC_EXISTS"
        elif len(self.topics) == LIMITS.max_topics:
            assert reason == "LIMIT_EXCEEDED"
        else:
            assert reason == ""
            self.topics[name] = Topic(self.next_id, [Log() for _ in range(count)])
            self.next_id += 1

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        reason, _, _ = self.run(delete(name))
        assert reason == ("" if self.topics.pop(name, None) else "UNKNOWN_TOPIC")

    @precondition(lambda self: self.topics)
    @rule(data=st.data(), count=st.integers(1, 4), partition=PARTITIONS)
    def append(self, data: st.DataObject, count: int, partition: int) -> None:
        topic = self.pick(data)
        fill = self.content()
        reason, found, _ = self.run(append(topic.id, [(partition, count)], fill=fill))
        if partition >= len(topic.logs):
            assert reason == "UNKNOWN_PARTITION"
        else:
            assert found == [(topic.logs[partition].put(count, fill), False)]

    @precondition(lambda self: self.topics)
    @rule(
        data=st.data(),
        producer=PRODUCERS,
        step=st.sampled_from([0, 0, 0, 0, 1, -1, -2, -9]),
        epoch_step=st.sampled_from([0, 0, 0, 0, 0, 1, -1]),
        count=st.integers(1, 4),
    )
    def append_idempotently(
        self, data: st.DataObject, producer: int, step: int, epoch_step: int, count: int
    ) -> None:
        topic = self.pick(data)
        partition = data.draw(st.integers(0, len(topic.logs) - 1))
        log = topic.logs[partition]
        known = log.producers.get(producer)
        epoch = max(0, (known.epoch if known else 0) + epoch_step)
        base = max(0, (known.expected if known else 0) + step)
        fill = self.content()
        reason, found, metadata = self.run(
            append(topic.id, [(partition, count, base)], producer=producer, epoch=epoch, fill=fill)
        )
        if known is not None and epoch < known.epoch:
            assert (reason, metadata) == ("PRODUCER_FENCED", {"epoch": str(known.epoch)})
            return
        if known is None or epoch > known.epoch:
            if base:
                assert (reason, metadata) == ("SEQUENCE_GAP", {"expected": "0"})
                return
            known = log.producers[producer] = Producer(epoch)
        if base + count <= known.expected:
            ((offset, duplicate),) = found
            assert duplicate
            assert offset in (-1, known.offsets[base])
        elif base != known.expected:
            assert (reason, metadata) == ("SEQUENCE_GAP", {"expected": str(known.expected)})
        else:
            offset = log.put(count, fill)
            assert found == [(offset, False)]
            known.offsets.update({base + i: offset + i for i in range(count)})
            known.expected += count

    @precondition(lambda self: self.topics)
    @rule(data=st.data(), before=st.integers(-1, 40))
    def trim(self, data: st.DataObject, before: int) -> None:
        topic = self.pick(data)
        partition = data.draw(st.integers(0, len(topic.logs) - 1))
        assert self.run(trim(topic.id, partition, before))[0] == ""
        log = topic.logs[partition]
        for _ in range(LIMITS.step_rows):
            if not log.batches or log.batches[0].base + log.batches[0].count > before:
                break
            first = log.batches.pop(0)
            log.start = first.base + first.count

    @precondition(lambda self: self.topics)
    @rule(data=st.data(), group=GROUPS, offset=st.integers(0, 20))
    def commit(self, data: st.DataObject, group: str, offset: int) -> None:
        topic = self.pick(data)
        partition = data.draw(st.integers(0, len(topic.logs) - 1))
        reason, _, _ = self.run(commit(group, (topic.id, partition, offset)))
        if offset > topic.logs[partition].end:
            assert reason == "OFFSET_OUT_OF_RANGE"
        else:
            assert reason == ""
            key = (group, partition)
            topic.offsets[key] = max(offset, topic.offsets.get(key, 0))

    @rule()
    def expire_nobody(self) -> None:
        assert self.run(expire(T0 - 1))[0] == ""

    @rule(lose=st.booleans())
    def end_turn(self, lose: bool) -> None:
        """A commit, or a turn that changes nothing and is dropped."""
        self.replica.store.commit()
        if lose:
            self.replica.run(*[append(topic.id) for topic in self.topics.values()])
            self.replica.run(*[delete(name) for name in self.topics])
            self.replica.store.abort()
            self.replica.machine.reset()

    @invariant()
    def logs_are_what_the_model_holds(self) -> None:
        w = self.replica.w
        for topic in self.topics.values():
            for partition, log in enumerate(topic.logs):
                state = partitions.read_state(w, topic.id, partition)
                assert state is not None
                assert (state.start_offset, state.next_offset) == (log.start, log.end)
                rows = list(partitions.index_scan(w, topic.id, partition, 0))
                assert [(row.base_offset, row.count) for row in rows] == [
                    (batch.base, batch.count) for batch in log.batches
                ]
                for row, batch in zip(rows, log.batches, strict=True):
                    assert batch.fill in partitions.read_batch(w, row, verify=True)
            for (group, partition), offset in topic.offsets.items():
                assert groups.committed(w, group, topic.id, partition) == offset

    @invariant()
    def references_are_counted(self) -> None:
        w = self.replica.w
        wanted = sum(int.from_bytes(value, "big") for _, value in w.scan(Table.REFS))
        assert wanted == w.count(Table.INDEX)

    def pick(self, data: st.DataObject) -> Topic:
        return self.topics[data.draw(st.sampled_from(sorted(self.topics)))]

    def content(self) -> bytes:
        self.serial += 1
        return b"<%d>" % self.serial


Comparison.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestComparison = Comparison.TestCase


# -- determinism -----------------------------------------------------------------


def random_op(rng: random.Random) -> bytes:
    topic, partition = rng.randint(1, 5), rng.randint(0, 3)
    match rng.randrange(12):
        case 0:
            return create(rng.choice("abcd"), rng.randint(1, 3))
        case 1 if rng.random() < 0.2:
            return delete(rng.choice("abcd"))
        case 2:
            return trim(topic, partition, rng.randint(0, 30))
        case 3:
            return commit(rng.choice("gh"), (topic, partition, rng.randint(0, 30)))
        case 4:
            return expire(T0 + rng.randint(0, 100_000), rng.randint(0, 3))
        case 5 | 6 | 7:
            return append(
                topic,
                [(partition, rng.randint(1, 3), rng.randint(0, 5))],
                producer=rng.randint(1, 3),
                epoch=rng.choice([0, 0, 0, 1]),
            )
        case _:
            return append(topic, [(p, rng.randint(1, 3)) for p in rng.sample(range(3), 2)])


def random_group_op(rng: random.Random, r: Reader) -> bytes:
    """Their generations are log indexes, so how they are cut into entries shows in their results."""
    group, topic, partition = rng.choice("gh"), rng.randint(1, 5), rng.randint(0, 3)
    match rng.randrange(4):
        case 0:
            return group_kit.put(group, implicit=rng.random() < 0.5)
        case 1:
            row = groups.read(r, group)
            expected = row.generation if row is not None and rng.random() < 0.9 else 3
            member = rng.choice("ab")
            start = [(topic, partition, rng.randint(0, 9))]
            return group_kit.reshape(group, expected, join=[member], leave=["a"], start=start)
        case 2:
            return group_kit.seek(group, (topic, partition, rng.randint(0, 9)))
        case _:
            return group_kit.drop(group)


def test_replicas_agree_whatever_their_turns() -> None:
    """The same entries: commits at other places, aborts and restarts in between."""
    for seed in range(15):
        rng = random.Random(seed)
        first = Replica(LIMITS)
        for _ in range(3):
            first.run(create(rng.choice("abcd"), 3))
        results = []
        for _ in range(60):
            # Stamps of successive leaders: mostly onward, sometimes back.
            first.time_us += rng.choice([1000, 1000, 50_000, -200_000])
            ops = [random_op(rng) for _ in range(rng.randint(0, 5))]
            if rng.random() < 0.5:
                ops.insert(0, random_group_op(rng, first.w))
            entry = encode_entry(first.time_us, ops)
            results.append(first.entry(entry).results)
        second = Replica(LIMITS)
        done = 0
        given = list(first.entries)
        committed = 0
        while done < len(given):
            applied = second.entry(given[done])
            if done >= 3:
                assert applied.results == results[done - 3]
            done += 1
            if rng.random() < 0.2:
                second.store.commit()
                committed = done
            elif rng.random() < 0.1:
                second.store.abort()
                second.machine.reset()
                done = committed
        assert second.dump() == first.dump(), f"seed {seed}"
        assert second.digests() == first.digests()


def test_how_operations_are_grouped_into_entries_does_not_move_a_record() -> None:
    """Digests do not know entries: the same operations at one stamped time, cut differently."""
    for seed in range(15):
        rng = random.Random(seed)
        ops = [create("a", 3), create("b", 3), *[random_op(rng) for _ in range(100)]]
        replicas = [Replica(LIMITS) for _ in range(3)]
        every = []
        for replica, size in zip(replicas, (1, 7, len(ops)), strict=True):
            results = []
            for at in range(0, len(ops), size):
                results += replica.entry(encode_entry(T0, ops[at : at + size])).results
            every.append(results)
        assert every[0] == every[1] == every[2]
        assert replicas[0].digests() == replicas[1].digests() == replicas[2].digests()


def test_stores_agree(tmp_path: Path) -> None:
    """LMDB and memory hold the same rows after the same entries."""
    rng = random.Random(1)
    store = LmdbStore(tmp_path, quota_bytes=1 << 26)
    try:
        disk, memory = Replica(LIMITS, store=store), Replica(LIMITS)
        memory.run(create("a", 3))
        for _ in range(60):
            memory.run(*[random_op(rng) for _ in range(4)])
        for entry in memory.entries:
            disk.entry(entry)
        assert disk.dump() == memory.dump()
        store.commit()
        assert disk.digests() == memory.digests()
    finally:
        store.close()
