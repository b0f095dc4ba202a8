"""Committed offsets of groups."""

from __future__ import annotations

import pytest

from holdfast.cluster.state.events import GroupCreated, OperationRefused
from holdfast.cluster.state.limits import StateLimits
from holdfast.storage import groups

from .replica_kit import Replica, append, commit


@pytest.fixture
def replica() -> Replica:
    made = Replica(StateLimits(max_groups=2))
    made.topic("t", 2)
    made.do(append(1, [(0, 10), (1, 10)]))
    return made


def test_offsets_move_forward_only(replica: Replica) -> None:
    replica.do(commit("g", (1, 0, 4), (1, 1, 0)))
    replica.do(commit("g", (1, 0, 3), (1, 1, 2)))
    assert groups.committed(replica.w, "g", 1, 0) == 4
    assert groups.committed(replica.w, "g", 1, 1) == 2
    replica.do(commit("g", (1, 0, 7), (1, 0, 6)))
    assert groups.committed(replica.w, "g", 1, 0) == 7
    replica.do(commit("g", (1, 0, 10)))


def test_offsets_past_the_end(replica: Replica) -> None:
    assert replica.refused(commit("g", (1, 1, 3), (1, 0, 11))) == (
        "OFFSET_OUT_OF_RANGE",
        {"topic": "t", "partition": "0", "start_offset": "0", "end_offset": "10"},
    )


def test_what_is_refused(replica: Replica) -> None:
    assert replica.refused(commit("g", (1, 0, -1)))[0] == "INVALID_ARGUMENT"
    assert replica.refused(commit("g", (1, 2, 0)))[0] == "UNKNOWN_PARTITION"
    assert replica.refused(commit("g", (9, 0, 0)))[0] == "UNKNOWN_TOPIC"
    for name in ("", "a b", "..", "x" * 250):
        assert replica.refused(commit(name, (1, 0, 0)))[1] == {"field": "group"}


def test_groups_are_bounded(replica: Replica) -> None:
    replica.do(commit("a", (1, 0, 0)))
    replica.do(commit("nothing"))
    replica.do(commit("b", (1, 0, 0)))
    assert replica.refused(commit("c", (1, 0, 0))) == ("LIMIT_EXCEEDED", {"limit": "2"})
    replica.do(commit("a", (1, 1, 0)))
    assert groups.list_groups(replica.w) == ["a", "b"]


def test_events() -> None:
    seen: list[object] = []
    replica = Replica(events=seen.append)
    replica.topic()
    seen.clear()
    replica.do(commit("g", (1, 0, 0)))
    replica.do(commit("g", (1, 0, 0)))
    replica.refused(commit("g", (1, 0, 1)))
    assert seen == [GroupCreated("g"), OperationRefused("commit_offsets", "OFFSET_OUT_OF_RANGE")]
