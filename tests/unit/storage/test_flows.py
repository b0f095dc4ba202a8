"""What groups keep of partitions: rows come back as they were written, and only those meant go."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import StorageError
from holdfast.storage import acks, bits, cursors, flow_keys, flows, groups, marks, members, retries
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Table, Writer

ranges = st.lists(
    st.tuples(st.integers(0, 20_000), st.integers(0, 9_000)).map(lambda r: (r[0], r[0] + r[1])), max_size=6
)


@given(ranges)
def test_chunks_hold_exactly_the_offsets(found: list[tuple[int, int]]) -> None:
    chunks = bits.chunks_of(found)
    wanted = {offset for first, end in found for offset in range(first, end)}
    held = {
        chunk * bits.CHUNK_BITS + bit
        for chunk, value in chunks.items()
        for bit in range(value.bit_length())
        if value >> bit & 1
    }
    assert held == wanted
    assert all(0 < value <= bits.FULL for value in chunks.values())
    again = [r for chunk in sorted(chunks) for r in bits.ranges_of(chunk, chunks[chunk])]
    assert {offset for first, end in again for offset in range(first, end)} == wanted
    assert bits.count_chunks(again) == len(chunks)
    joined: list[tuple[int, int]] = []
    for first, end in again:
        begin = joined.pop()[0] if joined and joined[-1][1] == first else first
        joined.append((begin, end))
    assert bits.count_chunks(joined) == len(chunks)
    for value in chunks.values():
        assert bits.unpack(bits.pack(value)) == value


@given(st.integers(0, bits.FULL))
def test_runs_of_ones_and_zeros(value: int) -> None:
    digits = f"{value:0{bits.CHUNK_BITS}b}"[::-1]
    assert bits.trailing_ones(value) == len(digits) - len(digits.lstrip("1"))
    if value:
        assert bits.trailing_zeros(value) == len(digits) - len(digits.lstrip("0"))
    runs = list(bits.ranges_of(3, value))
    assert all(first < end for first, end in runs)
    assert all(a[1] < b[0] for a, b in pairwise(runs))
    assert sum(end - first for first, end in runs) == value.bit_count()


texts = st.text(max_size=300)
times = st.integers(0, 1 << 60)
rows = st.builds(
    retries.RetryRow,
    attempts=st.integers(0, 1000),
    losses=st.integers(0, 1000),
    state=st.sampled_from(retries.State),
    due_us=st.one_of(times, st.just(retries.NEVER_US)),
    first_failed_us=times,
    lane=st.integers(0, (1 << 64) - 1),
    errors=st.lists(st.tuples(times, texts), max_size=8).map(tuple),
)


@given(rows)
def test_a_retry_comes_back_but_for_what_is_cut(row: retries.RetryRow) -> None:
    w = MemoryStore().writer()
    flow = flow_keys.flow_key("g", 1, 2)
    retries.write(w, flow, 7, row)
    found = retries.read(w, flow, 7)
    assert found is not None
    kept = tuple((at, retries.cut(text)) for at, text in row.errors[-retries.MAX_ERRORS :])
    assert found == retries.RetryRow(
        row.attempts, row.losses, row.state, row.due_us, row.first_failed_us, row.lane, kept
    )
    assert all(len(text.encode()) <= retries.MAX_ERROR_BYTES for _, text in found.errors)
    (value,) = (v for _, v in w.scan(Table.RETRIES))
    assert len(value) <= 1_100


def test_counts_of_a_retry_stay_within_their_field() -> None:
    w = MemoryStore().writer()
    retries.write(w, b"f", 0, retries.RetryRow(70_000, 70_000, retries.State.WAITING, 1, 1))
    found = retries.read(w, b"f", 0)
    assert found is not None
    assert (found.attempts, found.losses) == (65_535, 65_535)


def test_one_group_s_rows_are_not_another_s() -> None:
    w = MemoryStore().writer()
    for group in ("g", "gg", "h"):
        for partition in (0, 1):
            flow = flow_keys.flow_key(group, 1, partition)
            flows.write(w, group, 1, partition, flows.FlowRow(fence=3, owner=group))
            for chunk in (0, 2, 5):
                acks.write(w, flow, chunk, 1 << partition)
            for offset in (1, 9, 300):
                row = retries.RetryRow(1, 0, retries.State.WAITING, offset, 0)
                retries.write(w, flow, offset, row)
        members.write(w, group, "m", members.MemberRow(group, False, 5, 6))
    assert [(t, p, f.owner) for t, p, f in flows.scan(w, "g")] == [(1, 0, "g"), (1, 1, "g")]
    assert [found[:3] for found in acks.scan_group(w, "g")] == [(1, p, c) for p in (0, 1) for c in (0, 2, 5)]
    assert [found[:3] for found in retries.scan_group(w, "gg")] == [
        (1, p, o) for p in (0, 1) for o in (1, 9, 300)
    ]
    assert [(member, row.name) for member, row in members.scan(w, "gg")] == [("m", "gg")]
    assert [found[:2] for found in members.scan_all(w)] == [("g", "m"), ("h", "m"), ("gg", "m")]
    assert [found[:2] for found in members.scan_all(w, after=("g", "m"))] == [("h", "m"), ("gg", "m")]
    flow = flow_keys.flow_key("g", 1, 0)
    assert flow_keys.split(flow + b"rest") == ("g", 1, 0, b"rest")
    assert acks.drop(w, flow, 10, below=5) == 2
    assert list(acks.scan(w, flow)) == [(5, 1)]
    assert retries.drop(w, flow, 1, below=300) == 1
    assert [offset for offset, _ in retries.scan(w, flow)] == [9, 300]
    assert [offset for offset, _ in retries.scan(w, flow, 10)] == [300]
    assert [offset for offset, _ in retries.scan(w, flow, 0, 10)] == [9]
    assert retries.drop(w, flow, 10) == 2
    assert acks.drop(w, flow, 10) == 1
    assert (acks.read(w, flow, 5), retries.read(w, flow, 9)) == (0, None)
    assert retries.count(w) == 15
    assert flows.count(w) == 6


def test_rows_that_say_nothing_are_none() -> None:
    w = MemoryStore().writer()
    flows.write(w, "g", 1, 0, flows.FlowRow(settled_above=1))
    flows.write(w, "g", 1, 0, flows.EMPTY)
    acks.write(w, b"flow", 0, 1)
    acks.write(w, b"flow", 0, 0)
    cursors.set_sweep(w, b"x")
    cursors.set_sweep(w, b"")
    cursors.add_marks(w, 1, 2)
    cursors.add_marks(w, 1, -2)
    assert [w.count(table) for table in (Table.FLOWS, Table.ACKS, Table.CURSORS)] == [0, 0, 0]
    assert flows.read(w, "g", 1, 0) == flows.EMPTY
    assert (cursors.sweep_at(w), cursors.marks_of(w, 1)) == (b"", 0)


def test_cursors_and_counts() -> None:
    w = MemoryStore().writer()
    cursors.set_sweep(w, b"there")
    cursors.add_marks(w, 1, 2)
    cursors.add_marks(w, 1, 3)
    cursors.add_marks(w, 2, 1)
    assert cursors.sweep_at(w) == b"there"
    assert [cursors.marks_of(w, topic) for topic in (0, 1, 2)] == [0, 5, 1]


operations = st.lists(
    st.tuples(
        st.sampled_from(("mark", "transaction", "expire")),
        st.integers(0, 5),
        st.integers(1, 2),
        st.integers(0, 30),
    ),
    max_size=40,
)


@given(operations)
def test_marks_against_a_dictionary(steps: list[tuple[str, int, int, int]]) -> None:
    w = MemoryStore().writer()
    model: dict[tuple[int, bytes], tuple[int, int]] = {}
    for now, (kind, key, topic, ttl) in enumerate(steps):
        digest = bytes([key]) * 16
        if kind == "mark":
            marks.write(w, topic, digest, marks.Mark(now + ttl, topic, now))
            model[topic, digest] = (now + ttl, now)
        elif kind == "transaction":
            marks.write_transaction(w, digest, now + ttl, b"%d" % now)
            model[0, digest] = (now + ttl, now)
        else:
            over = sorted((at, *place) for place, (at, _) in model.items() if at <= now)
            assert marks.expire(w, now, key) == [topic for _, topic, _ in over[:key]]
            for _, topic_id, digest in over[:key]:
                del model[topic_id, digest]
        for (topic_id, digest), (expires, at) in model.items():
            if topic_id:
                found = marks.read(w, topic_id, digest, now)
                assert found == (marks.Mark(expires, topic_id, at) if expires > now else None)
            else:
                answer = marks.read_transaction(w, digest, now)
                assert answer == (b"%d" % at if expires > now else None)
        assert marks.count(w) == len(model) == w.count(Table.MARK_AGES)


def test_a_group_s_row_grows_with_what_it_is() -> None:
    w = MemoryStore().writer()
    groups.commit_offset(w, "g", 1, 0, 5)
    assert groups.read(w, "g") == groups.GroupRow(1)
    assert w.get(Table.GROUPS, b"g") == b"\0\0\0\1"  # as before groups were defined
    groups.write(w, "g", groups.GroupRow(1, 9, b"definition"))
    groups.commit_offset(w, "g", 1, 1, 5)
    assert groups.read(w, "g") == groups.GroupRow(2, 9, b"definition")
    assert groups.read(w, "h") is None
    assert groups.delete_group(w, "g", 10)
    assert groups.read(w, "g") is None


@pytest.mark.parametrize(
    ("table", "key", "read"),
    [
        (Table.FLOWS, flow_keys.flow_key("g", 1, 0), lambda w: flows.read(w, "g", 1, 0)),
        (Table.MEMBERS, flow_keys.group_prefix("g") + b"m", lambda w: members.read(w, "g", "m")),
        (Table.RETRIES, b"f" + bytes(8), lambda w: retries.read(w, b"f", 0)),
        (Table.ACKS, b"f" + bytes(8), lambda w: acks.read(w, b"f", 0)),
        (Table.MARKS, bytes(4) + b"d" * 16, lambda w: marks.read(w, 0, b"d" * 16, 0)),
    ],
)
def test_a_row_of_another_length_is_said(table: Table, key: bytes, read: Callable[[Writer], object]) -> None:
    w = MemoryStore().writer()
    w.put(table, key, bytes(600))
    with pytest.raises(StorageError, match="length"):
        read(w)
