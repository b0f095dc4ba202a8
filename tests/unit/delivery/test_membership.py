"""Seats and streams: who is there, how long what is kept for whom, what the rows should become."""

from __future__ import annotations

from holdfast.cluster.delivery.hello import Hello
from holdfast.cluster.delivery.membership import Membership
from holdfast.cluster.delivery.sessions import Session
from holdfast.storage.members import MemberRow

REJOIN = 1.5


def session(member: str, *, grace_ms: int | None = None, protocol: int = 2, name: str = "") -> Session:
    hello = Hello(group="g", member=member, grace_ms=grace_ms, protocol=protocol, name=name)
    return Session("s", hello, 0.0, lambda: None)


def seated(members: Membership, one: Session, now: float = 0.0) -> Session:
    """It joined and its row was put."""
    members.arrive(one)
    joins, leaves = members.wanted()
    assert [row.id for row in joins] == [one.member]
    assert not leaves
    assert members.changed(joins, leaves, now) == []
    assert members.seats[one.member].session is one
    return one


def test_a_stream_gets_a_seat_and_then_nothing_is_wanted() -> None:
    members = Membership(REJOIN)
    one = session("a", name="worker")
    assert members.arrive(one) == (None, False)
    (row,), leaves = members.wanted()
    assert (row.id, row.name, row.fixed, row.grace_ms, leaves) == ("a", "worker", False, 1_500, [])
    assert members.changed([row], [], 0.0) == []
    assert members.wanted() == ([], [])
    assert members.next_time() is None


def test_who_comes_back_in_time_keeps_its_seat_and_its_records() -> None:
    members = Membership(REJOIN)
    one = seated(members, session("a"))
    assert members.depart(one, 10.0, orderly=False)
    assert members.next_time() == 10.0 + REJOIN
    assert members.tick(11.0) == ([], False)
    again = session("a")
    assert members.arrive(again) == (one, True)
    assert members.wanted() == ([], [])
    assert members.tick(20.0) == ([], False)
    assert members.next_time() is None


def test_who_does_not_loses_both() -> None:
    members = Membership(REJOIN)
    one = seated(members, session("a"))
    members.depart(one, 10.0, orderly=False)
    assert members.tick(11.5) == ([one], True)
    assert members.tick(11.6) == ([], False)
    assert members.wanted() == ([], ["a"])
    assert members.changed([], ["a"], 11.6) == []
    assert members.empty


def test_a_static_member_keeps_its_seat_longer_than_its_records() -> None:
    members = Membership(REJOIN)
    one = seated(members, session("a", grace_ms=60_000))
    members.depart(one, 10.0, orderly=False)
    assert members.tick(11.5) == ([one], True)
    assert members.wanted() == ([], [])
    assert members.next_time() == 70.0
    assert members.tick(69.9) == ([], False)
    assert members.wanted() == ([], [])
    members.tick(70.0)
    assert members.wanted() == ([], ["a"])


def test_coming_back_after_the_grace_but_before_the_change() -> None:
    members = Membership(REJOIN)
    one = seated(members, session("a"))
    members.depart(one, 10.0, orderly=False)
    members.tick(12.0)
    assert members.arrive(session("a")) == (None, True)
    assert members.wanted() == ([], [])


def test_coming_back_while_the_change_is_in_flight() -> None:
    members = Membership(REJOIN)
    one = seated(members, session("a"))
    members.depart(one, 10.0, orderly=False)
    members.tick(12.0)
    joins, leaves = members.wanted()
    again = session("a")
    members.arrive(again)
    members.changed(joins, leaves, 12.1)
    (row,), _ = members.wanted()
    assert members.changed([row], [], 12.2) == []
    assert members.seats["a"].session is again


def test_goodbye() -> None:
    members = Membership(REJOIN)
    one = seated(members, session("a", grace_ms=60_000))
    assert not members.depart(one, 10.0, orderly=True)
    assert members.tick(10.0) == ([], False)
    assert members.wanted() == ([], ["a"])


def test_the_newest_stream_wins() -> None:
    members = Membership(REJOIN)
    one = seated(members, session("a"))
    two = session("a")
    assert members.arrive(two) == (one, True)
    assert not members.depart(one, 10.0, orderly=False)  # its end comes late, and changes nothing
    assert members.sessions == {"a": two}
    assert members.wanted() == ([], [])
    assert members.next_time() is None


def test_a_stream_that_ends_before_it_has_a_seat() -> None:
    members = Membership(REJOIN)
    one = session("a")
    members.arrive(one)
    joins, leaves = members.wanted()
    assert not members.depart(one, 1.0, orderly=False)
    assert members.wanted() == ([], [])
    assert members.changed(joins, leaves, 1.1) == []
    members.tick(1.1 + REJOIN)
    assert members.wanted() == ([], ["a"])


def test_a_member_that_becomes_static() -> None:
    members = Membership(REJOIN)
    one = seated(members, session("a"))
    members.depart(one, 1.0, orderly=False)
    members.arrive(session("a", grace_ms=30_000))
    (row,), leaves = members.wanted()
    assert (row.fixed, row.grace_ms, leaves) == (True, 30_000, [])
    assert members.changed([row], [], 1.1) == []
    assert members.wanted() == ([], [])


def test_a_grace_is_no_shorter_than_what_a_stream_was_handed_is_kept() -> None:
    assert Membership(REJOIN).row_of(session("a", grace_ms=10)).grace_ms == 1_500


def test_a_client_of_protocol_0_has_no_grace() -> None:
    members = Membership(REJOIN)
    one = seated(members, session("a", protocol=0))
    members.depart(one, 10.0, orderly=False)
    members.tick(10.0)
    assert members.wanted() == ([], ["a"])


def test_a_new_leader_waits_for_those_it_finds() -> None:
    members = Membership(REJOIN)
    rows = [("a", MemberRow("", False, 1_500, 0)), ("b", MemberRow("", True, 60_000, 0))]
    assert members.load(rows, 100.0) == []
    assert not members.all_back(100.0)
    assert members.next_time() == 101.5
    assert members.arrive(session("a")) == (None, True)
    assert not members.all_back(100.0)
    members.tick(101.5)
    assert members.all_back(100.0)  # nobody waits for b longer, its seat does
    assert members.wanted() == ([], [])
    members.tick(160.0)
    assert members.wanted() == ([], ["b"])


def test_all_are_back() -> None:
    members = Membership(REJOIN)
    members.load([("a", MemberRow("", False, 1_500, 0))], 100.0)
    members.arrive(session("a"))
    assert members.all_back(100.0)


def test_rows_read_anew() -> None:
    """Seats that are gone take what was kept for them along; streams ask for a seat again."""
    members = Membership(REJOIN)
    one, two = seated(members, session("a")), seated(members, session("b"))
    members.depart(two, 5.0, orderly=False)
    assert members.load([], 6.0) == [two]
    assert [row.id for row in members.wanted()[0]] == ["a"]
    assert members.sessions == {"a": one}
    assert members.next_time() is None


def test_rows_read_anew_keep_their_times() -> None:
    members = Membership(REJOIN)
    one = seated(members, session("a"))
    members.depart(one, 5.0, orderly=False)
    assert members.load([("a", MemberRow("", False, 1_500, 0))], 6.0) == []
    assert members.next_time() == 6.5
    assert members.tick(6.5) == ([one], True)
