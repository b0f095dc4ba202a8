"""The journal against a model, and against what PySyncObj asks of it."""

from __future__ import annotations

import random

import pytest

from holdfast.cluster.raft.journal import StoreJournal
from holdfast.cluster.raft.messages import COMMAND, NO_OP, STOCK_NO_OP, Command
from holdfast.errors import InternalError, StorageError
from holdfast.storage import journal as rows
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Table

MIB = 1 << 20


def fresh(cache: int = MIB) -> tuple[MemoryStore, StoreJournal]:
    store = MemoryStore()
    return store, StoreJournal(store, cache)


def commit(store: MemoryStore, journal: StoreJournal) -> None:
    journal.before_flush()
    store.commit()
    journal.on_flush()


def test_a_fresh_log_is_its_base() -> None:
    _, journal = fresh()
    assert len(journal) == 1
    assert journal[-1][1:] == journal[0][1:] == (1, 0)
    assert (journal.base_index, journal.last_index, journal.durable_index) == (1, 1, 1)


@pytest.mark.parametrize("seed", range(8))
def test_against_a_model(seed: int) -> None:
    rng = random.Random(seed)
    store, journal = fresh(cache=rng.choice([0, 300, MIB]))
    model: list[tuple[bytes, int, int]] = [(b"", 1, 0)]
    durable = list(model)
    term = 0
    committed = 1
    for step in range(400):
        action = rng.random()
        if action < 0.55:
            term += rng.random() < 0.1
            data = b"%d" % step * rng.randrange(1, 20)
            journal.add(Command(COMMAND, data), model[-1][1] + 1, term)
            model.append((data, model[-1][1] + 1, term))
        elif action < 0.63 and model[-1][1] > committed:
            at = rng.randrange(max(committed, model[0][1]) + 1, model[-1][1] + 1)
            journal.deleteEntriesFrom(at - model[0][1])
            del model[at - model[0][1] :]
            term += 1
        elif action < 0.78:
            committed = (
                rng.randrange(committed, durable[-1][1] + 1) if durable[-1][1] >= committed else committed
            )
            committed = min(committed, model[-1][1])
            journal.setRaftCommitIndex(committed)
            journal.set_applied(committed)
        elif action < 0.88:
            commit(store, journal)
            durable = list(model)
        elif action < 0.93:
            limit = min(journal.stored_applied, journal.durable_index)
            if limit > model[0][1]:
                to = rng.randrange(model[0][1], limit + 1)
                journal.trim(to, 1000)
                commit(store, journal)
                model = [entry for entry in model if entry[1] >= to]
                durable = list(model)
        else:
            store.power_cut()
            journal.reload()
            model = list(durable)
            committed = min(journal.getRaftCommitIndex(), committed)
            term = max(term, model[-1][2])
        assert journal.last_index == model[-1][1]
        assert journal.base_index == model[0][1]
        assert len(journal) == len(model)
        assert journal[-1][1:] == model[-1][1:]
        assert journal.durable_index <= journal.last_index
        for _ in range(3):
            index = rng.randrange(model[0][1], model[-1][1] + 1)
            entry = model[index - model[0][1]]
            assert journal.term(index) == entry[2]
            if index > model[0][1]:
                assert journal.entry(index) == (Command(COMMAND, entry[0]), index, entry[2])
        assert journal.term(model[0][1] - 1) is None
        assert journal.term(model[-1][1] + 1) is None
    assert [entry[1:] for entry in journal[1:]] == [entry[1:] for entry in model[1:]]


def test_slices_are_lazy_views() -> None:
    store, journal = fresh(cache=0)
    for index in range(2, 102):
        journal.add(Command(COMMAND, b"x" * 10), index, 1)
    commit(store, journal)
    view = journal[50:]
    assert len(view) == 51
    assert view[0][1] == 51
    assert [entry[1] for entry in view[:3]] == [51, 52, 53]
    assert view[-1][1] == 101
    assert not journal[200:]
    with pytest.raises(IndexError):
        view[51]


def test_the_cache_is_bounded_in_bytes() -> None:
    store, journal = fresh(cache=1000)
    for index in range(2, 102):
        journal.add(Command(COMMAND, b"x" * 100), index, 1)
    commit(store, journal)
    assert journal._cache_bytes <= 1000
    assert len(journal._cache) <= 11
    assert journal.entry(2) == (Command(COMMAND, b"x" * 100), 2, 1)


