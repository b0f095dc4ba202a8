"""Whatever happens to a runner: slots, lanes, one outcome for each record, and an end."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.client.handlers.breaker import Breaker
from holdfast.client.handlers.core import RunnerCore
from holdfast.client.handlers.errors import ParkRecord, RejectRecord, RetryLater
from holdfast.client.handlers.job import Begin, Cancel, Decision, Job, Leave, Pause, Resume, Settle, Warn
from holdfast.client.types import Record
from holdfast.headers import REDRIVE_GROUP

from .kit import options, record

ENDS: list[BaseException | None] = [
    None,
    None,
    None,
    ValueError("bad"),
    RejectRecord("no"),
    ParkRecord(1),
    RetryLater(1),
    asyncio.CancelledError(),
]


class Machine(RuleBasedStateMachine):
    """A core, and beside it what can be seen from outside."""

    @initialize(
        ordering=st.sampled_from(["partition", "key", "none"]),
        concurrency=st.integers(1, 4),
        threaded=st.booleans(),
        timeout=st.sampled_from([None, 5.0]),
        breaker=st.sampled_from([None, Breaker(failures=2, within=20.0, rest=3.0)]),
        once=st.booleans(),
    )
    def begin(self, ordering: str, once: bool, threaded: bool, **given: Any) -> None:
        at_most_once = once and ordering != "key" and given["breaker"] is None
        if at_most_once:
            given |= {"semantics": "at_most_once", "dead_letter": None}
        self.keeps = at_most_once
        self.ordering = ordering
        self.concurrency = given["concurrency"]
        self.core = RunnerCore(options(ordering=ordering, prefetch=50, **given), threaded=threaded)
        self.now = 0.0
        self.offset = 0
        self.open: list[Record] = []
        self.calls: list[Job] = []
        self.settled: list[Record] = []
        self.lost: list[Record] = []
        self.flowing = True
        self.stopped = False
        self.left = 0

    def lane(self, r: Record) -> object:
        if self.ordering == "partition":
            return r.partition
        return (r.partition, r.key) if self.ordering == "key" and r.key is not None else r.offset

    def take(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Begin(job):
                    assert not self.left
                    assert not self.stopped or self.keeps, "nothing is begun after stop"
                    assert self.is_open(job.record), "begun after its outcome"
                    ahead = [r for r in self.open if self.lane(r) == self.lane(job.record)]
                    assert ahead[0] is job.record, "a lane goes in order"
                    self.calls.append(job)
                    assert len(self.calls) <= self.concurrency
                case Settle(told, _):
                    assert self.is_open(told), "told twice, or of a record that is gone"
                    self.open = [r for r in self.open if r is not told]
                    self.settled.append(told)
                case Cancel(job):
                    assert job in self.calls
                case Pause():
                    self.flowing = False
                case Resume():
                    assert not self.stopped
                    self.flowing = True
                case Leave():
                    self.left += 1
                    assert not self.open, "left with records that nothing was told of"
                case Warn(text):
                    assert text

    def is_open(self, it: Record) -> bool:
        return any(r is it for r in self.open)

    @rule(
        made=st.lists(
            st.tuples(st.integers(0, 1), st.sampled_from([None, b"a", b"b"]), st.integers(0, 9)), max_size=5
        )
    )
    def deliver(self, made: list[tuple[int, bytes | None, int]]) -> None:
        records = []
        for partition, key, chance in made:
            headers = ((REDRIVE_GROUP, b"other"),) if chance == 0 else ()
            records.append(record(self.offset, partition=partition, key=key, headers=headers))
            self.offset += 1
        self.open += records
        self.take(self.core.deliver(records, self.now))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), error=st.sampled_from(ENDS))
    def end(self, data: st.DataObject, error: BaseException | None) -> None:
        job = data.draw(st.sampled_from(self.calls))
        self.calls.remove(job)
        self.take(self.core.ended(job, error, self.now))

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.core.tick(self.now))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.open))
        self.open = [r for r in self.open if r is not gone]
        self.lost.append(gone)
        self.take(self.core.lost(gone.topic, gone.partition, gone.offset))

    @rule(partition=st.integers(0, 1))
    def revoke(self, partition: int) -> None:
        self.take(self.core.revoke("orders", partition))
        begun = [job.record for job in self.calls]
        if not self.keeps:
            waiting = [r for r in self.open if r.partition == partition and not any(r is b for b in begun)]
            assert not waiting

    @rule(grace=st.sampled_from([0.0, 2.0, 30.0]), seldom=st.integers(0, 7))
    def stop(self, grace: float, seldom: int) -> None:
        if seldom:
            return
        self.stopped = True
        self.take(self.core.stop(self.now, grace))

    @rule(seldom=st.integers(0, 15))
    def abort(self, seldom: int) -> None:
        if seldom:
            return
        self.stopped = True
        self.take(self.core.abort(self.now))
        assert self.left == 1

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "core"):
            return
        assert self.core.busy == len(self.calls) <= self.concurrency
        begun = [job.record for job in self.calls]
        waiting = [r for r in self.open if not any(r is b for b in begun)]
        assert self.core.waiting == len(waiting)
        assert self.core.left == bool(self.left)
        assert self.left <= 1
        if not self.flowing and not self.keeps:
            assert not waiting, "what waits is handed back when nothing flows"

    def teardown(self) -> None:
        """Everything ends: calls that end, or time alone."""
        if not hasattr(self, "core"):
            return
        self.stop(1.0, 0)
        for _ in range(100):
            if self.left:
                break
            self.wait(1.0)
            for job in list(self.calls)[: self.offset % 2]:
                self.calls.remove(job)
                self.take(self.core.ended(job, None, self.now))
        assert self.left == 1
        assert not self.open
        assert len(self.settled) + len(self.lost) == self.offset


TestMachine = Machine.TestCase
