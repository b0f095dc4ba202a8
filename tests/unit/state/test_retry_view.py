"""The list of records that wait: in order, page by page, without what means nothing any more."""

from __future__ import annotations

import pytest

from holdfast.cluster.state.retry_view import Place, waiting
from holdfast.storage import flow_keys, retries
from holdfast.storage.retries import NEVER_US, RetryRow, State

from .replica_kit import Replica, append, commit, delete, trim


@pytest.fixture
def replica() -> Replica:
    """Records of two topics wait; every third one is parked."""
    made = Replica()
    for topic_id, name in enumerate("tu", start=1):
        made.topic(name, 2)
        made.do(append(topic_id, [(0, 10), (1, 10)]))
        made.do(append(topic_id, [(0, 10), (1, 10)]))
    made.do(commit("g", *((topic_id, partition, 0) for topic_id in (1, 2) for partition in (0, 1))))
    for topic_id in (1, 2):
        for partition in (0, 1):
            for offset in range(9):
                park(made, "g", topic_id, partition, offset)
    park(made, "gg", 1, 0, 0)
    return made


def park(replica: Replica, group: str, topic_id: int, partition: int, offset: int) -> None:
    state = (State.WAITING, State.PARKED, State.SUSPECT, State.PARKED_FOR_GOOD)[offset % 4]
    due = NEVER_US if state is State.PARKED_FOR_GOOD else 5
    row = RetryRow(1, 0, state, due, 5)
    retries.write(replica.w, flow_keys.flow_key(group, topic_id, partition), offset, row)


def pages(replica: Replica, limit: int, *, parked: bool = False, max_rows: int = 100) -> list[Place]:
    found: list[Place] = []
    after: Place | None = None
    while True:
        page = waiting(replica.w, "g", after=after, limit=limit, parked_only=parked, max_rows=max_rows)
        assert len(page.found) <= limit
        found += [each.place for each in page.found]
        if page.after is None:
            return found
        assert after is None or page.after > after
        after = page.after


ALL = [(topic, partition, offset) for topic in (1, 2) for partition in (0, 1) for offset in range(9)]


@pytest.mark.parametrize("limit", [1, 4, 9, 36, 100])
@pytest.mark.parametrize("max_rows", [1, 7, 100])
def test_pages_are_the_whole_list(replica: Replica, limit: int, max_rows: int) -> None:
    assert pages(replica, limit, max_rows=max_rows) == ALL
    parked = [place for place in ALL if place[2] % 2]
    assert pages(replica, limit, parked=True, max_rows=max_rows) == parked


def test_what_is_below_the_floor_or_trimmed_is_not_listed(replica: Replica) -> None:
    replica.do(commit("g", (1, 0, 4)))
    replica.do(trim(1, 1, 10))
    park(replica, "g", 1, 0, 1)  # as a bounded step may leave it
    park(replica, "g", 1, 0, 5)
    listed = [place for place in pages(replica, 100) if place[0] == 1]
    assert listed == [(1, 0, offset) for offset in range(4, 9)]


@pytest.mark.parametrize("max_rows", [1, 5, 100])
def test_topics_that_are_gone_are_passed_over(replica: Replica, max_rows: int) -> None:
    replica.do(delete("t"))
    for offset in range(9):
        park(replica, "g", 1, 0, offset)
    page = waiting(replica.w, "g", limit=3, max_rows=max_rows)
    assert page.after is not None
    assert page.after[0] == 2, "where to go on can be named"
    assert pages(replica, 3, max_rows=max_rows) == [place for place in ALL if place[0] == 2]


def test_nobody_waits() -> None:
    replica = Replica()
    assert waiting(replica.w, "g", limit=10) == ([], None)
