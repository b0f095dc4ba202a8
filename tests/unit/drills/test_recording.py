"""What publishers and members note, and what a scene makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import holdfast
from holdfast.chaos.checker import Tally, check, tally
from holdfast.chaos.checker.history import (
    Acked,
    Assigned,
    Committed,
    Delivered,
    Fault,
    History,
    Outcome,
    Publish,
    Read,
    Replica,
    Violation,
)
from holdfast.chaos.drills.load import Load, LoadPlan
from holdfast.chaos.drills.members import Member, runs
from holdfast.chaos.drills.publishers import Publisher
from holdfast.chaos.drills.scene import Scene, Target
from holdfast.chaos.drills.stage import Outcome as Result
from holdfast.chaos.drills.stage import audit
from holdfast.errors import (
    DeadlineExceededError,
    HoldfastError,
    NoLeaderError,
    OverloadedError,
    RecordTooLargeError,
    UnavailableError,
)
from holdfast.v1 import cluster_pb2


class Bus:
    """Stands for a client: hands out futures that the test completes."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[holdfast.Ack]] = []
        self.sent: list[tuple[bytes, str | None]] = []
        self.refuse: HoldfastError | None = None

    def publish(
        self, topic: str, value: bytes, key: str | None = None, *, timeout: float | None = None
    ) -> asyncio.Future[holdfast.Ack]:
        if self.refuse is not None:
            raise self.refuse
        self.sent.append((value, key))
        future: asyncio.Future[holdfast.Ack] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        return future


def a_load() -> Load:
    return Load({"n1": "127.0.0.1:1"}, History(), LoadPlan(topic="t"), discover=False)


def a_publisher(load: Load, bus: Bus) -> Publisher:
    client = cast(holdfast.Client, bus)
    return Publisher("p", client, load, rate=10.0, burst=1, patience=None, value_bytes=20)


async def test_a_publish_is_noted_at_its_start_and_completed_by_its_ack() -> None:
    load, bus = a_load(), Bus()
    operation = a_publisher(load, bus).publish()
    assert load.history.events == [operation]
    assert (operation.outcome, operation.ended) == (Outcome.UNKNOWN, None)
    assert bus.sent[0][0].decode() == operation.value
    bus.futures[0].set_result(holdfast.Ack("t", 3, 17))
    await asyncio.sleep(0)
    assert (operation.outcome, operation.partition, operation.offset) == (Outcome.OK, 3, 17)
    assert load.acks == [(operation.started, operation.ended)]


async def test_values_are_unique_and_sequences_rise() -> None:
    load, bus = a_load(), Bus()
    publisher = a_publisher(load, bus)
    made = [publisher.publish() for _ in range(20)]
    assert len({operation.value for operation in made}) == 20
    assert [operation.sequence for operation in made] == list(range(20))
    assert all(len(operation.value) == 20 for operation in made)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RecordTooLargeError("too large"), Outcome.FAIL),
        (DeadlineExceededError("late"), Outcome.UNKNOWN),
        (DeadlineExceededError("late; nothing was stored"), Outcome.FAIL),
        (NoLeaderError("none"), Outcome.UNKNOWN),
        (OverloadedError("full"), Outcome.UNKNOWN),
        (UnavailableError("gone"), Outcome.UNKNOWN),
    ],
)
async def test_only_what_cannot_have_happened_has_failed(error: HoldfastError, outcome: Outcome) -> None:
    load, bus = a_load(), Bus()
    publisher = a_publisher(load, bus)
    later = publisher.publish()
    bus.futures[0].set_exception(error)
    await asyncio.sleep(0)
    bus.refuse = error
    at_once = publisher.publish()
    assert [later.outcome, at_once.outcome] == [outcome, outcome]
    assert later.error.startswith(error.reason)
    assert load.acks == []


def a_record(offset: int, partition: int = 0) -> holdfast.Record:
    return holdfast.Record("t", partition, offset, None, b"v%d" % offset, 0, 0)


def a_member(load: Load) -> Member:
    return Member(
        "m", "g", cast(holdfast.Client, Bus()), load, acks=True, reads=lambda: True, max_in_flight=10
    )


