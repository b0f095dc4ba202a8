"""What an inbound append means for our log, decided before PySyncObj sees it (1, 3, 12, 21).

PySyncObj truncates everything after ``prev`` whatever the message holds. It is
therefore handed an equivalent append that starts where our log really ends, or
where it really differs.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cluster.raft.cures import Cures
from holdfast.cluster.raft.journal import StoreJournal
from holdfast.cluster.raft.messages import Entry
from holdfast.errors import InternalError
from holdfast.v1 import peer_pb2


class LogConflictError(InternalError):
    """A leader's entry differs from one that is committed here: replicas have diverged. Halt."""


@dataclass(slots=True)
class Verdict:
    """The append to hand on, and what to answer."""

    prev_index: int
    prev_term: int
    entries: list[Entry]
    commit_index: int
    success: bool
    match_index: int
    last_index: int
    truncate_from: int = 0


def examine(
    append: peer_pb2.AppendEntries,
    entries: list[Entry],
    journal: StoreJournal,
    commit_index: int,
    cures: Cures,
) -> Verdict:
    """Judge an append of the current leader.

    Raises:
        LogConflictError: an entry differs at or below the commit index.
    """
    prev = append.prev_index
    prev_term = append.prev_term
    base = journal.base_index
    last = journal.last_index
    confirmed = prev + len(entries)

    if prev < base:
        # Everything up to the base is committed, so any leader has it as we do.
        skip = base - prev
        if len(entries) < skip:
            return _heartbeat(journal, True, base, append.commit_index, base)
        if entries[skip - 1][2] != journal.term(base):
            raise LogConflictError(f"the leader's entry {base} is not the one applied here")
        entries = entries[skip:]
        prev = base
    elif prev > last:
        return _heartbeat(journal, False, 0, commit_index, last)
    elif journal.term(prev) != prev_term:
        if prev <= commit_index:
            raise LogConflictError(f"the leader's entry {prev} is not the one committed here")
        # The next try starts below the whole run of the conflicting term, and
        # never below what is committed: repair takes one round trip per term.
        hint = max(commit_index, journal.term_start(prev) - 1)
        return _heartbeat(journal, False, 0, commit_index, hint)

    truncate_from = 0
    skip = 0
    if prev < last:
        for _, index, term in entries:
            if index > last:
                break
            if journal.term(index) != term:
                if index <= commit_index:
                    raise LogConflictError(f"the leader's entry {index} is not the one committed here")
                truncate_from = index
                break
            skip += 1
    if cures.keep_matching_entries:
        start = truncate_from - 1 if truncate_from else last
        rest = entries[skip:] if skip else entries
    else:
        start, rest = prev, entries
    commit = min(append.commit_index, confirmed) if cures.commit_within_confirmed else append.commit_index
    return Verdict(
        prev_index=start,
        prev_term=journal.term(start) or 0,
        entries=rest,
        commit_index=commit,
        success=True,
        match_index=confirmed,
        last_index=last,
        truncate_from=truncate_from,
    )


def _heartbeat(journal: StoreJournal, success: bool, match: int, commit: int, last: int) -> Verdict:
    # An append that changes nothing: PySyncObj takes note of the leader, no more.
    return Verdict(
        prev_index=journal.last_index,
        prev_term=journal.last_term,
        entries=[],
        commit_index=min(commit, match) if success else 0,
        success=success,
        match_index=match,
        last_index=last,
    )
