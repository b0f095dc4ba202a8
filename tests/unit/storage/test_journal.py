"""The journal's rules one by one; ``test_log_model`` runs them against a model."""

from __future__ import annotations

import pytest

from holdfast.errors import StorageError
from holdfast.storage import journal, partitions
from holdfast.storage.journal import EntryKind, JournalRow, RaftMeta
from holdfast.storage.port import Store, Table


def test_a_fresh_store(store: Store) -> None:
    with store.read() as r:
        assert journal.read_meta(r) == RaftMeta(0, None, 1, 1, 1, 0, 1)
        assert journal.read(r, 1) is None
        assert journal.read_term(r, 1) == 0
        assert journal.read_term(r, 2) is None


def test_append_and_read(store: Store) -> None:
    w = store.writer()
    journal.append(w, 2, 1, EntryKind.NO_OP, b"")
    journal.append(w, 3, 1, EntryKind.COMMAND, b"payload")
    store.commit()
    with store.read() as r:
        assert journal.read(r, 2) == JournalRow(2, 1, EntryKind.NO_OP, b"")
        assert journal.read(r, 3) == JournalRow(3, 1, EntryKind.COMMAND, b"payload")
        assert journal.read_term(r, 3) == 1
        assert list(journal.scan_terms(r, 1, 9)) == [(2, 1), (3, 1)]
        assert list(journal.scan_terms(r, 3, 3)) == [(3, 1)]
        assert journal.read_meta(r).last_index == 3
        at = r.get_slice(Table.JOURNAL, journal.row_key(3), journal.ROW_HEADER, 7)
        assert at == b"payload"


@pytest.mark.parametrize("index", [0, 1, 3, 4, 6])
def test_the_log_has_no_gap(store: Store, index: int) -> None:
    w = store.writer()
    journal.append(w, 2, 1, 0, b"")
    journal.append(w, 3, 1, 0, b"")
    if index == 4:
        journal.append(w, 4, 1, 0, b"")
    with pytest.raises(StorageError, match="does not follow"):
        journal.append(w, index, 1, 0, b"")


def test_truncate(store: Store) -> None:
    w = store.writer()
    for i in range(2, 8):
        journal.append(w, i, 1, 0, b"%d" % i)
    journal.set_commit(w, 4)
    assert journal.truncate_from(w, 6) == 2
    assert journal.truncate_from(w, 6) == 0
    journal.append(w, 6, 2, 0, b"new")
    assert [term for _, term in journal.scan_terms(w, 2, 99)] == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("index", [4, 2, 1, 0])
def test_what_is_committed_is_never_truncated(store: Store, index: int) -> None:
    w = store.writer()
    for i in range(2, 8):
        journal.append(w, i, 1, 0, b"")
    journal.set_commit(w, 4)
    with pytest.raises(StorageError, match="refusing to truncate"):
        journal.truncate_from(w, index)
    assert journal.read_meta(w).last_index == 7


def test_the_vote_is_kept(store: Store) -> None:
    w = store.writer()
    journal.set_term_and_vote(w, 3, None)
    journal.set_term_and_vote(w, 3, "n1")
    journal.set_term_and_vote(w, 3, "n1")
    store.commit()
    with store.read() as r:
        meta = journal.read_meta(r)
        assert (meta.term, meta.voted_for) == (3, "n1")
    w = store.writer()
    for term, vote in ((3, "n2"), (3, None), (2, "n1")):
        with pytest.raises(StorageError, match="refusing to change the vote"):
            journal.set_term_and_vote(w, term, vote)
    journal.set_term_and_vote(w, 4, None)


def test_the_commit_index_never_passes_the_end(store: Store) -> None:
    w = store.writer()
    journal.append(w, 2, 1, 0, b"")
    journal.set_commit(w, 99)
    assert journal.read_meta(w).commit_index == 2


def test_an_applied_index_past_the_end_is_data_loss(store: Store) -> None:
    w = store.writer()
    journal.set_applied(w, 9)
    with pytest.raises(StorageError, match="ends at 1, but entry 9"):
        journal.read_meta(w)


def test_trim_moves_the_base_at_once_and_deletes_in_steps(store: Store) -> None:
    w = store.writer()
    for i in range(2, 12):
        journal.append(w, i, 1 + i // 6, 0, b"")
    partitions.add_refs(w, 4, 2)
    journal.set_applied(w, 10)
    assert journal.trim_to(w, 8, 2, limit=3) == 3
    meta = journal.read_meta(w)
    assert (meta.base_index, meta.base_term, meta.last_index) == (8, 2, 11)
    assert [i for i, _ in journal.scan_terms(w, 0, 99)] == [4, 5, 6, 7, 8, 9, 10, 11]
    assert journal.trim_to(w, 8, 2, limit=3) == 3
    assert journal.trim_to(w, 8, 2, limit=3) == 1
    assert journal.trim_to(w, 8, 2, limit=3) == 0
    assert [i for i, _ in journal.scan_terms(w, 0, 99)] == [4, 9, 10, 11]
    assert journal.read_term(w, 8) == 2
    journal.append(w, 12, 3, 0, b"")


def test_trimming_everything_keeps_the_last_index(store: Store) -> None:
    w = store.writer()
    for i in range(2, 5):
        journal.append(w, i, 1, 0, b"")
    journal.set_applied(w, 4)
    journal.trim_to(w, 4, 1, limit=99)
    meta = journal.read_meta(w)
    assert (meta.base_index, meta.last_index, meta.applied_index) == (4, 4, 4)
    journal.append(w, 5, 1, 0, b"")


@pytest.mark.parametrize(("index", "term", "why"), [(6, 1, "not applied"), (4, 2, "of term 2")])
def test_a_wrong_base_is_refused(store: Store, index: int, term: int, why: str) -> None:
    w = store.writer()
    for i in range(2, 7):
        journal.append(w, i, 1, 0, b"")
    journal.set_applied(w, 5)
    with pytest.raises(StorageError, match=why):
        journal.trim_to(w, index, term, limit=99)


@pytest.mark.parametrize("at", [0, 5, journal.ROW_HEADER, -1])
def test_a_flipped_bit_is_found(store: Store, at: int) -> None:
    w = store.writer()
    journal.append(w, 2, 1, 0, b"payload")
    value = bytearray(w.get(Table.JOURNAL, journal.row_key(2)) or b"")
    value[at] ^= 4
    w.put(Table.JOURNAL, journal.row_key(2), bytes(value))
    with pytest.raises(StorageError, match="entry 2 is damaged"):
        journal.read(w, 2)


def test_a_row_in_the_wrong_place_is_found(store: Store) -> None:
    w = store.writer()
    journal.append(w, 2, 1, 0, b"payload")
    w.put(Table.JOURNAL, journal.row_key(3), w.get(Table.JOURNAL, journal.row_key(2)) or b"")
    with pytest.raises(StorageError, match="entry 3 is damaged"):
        journal.read(w, 3)
    w.put(Table.JOURNAL, journal.row_key(4), b"short")
    with pytest.raises(StorageError, match="entry 4 is damaged"):
        journal.read(w, 4)
    with pytest.raises(StorageError, match="entry 4 is damaged"):
        journal.read_term(w, 4)