async def test_a_member_notes_sessions_assignments_deliveries_and_acks() -> None:
    load = a_load()
    member = a_member(load)
    tell: Callable[[Any], None] = member._on_event
    tell(holdfast.Assigned(1, {("t", 0): 0, ("t", 1): 0}))
    member._note([a_record(0), a_record(1), a_record(0, 1), a_record(3)])
    tell(holdfast.Assigned(2, {("t", 0): 0}))  # kept: nothing new
    tell(holdfast.Committed({("t", 0): 2}))
    tell(holdfast.Disconnected(UnavailableError("gone")))
    tell(holdfast.Assigned(3, {("t", 0): 2}))
    events = load.history.events
    assigned = [e for e in events if isinstance(e, Assigned)]
    assert {a.initial for a in assigned} == {"earliest"}
    assert [(a.session, a.generation, a.partition, a.start_offset) for a in assigned] == [
        ("m/1", 1, 0, 0), ("m/1", 1, 1, 0), ("m/2", 3, 0, 2)
    ]  # fmt: skip
    assert [(d.partition, d.offset) for d in events if isinstance(d, Delivered)] == [
        (0, 0), (0, 1), (1, 0), (0, 3)
    ]  # fmt: skip
    assert [(a.partition, a.first, a.last) for a in events if isinstance(a, Acked)] == [
        (0, 0, 1), (1, 0, 0), (0, 3, 3)
    ]  # fmt: skip
    assert [(c.offset, c.session) for c in events if isinstance(c, Committed)] == [(2, "m/1")]
    assert member.committed == {0: 2, 1: 0}


def test_runs_do_not_span_partitions_or_gaps() -> None:
    records = [a_record(1), a_record(2), a_record(3, 1), a_record(5, 1)]
    assert runs(records) == [("t", 0, 1, 2), ("t", 1, 3, 3), ("t", 1, 5, 5)]


def a_scene(load: Load, path: Path) -> Scene:
    target = cast(Target, type("Nobody", (), {"nodes": ()})())
    return Scene(target, load, load.history, path, lambda _: None)


async def test_recovery_is_the_worst_time_to_the_first_ack_of_a_publish_begun_after_a_fault(
    tmp_path: Path,
) -> None:
    load = a_load()
    scene = a_scene(load, tmp_path)
    load.faults = [
        (Fault("a", "n1", 1.0), True),
        (Fault("b", "n1", 5.0), True),
        (Fault("c", "n1", 8.0), False),
    ]
    # Begun before the fault: no sign of recovery, although acknowledged after it.
    load.acks = [(0.9, 1.05), (1.1, 1.2), (4.9, 5.1), (5.2, 5.75), (8.1, 20.0)]
    assert scene.recovery_ms() == pytest.approx(750.0)
    load.faults.append((Fault("d", "n1", 30.0), True))
    assert scene.recovery_ms() == float("inf")


async def test_the_longest_silence_counts_the_time_after_the_last_ack(tmp_path: Path) -> None:
    load = a_load()
    scene = a_scene(load, tmp_path)
    load.acks = [(0.0, 0.1), (0.0, 3.0), (0.0, 3.5)]
    scene.now = lambda: 4.0  # type: ignore[method-assign]
    assert scene.longest_silence(1.0) == pytest.approx(2.0)
    scene.now = lambda: 9.0  # type: ignore[method-assign]
    assert scene.longest_silence(1.0) == pytest.approx(5.5)


async def test_a_fault_is_noted_with_its_end_even_when_the_drill_fails(tmp_path: Path) -> None:
    load = a_load()
    scene = a_scene(load, tmp_path)
    with pytest.raises(ValueError, match="on purpose"), scene.fault("kill", "n1"):
        raise ValueError("on purpose")
    await scene.noted()
    (fault,) = [event for event in load.history.events if isinstance(event, Fault)]
    assert fault.ended is not None
    assert fault.ended >= fault.at


async def test_a_broken_requirement_is_a_violation(tmp_path: Path) -> None:
    scene = a_scene(a_load(), tmp_path)
    scene.require(True, "good", "")
    scene.require(False, "bounded-memory", "grew")
    assert [violation.promise for violation in scene.violations] == ["bounded-memory"]


