"""Faults 1, 2, 9, 10, 16, 20, 21: appending, counting acks, leading."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.chaos.sim import Divergence
from holdfast.cluster.raft.cures import ALL
from holdfast.cluster.raft.seam import configuration
from holdfast.cluster.raft.settings import EngineSettings

from .ours_replication import (
    ours_01,
    ours_02,
    ours_09,
    ours_10,
    ours_16,
    ours_20,
    ours_21_rejoin,
    ours_21_round_trips,
)
from .stock import Clock, Lab
from .stock_replication import (
    stock_01,
    stock_02,
    stock_09,
    stock_10,
    stock_16,
    stock_20,
    stock_21_rejoin,
    stock_21_round_trips,
)


def test_fault_01(lab: Lab) -> None:
    """An old or empty append truncates what was acked."""
    stock = stock_01(lab)
    assert stock.last_index_after < stock.acked_up_to == stock.last_index_before

    for commit in (1, 4):
        ours = ours_01(lab.clock, commit=commit)
        assert ours.acked_up_to == ours.last_index_before == ours.last_index_after == 4

    # Without the cure: acked entries vanish, as in stock.
    broken = ours_01(lab.clock, dataclasses.replace(ALL, keep_matching_entries=False))
    assert broken.last_index_after < broken.acked_up_to


def test_fault_02(lab: Lab) -> None:
    """Every ack sends the whole window again."""
    stock = stock_02(lab)
    assert stock.next_index_after_ack < stock.next_index_before_ack
    assert max(stock.times_sent.values()) > 10

    ours = ours_02(lab.clock)
    assert ours.next_index_after_ack == ours.next_index_before_ack == 23
    assert [ours.times_sent[index] for index in range(3, 23)] == [1] * 20

    broken = ours_02(lab.clock, dataclasses.replace(ALL, next_index_forward=False))
    assert max(broken.times_sent.values()) > 1


def test_fault_09(lab: Lab) -> None:
    """The leader counts itself before its own write is durable."""
    stock = stock_09(lab)
    assert stock.succeeded
    assert stock.flushes_of_the_leader == 0
    assert stock.live_followers_that_acked == 1  # so one copy was durable at most

    assert not ours_09(lab.clock).succeeded
    assert ours_09(lab.clock, dataclasses.replace(ALL, leader_counts_durable=False)).succeeded


def test_fault_10(lab: Lab) -> None:
    """An ack from an older term is counted in a newer one."""
    stock = stock_10(lab)
    assert not stock.term_in_ack
    assert stock.commit_after == 4 > stock.commit_before
    assert stock.succeeded  # and nobody but the leader has it

    ours = ours_10(lab.clock)
    assert ours.term_in_ack
    assert ours.commit_after == ours.commit_before
    assert not ours.succeeded

    broken = ours_10(lab.clock, dataclasses.replace(ALL, drop_stale_replies=False))
    assert broken.commit_after > broken.commit_before
    assert broken.succeeded


def test_fault_16(lab: Lab) -> None:
    """A chunked entry ends more than once."""
    stock = stock_16(lab)
    assert stock.finishes > 1
    assert stock.receiver_errors >= 1

    ours = ours_16(lab.clock)
    assert ours.finishes == 1
    assert ours.receiver_last_index == 3
    settings = EngineSettings()
    assert configuration(settings).appendEntriesBatchSizeBytes > settings.max_op_bytes + settings.entry_bytes


def test_fault_20(lab: Lab) -> None:
    """A stale leader is told nothing and serves stale reads for half a minute."""
    stock = stock_20(lab)
    assert stock.replies_to_its_append == 0
    assert stock.led_alone_for_seconds >= 30.0
    assert stock.stale_value_read != stock.committed_by_the_others

    ours, read_answered = ours_20()
    settings = EngineSettings()
    assert ours.replies_to_its_append == 1
    assert ours.led_alone_for_seconds < 2 * settings.election_max
    assert ours.stale_value_read != ours.committed_by_the_others, "the old leader has not heard of it"
    assert not read_answered, "so it must not answer a linearizable read"

    with pytest.raises(Divergence, match="a read on"):  # the cure is what refuses it
        ours_20(cures=dataclasses.replace(ALL, confirm_reads=False))


def test_fault_21(lab: Lab) -> None:
    """A rejoining node deposes a healthy leader; repair goes one index per round trip."""
    stock = stock_21_rejoin(lab)
    assert stock.healthy_leader_before
    assert not stock.healthy_leader_after
    assert stock_21_round_trips(lab, 50) > 50

    ours = ours_21_rejoin()
    assert ours.healthy_leader_before
    assert ours.healthy_leader_after
    assert ours.term_after == ours.term_before
    assert ours_21_round_trips(Clock(), 50) <= 4

    broken = ours_21_rejoin(cures=dataclasses.replace(ALL, pre_vote=False, leader_stickiness=False))
    assert broken.term_after > broken.term_before