def test_batches_are_bounded_and_never_empty() -> None:
    _, journal = fresh()
    for index in range(2, 22):
        journal.add(Command(COMMAND, b"x" * 1000), index, 1)
    assert [e[1] for e in journal.batch(2, 21, 1000, 3100)] == [2, 3, 4]
    assert [e[1] for e in journal.batch(2, 21, 2, MIB)] == [2, 3]
    assert [e[1] for e in journal.batch(5, 21, 1000, 1)] == [5]
    assert [e[1] for e in journal.batch(20, 21, 1000, MIB)] == [20, 21]


def test_committed_entries_are_never_truncated() -> None:
    store, journal = fresh()
    for index in range(2, 12):
        journal.add(Command(COMMAND, b"x"), index, 1)
    journal.setRaftCommitIndex(6)
    commit(store, journal)
    with pytest.raises(InternalError):
        journal.deleteEntriesFrom(5)
    assert journal.last_index == 11


def test_commit_index_beyond_the_log_is_not_believed() -> None:
    """12: after a power cut the stored commit index may name entries that are not there."""
    store, journal = fresh()
    journal.add(Command(COMMAND, b"x"), 2, 1)
    rows.set_commit(store.writer(), 50)
    store.commit()
    journal.reload()
    assert journal.getRaftCommitIndex() == 2


def test_gaps_and_terms_that_go_back_are_refused() -> None:
    _, journal = fresh()
    journal.add(Command(COMMAND, b"x"), 2, 5)
    with pytest.raises(InternalError):
        journal.add(Command(COMMAND, b"x"), 4, 5)
    with pytest.raises(InternalError):
        journal.add(Command(COMMAND, b"x"), 3, 4)


def test_only_a_no_op_comes_from_the_library() -> None:
    _, journal = fresh()
    journal.add(STOCK_NO_OP, 2, 1)
    assert journal.entry(2)[0].kind == NO_OP
    with pytest.raises(InternalError):
        journal.add(b"\x02pickled", 3, 1)


def test_nothing_of_the_library_can_clear_the_log() -> None:
    _, journal = fresh()
    with pytest.raises(InternalError):
        journal.clear()
    with pytest.raises(InternalError):
        journal.deleteEntriesTo(1)


def test_terms_and_votes_ask_for_a_commit_once() -> None:
    store, journal = fresh()
    journal.setCurrentTerm(3, "n1")
    assert journal.needs_commit
    commit(store, journal)
    assert not journal.needs_commit
    journal.setCurrentTerm(3, "n1")
    assert not store.dirty
    journal.reload()
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (3, "n1")


def test_a_missing_row_is_told() -> None:
    store, journal = fresh(cache=0)
    for index in range(2, 5):
        journal.add(Command(COMMAND, b"x"), index, 1)
    commit(store, journal)
    store.writer().delete(Table.JOURNAL, rows.row_key(3))
    with pytest.raises(StorageError):
        journal.entry(3)


def test_a_start_reads_a_few_rows_however_long_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    store, journal = fresh(cache=0)
    for index in range(2, 5002):
        journal.add(Command(COMMAND, b"x"), index, index // 1000)
    commit(store, journal)
    reads = 0
    original = rows.read

    def counted(reader: object, index: int) -> rows.JournalRow | None:
        nonlocal reads
        reads += 1
        return original(reader, index)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "read", counted)
    again = StoreJournal(store, 0)
    assert reads == 1
    assert [again.term(i) for i in (2, 999, 1000, 4999, 5001)] == [0, 0, 1, 4, 5]
    # And where terms were not noted down yet.
    store.writer().delete(Table.META, b"raft.runs")
    store.commit()
    again = StoreJournal(store, 0)
    assert reads < 200
    assert [again.term(i) for i in (2, 999, 1000, 4999, 5001)] == [0, 0, 1, 4, 5]


def test_log_is_measured_in_bytes() -> None:
    store, journal = fresh()
    for index in range(2, 102):
        journal.add(Command(COMMAND, b"x" * (MIB // 4)), index, 1)
    commit(store, journal)
    behind = journal.index_behind(5 * MIB)
    assert 101 - 26 <= behind <= 101 - 18
    assert journal.index_behind(100 * MIB) == 1
