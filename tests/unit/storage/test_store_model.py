"""Property test: any sequence of operations on a store equals a dict's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.storage.port import Reader, Store, Table

KEYS = st.binary(min_size=1, max_size=3)
TABLES = st.sampled_from([Table.META, Table.INDEX])
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), TABLES, KEYS, st.binary(max_size=5)),
        st.tuples(st.just("put"), TABLES, KEYS, st.integers(0, 9000).map(lambda n: b"x" * n)),
        st.tuples(st.just("delete"), TABLES, KEYS),
        st.tuples(st.just("commit")),
        st.tuples(st.just("persist")),
        st.tuples(st.just("show")),
        st.tuples(st.just("abort")),
        st.tuples(st.just("hold")),
    ),
    max_size=40,
)

Content = dict[Table, dict[bytes, bytes]]


def copy(content: Content) -> Content:
    return {table: dict(rows) for table, rows in content.items()}


def same(r: Reader, content: Content, low: bytes, high: bytes) -> None:
    for table, rows in content.items():
        ordered = sorted(rows.items())
        assert list(r.scan(table)) == ordered
        assert r.count(table) == len(ordered)
        assert r.last_key(table) == (ordered[-1][0] if ordered else None)
        part = [row for row in ordered if low <= row[0] < high]
        assert list(r.scan(table, low, high)) == part
        assert list(r.scan(table, low, high, reverse=True)) == part[::-1]
        assert list(r.scan_keys(table, low, high, reverse=True)) == [key for key, _ in part[::-1]]
        below = [row for row in ordered if row[0] <= low]
        assert r.floor(table, low) == (below[-1] if below else None)
        assert r.get(table, low) == rows.get(low)
        want = rows.get(low)
        assert r.get_slice(table, low, 1, 2) == (None if want is None else want[1:3])


@settings(max_examples=60, deadline=None)
@given(ops=OPS, low=KEYS, high=KEYS)
def test_a_store_is_a_dict_of_sorted_dicts(
    fresh_store: Callable[[], AbstractContextManager[Store]],
    ops: list[tuple[object, ...]],
    low: bytes,
    high: bytes,
) -> None:
    shown: Content = {table: {} for table in Table}
    durable = copy(shown)
    content = copy(shown)
    held: list[tuple[Reader, Content]] = []
    with fresh_store() as store, ExitStack() as open_reads:
        for op in ops:
            match op:
                case ("put", Table() as table, bytes() as key, bytes() as value):
                    store.writer().put(table, key, value)
                    content[table][key] = value
                case ("delete", Table() as table, bytes() as key):
                    assert store.writer().delete(table, key) is (key in content[table])
                    content[table].pop(key, None)
                case ("commit",):
                    store.commit()
                    durable, shown = copy(content), copy(content)
                case ("persist",):
                    store.persist()
                    durable, shown = copy(content), copy(content)
                case ("show",):
                    store.show()
                    shown = copy(content)
                case ("abort",):
                    store.abort()
                    content, shown = copy(durable), copy(durable)
                case ("hold",):
                    held.append((open_reads.enter_context(store.read()), copy(shown)))
        same(store.writer(), content, low, high)
        with store.read() as r:
            same(r, shown, low, high)
        for reader, seen in held:
            same(reader, seen, low, high)