async def test_a_group_is_behind_until_what_was_acknowledged_is_confirmed() -> None:
    load, bus = a_load(), Bus()
    publisher, member = a_publisher(load, bus), a_member(load)
    member.group = "readers"
    load.publishers, load.members = [publisher], [member]
    publisher.ends = {0: 5, 1: 2}
    member.committed = {0: 5}
    assert load.behind() == [(1, 0, 2)]
    assert load.behind(slack=2) == []
    member.committed = {0: 5, 1: 2}
    assert load.behind() == []


async def test_a_log_that_lost_its_beginning_is_no_retention(monkeypatch: pytest.MonkeyPatch) -> None:
    class Admin:
        async def create_topic(self, name: str, *, partitions: int) -> None:
            assert (name, partitions) == ("t", 1)

    plan = LoadPlan(topic="t", partitions=1, singles=0, bursts=0, impatient=0, members=0, replayers=0)
    load = Load({}, History(), plan, discover=False)

    async def connect(node: str | None = None) -> holdfast.Client:
        return cast(holdfast.Client, Admin())

    monkeypatch.setattr(load, "connect", connect)
    await load.start()
    bus = Bus()
    a_publisher(load, bus).publish()
    bus.futures[0].set_result(holdfast.Ack("t", 0, 0))
    await asyncio.sleep(0)
    # All replicas agree: nothing from offset 1 on, and what was before is gone.
    load.history.events += [Replica(node, "t", 0, 1, 1, "d", []) for node in ("n1", "n2", "n3")]
    assert {violation.promise for violation in check(load.history)} == {"unasked-trim", "lost-record"}
    assert tally(load.history).lost == 1


async def test_what_cannot_be_read_back_is_a_violation(tmp_path: Path) -> None:
    load = a_load()
    scene = a_scene(load, tmp_path)
    scene.target.nodes = ("n1", "n2")

    async def read(node: str, partition: int, **_: Any) -> Read:
        outcome = Outcome.FAIL if (node, partition) == ("n2", 3) else Outcome.OK
        return Read("auditor", "t", partition, 0, 0.0, [], outcome=outcome, error="no majority")

    load.read = read  # type: ignore[assignment]
    await audit(scene)
    assert [(found.promise, found.detail) for found in scene.violations] == [
        ("all-is-read-back", "partition 3 could not be read from n2: no majority")
    ]


async def test_a_node_votes_again_when_it_says_that_it_has_joined(tmp_path: Path) -> None:
    scene = a_scene(a_load(), tmp_path)
    looks = [None, cluster_pb2.ClusterStatus(joining=True), cluster_pb2.ClusterStatus()]
    scene.target.status = lambda node, timeout=1.0: looks.pop(0)  # type: ignore[method-assign]
    await scene.until_voting("n1")
    assert looks == []
    looks = [cluster_pb2.ClusterStatus(joining=True)]
    with pytest.raises(DeadlineExceededError, match="n1 is no voter"):
        await scene.until_voting("n1", timeout=-1.0)


def a_result(**more: Any) -> Result:
    tally = Tally(acked=10, lost=0, duplicated=0, unknown=2, failed=0)
    return Result("leader-kill", **{"tally": tally, "recovery_ms": 12.6, **more})


def test_the_result_line() -> None:
    assert a_result().line() == "drill leader-kill: acked=10 lost=0 duplicated=0 unknown=2 recovery_ms=13"
    assert a_result(violations=[Violation("stale-read", "x")]).line().endswith(" recovery_ms=13 violations=1")
    assert a_result(skipped="no root").line() == "drill leader-kill: skipped: no root"


def test_anything_lost_doubled_or_broken_fails() -> None:
    def counted(lost: int, duplicated: int) -> Tally:
        return Tally(acked=10, lost=lost, duplicated=duplicated, unknown=0, failed=0)

    assert a_result().passed
    assert not a_result(tally=counted(1, 0)).passed
    assert not a_result(tally=counted(0, 1)).passed
    assert not a_result(violations=[Violation("stale-read", "x")]).passed


def test_a_history_survives_being_saved(tmp_path: Path) -> None:
    history = History([Publish("c", "p", 0, "t", "v", 0.5, outcome=Outcome.OK, partition=1, offset=2)])
    history.save(tmp_path / "h.jsonl")
    assert History.load(tmp_path / "h.jsonl").events == history.events
