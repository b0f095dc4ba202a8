"""Planted bugs are found: what the simulator calls a violation is one, and what is one it calls so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from holdfast.chaos.checker.history import History
from holdfast.chaos.sim.__main__ import main
from holdfast.chaos.sim.cluster import SimCluster, SimNode
from holdfast.chaos.sim.found import found_by
from holdfast.chaos.sim.oracle import Oracle
from holdfast.chaos.sim.run import run
from holdfast.chaos.sim.sabotage import SABOTAGES
from holdfast.cluster import events
from holdfast.cluster.raft.cures import ALL, Cures
from holdfast.cluster.raft.messages import COMMAND, Command, Envelope, PeerFrame
from holdfast.storage.port import Table

FOUND = found_by()

#: What has to be planted, at the least: faults of the consensus library by their numbers in
#: ``cluster/DESIGN.md``, and what else a broker may get wrong.
WANTED: dict[str, set[str]] = {
    "1: a heartbeat truncates": {"keep_matching_entries"},
    "2: an ack moves the next index back": {"next_index_forward"},
    "3: a snapshot chunk commits": {"snapshot_commit_zero"},
    "4: a bad snapshot is acked": {"halt_on_bad_snapshot"},
    "5: log and state apart": {"apply_twice"},
    "6: acks and votes before the fsync": {"hold_until_durable", "lying_disk", "ahead_unflushed"},
    "7: a crash amid a change of the log": {"torn_commits"},
    "8: no checksums": {"checksums_off"},
    "9: the leader's own copy": {"leader_counts_durable"},
    "10: replies of another term": {"drop_stale_replies"},
    "11: votes counted twice": {"count_voters_once"},
    "12: commit beyond the end": {"commit_within_confirmed"},
    "14, 15: foreign entries": {"refuse_foreign_kinds"},
    "17: snapshots spliced": {"check_snapshot_chunks"},
    "20: stale leaders and stale reads": {"answer_stale_leader", "confirm_reads", "local_reads"},
    "21: healthy leaders deposed": {"pre_vote", "leader_stickiness"},
    "22: callers hang": {"fail_jumped_waiters"},
    "26: a node that forgot votes": {"joining_does_not_vote"},
    "applying is not deterministic": {"apply_by_chance"},
    "retries are stored again": {"dedup_off", "snapshot_forgets"},
    "offsets are committed before delivery": {"commit_before_delivery"},
    "offsets go back": {"offsets_go_back"},
    "records are skipped": {"skip_at_start"},
    "an acknowledgement is overlooked": {"late_committer"},
    "idempotency keys are forgotten": {"marks_by_wall_clock", "repair_forgets_keys"},
}


def test_every_cure_of_the_engine_can_be_switched_off() -> None:
    for field in dataclasses.fields(Cures):
        assert getattr(ALL, field.name) is True
        assert SABOTAGES[field.name].cures == dataclasses.replace(ALL, **{field.name: False})


def test_the_list_is_complete() -> None:
    assert set(SABOTAGES) == set().union(*WANTED.values())


def test_names_are_printed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines() == list(SABOTAGES)


def test_plans_are_kept_for_every_planted_bug() -> None:
    assert set(FOUND) == set(SABOTAGES)


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_planted_bug_is_found_and_nothing_else(name: str) -> None:
    plan = next((plan for plan in FOUND[name] if run(plan, SABOTAGES[name]).violations), None)
    assert plan is not None, f"none of its plans finds {name}: run python -m holdfast.chaos.sim.found {name}"
    assert run(plan).violations == ()


# -- the judge's own tests ------------------------------------------------------------------


@pytest.fixture
def judged() -> tuple[SimCluster, Oracle]:
    cluster = SimCluster(3, start=False)
    oracle = Oracle(cluster, History(), lambda kind, what: None)
    cluster.watch = oracle
    for node_id in cluster.ids:
        cluster.start(node_id)
    cluster.elect()
    cluster.settle()
    return cluster, oracle


def _last(node: SimNode) -> int:
    return int.from_bytes(node.store.keys(Table.JOURNAL)[-1], "big")


def test_a_snapshot_that_is_not_there_does_not_count(judged: tuple[SimCluster, Oracle]) -> None:
    cluster, oracle = judged
    leader, follower = cluster.nodes["n1"], cluster.nodes["n2"]

    oracle.event(leader, events.SnapshotSent("n2", _last(follower), 1, 0.0))
    assert oracle.all_violations() == []
    oracle.event(leader, events.SnapshotSent("n2", _last(follower) + 1, 1, 0.0))
    assert [found.promise for found in oracle.all_violations()] == ["snapshot-not-there"]


def test_a_node_that_lost_its_disk_is_not_judged(judged: tuple[SimCluster, Oracle]) -> None:
    cluster, oracle = judged
    cluster.wipe("n2")
    oracle.event(cluster.nodes["n1"], events.SnapshotSent("n2", 7, 1, 0.0))
    assert oracle.all_violations() == []


def _append(first: int, last: int, term: int = 1) -> PeerFrame:
    entries = [(Command(COMMAND, b""), index, term) for index in range(first, last + 1)]
    return Envelope(7).append(
        term, prev_index=first - 1, prev_term=term, commit_index=0, round_number=1, entries=entries
    )


def test_entries_go_over_a_connection_once(judged: tuple[SimCluster, Oracle]) -> None:
    cluster, oracle = judged
    cluster.run_for(1.0)
    (tap,) = cluster.network.taps
    tap("n1", "n2", _append(5, 9))
    tap("n1", "n2", _append(10, 12))
    tap("n1", "n3", _append(5, 9))
    tap("n1", "n2", _append(10, 12))  # the first ones may have been a question
    assert oracle.all_violations() == []
    tap("n1", "n2", _append(12, 12))
    assert [found.promise for found in oracle.all_violations()] == ["sent-again"]


def _refuse(cluster: SimCluster) -> None:
    cluster.network.taps[0]("n2", "n1", Envelope(8).append_reply(1, success=False))


def _reconnect(cluster: SimCluster) -> None:
    cluster.network.reconnect("n1", "n2")


def _new_term(cluster: SimCluster) -> None:
    cluster.network.taps[0]("n1", "n2", _append(5, 5, 2))


def _duplicates(cluster: SimCluster) -> None:
    cluster.network.duplicate = 0.1


@pytest.mark.parametrize("reason", [_refuse, _reconnect, _new_term, _duplicates])
def test_entries_are_sent_again_for_a_reason(
    judged: tuple[SimCluster, Oracle], reason: Callable[[SimCluster], None]
) -> None:
    cluster, oracle = judged
    cluster.run_for(1.0)
    (tap,) = cluster.network.taps
    tap("n1", "n2", _append(5, 9))
    tap("n1", "n2", _append(5, 9))
    reason(cluster)
    tap("n1", "n2", _append(6, 9))
    assert oracle.all_violations() == []
