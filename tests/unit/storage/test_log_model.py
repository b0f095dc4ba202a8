"""Journal and partition logs together, against naive lists.

The machine appends entries with batches, truncates what is not applied, trims
the log and the partitions in any order and step size, commits and aborts; then
everything readable is compared with the model, journal rows and reference
counts included.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from holdfast.storage import journal, partitions
from holdfast.storage.partitions import IndexRow, PartitionState
from holdfast.storage.port import Reader, Store, Table

FreshStore = Callable[[], AbstractContextManager[Store]]

PARTITIONS = 3
TIMES = st.integers(-20, 20)
BATCH = st.tuples(
    st.integers(0, PARTITIONS - 1), st.integers(1, 4), st.binary(max_size=8), TIMES, TIMES, TIMES
)


@dataclass
class Batch:
    base: int
    count: int
    data: bytes
    append_time: int
    low: int
    high: int
    log_index: int


@dataclass
class Model:
    terms: dict[int, int] = field(default_factory=lambda: {1: 0})
    base: int = 1
    applied: int = 1
    last: int = 1
    swept: bool = True
    logs: list[list[Batch]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    next_offset: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    last_time: list[int] = field(default_factory=lambda: [partitions.NO_TIME] * PARTITIONS)

    def refs(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for log in self.logs:
            for batch in log:
                found[batch.log_index] = found.get(batch.log_index, 0) + 1
        return found


class LogMachine(RuleBasedStateMachine):
    fresh_store: FreshStore  # set by the test

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.store: Store = self.stack.enter_context(type(self).fresh_store())
        self.model = Model()
        w = self.store.writer()
        for p in range(PARTITIONS):
            partitions.create(w, 1, p)
        self.commit()

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    @rule(batches=st.lists(BATCH, max_size=4), bump=st.booleans())
    def append_and_apply(self, batches: list[tuple[int, int, bytes, int, int, int]], bump: bool) -> None:
        m, w = self.model, self.store.writer()
        while m.last > m.applied:  # entries of nothing, waiting
            m.applied += 1
        index = m.last + 1
        term = m.terms[m.last] + bump
        journal.append(w, index, term, 0, b"head" + b"".join(b[2] for b in batches))
        if batches:
            partitions.add_refs(w, index, len(batches))
        position = journal.ROW_HEADER + 4
        for p, count, data, at, a, b in batches:
            state = partitions.read_state(w, 1, p)
            assert state is not None
            low, high = min(a, b), max(a, b)
            partitions.append_batch(
                w,
                1,
                p,
                state,
                log_index=index,
                position=position,
                length=len(data),
                count=count,
                append_time_us=at,
                min_ts=low,
                max_ts=high,
                batch_hash=hash(data),
            )
            position += len(data)
            m.last_time[p] = max(m.last_time[p], at)
            m.logs[p].append(Batch(m.next_offset[p], count, data, m.last_time[p], low, high, index))
            m.next_offset[p] += count
        m.terms[index] = term
        m.last = m.applied = index
        journal.set_commit(w, index)
        journal.set_applied(w, index)

    @rule(n=st.integers(1, 3))
    def append_only(self, n: int) -> None:
        for _ in range(n):
            self.model.last += 1
            self.model.terms[self.model.last] = self.model.terms[self.model.last - 1]
            journal.append(self.store.writer(), self.model.last, self.model.terms[self.model.last], 1, b"")

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        m = self.model
        index = data.draw(st.integers(m.applied + 1, m.last + 2))
        gone = journal.truncate_from(self.store.writer(), index)
        assert gone == max(0, m.last - index + 1)
        m.last = min(m.last, index - 1)

    @rule(data=st.data(), limit=st.integers(1, 5))
    def trim_log(self, data: st.DataObject, limit: int) -> None:
        m = self.model
        base = data.draw(st.integers(m.base, m.applied))
        m.swept = journal.trim_to(self.store.writer(), base, m.terms[base], limit) < limit
        m.base = base

    @rule(p=st.integers(0, PARTITIONS - 1), data=st.data(), limit=st.integers(0, 4))
    def trim_partition(self, p: int, data: st.DataObject, limit: int) -> None:
        m = self.model
        before = data.draw(st.integers(0, m.next_offset[p] + 1))
        after = partitions.trim(self.store.writer(), 1, p, before, limit)
        doomed = [b for b in m.logs[p] if b.base + b.count <= before][:limit]
        m.logs[p] = m.logs[p][len(doomed) :]
        assert after == partitions.read_state(self.store.writer(), 1, p)

    @rule(p=st.integers(0, PARTITIONS - 1), limit=st.integers(1, 4))
    def drop_and_create(self, p: int, limit: int) -> None:
        m, w = self.model, self.store.writer()
        steps = 1
        while not partitions.drop(w, 1, p, limit):
            steps += 1
        assert steps == max(1, -(-len(m.logs[p]) // limit))
        partitions.create(w, 1, p)
        m.logs[p], m.next_offset[p], m.last_time[p] = [], 0, partitions.NO_TIME

    @rule()
    def commit(self) -> None:
        self.store.commit()
        self.committed = copy.deepcopy(self.model)

    @rule()
    def abort(self) -> None:
        self.store.abort()
        self.model = copy.deepcopy(self.committed)

    @rule(p=st.integers(0, PARTITIONS - 1), time=TIMES)
    def search_by_time(self, p: int, time: int) -> None:
        m, r = self.model, self.store.writer()
        by_record = [b.base for b in m.logs[p] if b.high >= time]
        by_append = [b.base for b in m.logs[p] if b.append_time >= time]
        end = m.next_offset[p]
        assert partitions.offset_at_time(r, 1, p, time, "record") == (by_record or [end])[0]
        assert partitions.offset_at_time(r, 1, p, time, "append") == (by_append or [end])[0]

    @invariant()
    def readable_is_the_model(self) -> None:
        if hasattr(self, "store"):
            compare(self.store.writer(), self.model)
            with self.store.read() as r:
                compare(r, self.committed)


def compare(r: Reader, m: Model) -> None:
    meta = journal.read_meta(r)
    assert (meta.base_index, meta.base_term, meta.last_index) == (m.base, m.terms[m.base], m.last)
    refs = m.refs()
    found = {int.from_bytes(k, "big"): int.from_bytes(v, "big") for k, v in r.scan(Table.REFS)}
    assert found == refs
    rows = {index for index, _ in journal.scan_terms(r, 0, 1 << 40)}
    needed = set(refs) | set(range(m.base + 1, m.last + 1))
    assert rows >= needed
    if m.swept:
        assert rows == needed
    for p in range(PARTITIONS):
        compare_partition(r, m, p)


def compare_partition(r: Reader, m: Model, p: int) -> None:
    log = m.logs[p]
    state = partitions.read_state(r, 1, p)
    assert isinstance(state, PartitionState)
    start = log[0].base if log else m.next_offset[p]
    assert (state.start_offset, state.next_offset) == (start, m.next_offset[p])
    assert state.bytes == sum(len(b.data) for b in log)
    rows = list(partitions.index_scan(r, 1, p, 0))
    assert [row.base_offset for row in rows] == [b.base for b in log]
    for row, b in zip(rows, log, strict=True):
        same_batch(r, row, b)
        for offset in range(b.base, b.base + b.count):
            assert partitions.index_at(r, 1, p, offset) == row
            assert next(partitions.index_scan(r, 1, p, offset)) == row
    for outside in (-1, start - 1, m.next_offset[p], m.next_offset[p] + 100):
        assert partitions.index_at(r, 1, p, outside) is None


def same_batch(r: Reader, row: IndexRow, b: Batch) -> None:
    assert partitions.read_batch(r, row) == b.data
    assert (row.count, row.log_index, row.append_time_us) == (b.count, b.log_index, b.append_time)
    assert (row.min_timestamp_us, row.max_timestamp_us) == (b.low, b.high)


def test_logs_match_the_model(fresh_store: FreshStore) -> None:
    machine = type("Machine", (LogMachine,), {"fresh_store": staticmethod(fresh_store)})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )
