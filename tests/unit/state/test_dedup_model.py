"""What idempotence remembers, against dicts of everything that was ever stored."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.cluster.state import sequences
from holdfast.cluster.state.sequences import Duplicate
from holdfast.errors import ProducerFencedError, SequenceGapError
from holdfast.storage import producers
from holdfast.storage.memory_store import MemoryStore

PARTITIONS = (0, 1)
PRODUCERS = (5, 6, 7)


@dataclass
class Known:
    """A producer in a partition: everything it stored in its epoch."""

    epoch: int
    last_time: int = 0
    #: (base sequence, count, base offset, time) of every batch, oldest first
    batches: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def expected(self) -> int:
        return self.batches[-1][0] + self.batches[-1][1] if self.batches else 0

    def find(self, base: int, count: int) -> Duplicate:
        """The answer to a retry: exact while the batch is one of the latest."""
        for first, stored, offset, time in self.batches[-producers.MAX_RECENT :]:
            if first <= base and base + count <= first + stored:
                return Duplicate(offset + base - first, time)
        return Duplicate(-1, 0)


class DedupAgainstDicts(RuleBasedStateMachine):
    """Sends, retries cut anew, new and old epochs, expiry, dropped partitions, turns that are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.now = 1_000
        self.known: dict[tuple[int, int], Known] = {}
        self.ends = dict.fromkeys(PARTITIONS, 0)

    @rule(
        partition=st.sampled_from(PARTITIONS),
        producer=st.sampled_from(PRODUCERS),
        epoch_step=st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1]),
        back=st.sampled_from([0, 0, 0, 0, 1, 2, 5, 20, -1]),
        count=st.integers(1, 4),
    )
    def send(self, partition: int, producer: int, epoch_step: int, back: int, count: int) -> None:
        self.now += 10
        key = (partition, producer)
        known = self.known.get(key)
        epoch = max(0, (known.epoch if known else 3) + epoch_step)
        base = max(0, (known.expected if known else 0) - back)
        w = self.store.writer()
        row = producers.read(w, 1, partition, producer)
        if known is not None and epoch < known.epoch:
            with pytest.raises(ProducerFencedError):
                sequences.check_sequence(row, epoch, base, count)
            return
        expected = known.expected if known is not None and epoch == known.epoch else 0
        if base != expected and base + count > expected:
            with pytest.raises(SequenceGapError) as refused:
                sequences.check_sequence(row, epoch, base, count)
            assert refused.value.metadata["expected"] == str(expected)
            return
        found = sequences.check_sequence(row, epoch, base, count)
        if base != expected:
            assert known is not None
            assert found == known.find(base, count)
            return
        assert found is None
        offset = self.ends[partition]
        self.ends[partition] += count
        row = sequences.advance(row, epoch, base, count, offset, self.now)
        producers.write(w, 1, partition, producer, row)
        if known is None or known.epoch != epoch:
            known = self.known[key] = Known(epoch)
        known.batches.append((base, count, offset, self.now))
        known.last_time = self.now

    @rule(age=st.integers(0, 200), limit=st.integers(1, 3), scan=st.integers(1, 3))
    def expire_all_the_way_round(self, age: int, limit: int, scan: int) -> None:
        """However small the steps, a round or two forgets who is idle, and nobody else."""
        idle_since = self.now - age
        idle = {key for key, known in self.known.items() if known.last_time < idle_since}
        gone = 0
        for _ in range(2 * len(PARTITIONS) * len(PRODUCERS) + 2):
            step = producers.expire(self.store.writer(), idle_since, limit, scan)
            assert step <= min(limit, scan)
            gone += step
        assert gone == len(idle)
        for key in idle:
            del self.known[key]

    @rule(partition=st.sampled_from(PARTITIONS), limit=st.integers(1, 4))
    def drop(self, partition: int, limit: int) -> None:
        while not producers.drop_partition(self.store.writer(), 1, partition, limit):
            pass
        self.known = {key: known for key, known in self.known.items() if key[0] != partition}

    @rule()
    def lose_a_turn(self) -> None:
        """What was not committed is not remembered, so that the retry is stored."""
        self.store.commit()
        w = self.store.writer()
        for partition in PARTITIONS:
            producers.drop_partition(w, 1, partition, 99)
            producers.write(w, 1, partition, PRODUCERS[0], producers.ProducerRow(99, 99, 99))
        self.store.abort()

    @invariant()
    def the_table_is_what_is_known(self) -> None:
        w = self.store.writer()
        assert producers.count(w) == len(self.known)
        for (partition, producer), known in self.known.items():
            row = producers.read(w, 1, partition, producer)
            assert row is not None
            assert (row.epoch, row.last_sequence + 1) == (known.epoch, known.expected)
            assert list(row.recent) == known.batches[-producers.MAX_RECENT :]


TestDedupAgainstDicts = DedupAgainstDicts.TestCase
TestDedupAgainstDicts.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
