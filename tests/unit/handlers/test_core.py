"""The runner's core: what a handler does, and what the broker is told of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.client.handlers.breaker import Breaker
from holdfast.client.handlers.classify import Outcome, Verdict
from holdfast.client.handlers.core import CANCEL_GRACE, RunnerCore
from holdfast.client.handlers.errors import ParkRecord, PayloadError, RecordTaken, RejectRecord, RetryLater
from holdfast.client.handlers.job import Cancel, Leave, Pause, Resume, Warn
from holdfast.headers import REDRIVE_GROUP

from .kit import begun, options, outcomes, record, told


def core(*, threaded: bool = False, **given: Any) -> RunnerCore:
    return RunnerCore(options(**{"ordering": "none", "concurrency": 2, **given}), threaded=threaded)


# -- the table of outcomes ---------------------------------------------------------------

TABLE: list[tuple[BaseException | None, Verdict]] = [
    (None, Verdict(Outcome.ACK)),
    (RejectRecord("no"), Verdict(Outcome.REJECT, "no")),
    (ParkRecord(9, "wait"), Verdict(Outcome.PARK, "wait", 9)),
    (RetryLater(3), Verdict(Outcome.RETRY, "to be tried later", 3)),
    (PayloadError("not JSON"), Verdict(Outcome.REJECT, "payload: not JSON")),
    (ValueError("bad"), Verdict(Outcome.RETRY, "ValueError: bad")),
    (LookupError("gone"), Verdict(Outcome.REJECT, "LookupError: gone")),
    (asyncio.CancelledError(), Verdict(Outcome.RETRY, "cancelled")),
    (RecordTaken(), Verdict(Outcome.RELEASE)),
]


@pytest.mark.parametrize(("error", "verdict"), TABLE)
def test_how_a_call_ends(error: BaseException | None, verdict: Verdict) -> None:
    runner = core(fatal=(LookupError,))
    (job,) = begun(runner.deliver([record(7)], 0.0))
    assert told(runner.ended(job, error, 1.0)) == [(7, verdict)]
    assert (runner.busy, runner.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, Verdict(Outcome.ACK)),
        (RejectRecord("no"), Verdict(Outcome.REJECT, "no")),
        (asyncio.CancelledError(), Verdict(Outcome.RELEASE)),
        (RuntimeError("connection closed"), Verdict(Outcome.RELEASE)),
    ],
)
def test_how_a_call_ends_that_shutdown_cancelled(error: BaseException | None, verdict: Verdict) -> None:
    runner = core()
    (job,) = begun(runner.deliver([record(7)], 0.0))
    runner.stop(1.0, 5.0)
    assert runner.tick(5.9) == []
    assert runner.tick(6.0) == [Cancel(job)]
    assert job.given_up
    out = runner.ended(job, error, 6.1)
    assert told(out) == [(7, verdict)]
    assert out[-1] == Leave()


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, Verdict(Outcome.ACK)),
        (ParkRecord(), Verdict(Outcome.PARK, "parked")),
        (asyncio.CancelledError(), Verdict(Outcome.RETRY, "timeout: not done within 2 s")),
        (RuntimeError("connection closed"), Verdict(Outcome.RETRY, "timeout: not done within 2 s")),
    ],
)
def test_how_a_call_ends_that_took_too_long(error: BaseException | None, verdict: Verdict) -> None:
    runner = core(timeout=2.0)
    (job,) = begun(runner.deliver([record(7)], 10.0))
    assert runner.watched
    assert runner.tick(11.9) == []
    assert runner.tick(12.0) == [Cancel(job)]
    assert told(runner.ended(job, error, 12.1)) == [(7, verdict)]


def test_a_call_cancelled_by_others_while_it_stops_is_released() -> None:
    runner = core()
    (job,) = begun(runner.deliver([record(7)], 0.0))
    runner.stop(1.0, 30.0)
    assert outcomes(runner.ended(job, asyncio.CancelledError(), 2.0)) == [(7, "release")]


def test_a_rejected_record_without_a_dead_letter_topic_is_parked_and_said_once_a_partition() -> None:
    runner = core(dead_letter=None)
    warnings = 0
    for offset, partition in ((1, 0), (2, 0), (3, 1)):
        (job,) = begun(runner.deliver([record(offset, partition=partition)], 0.0))
        out = runner.ended(job, PayloadError("not JSON"), 0.0)
        assert told(out) == [(offset, Verdict(Outcome.PARK, "payload: not JSON"))]
        warnings += len([d for d in out if isinstance(d, Warn)])
    assert warnings == 2


# -- lanes and slots -----------------------------------------------------------------------


def test_no_more_than_concurrency_at_once() -> None:
    runner = core(concurrency=2)
    first, second = begun(runner.deliver([record(n) for n in range(4)], 0.0))
    assert (runner.busy, runner.waiting) == (2, 2)
    (third,) = begun(runner.ended(first, None, 0.0))
    assert third.record.offset == 2
    assert [j.record.offset for j in begun(runner.ended(second, None, 0.0))] == [3]


def test_a_partition_in_order_one_at_a_time() -> None:
    runner = core(ordering="partition", concurrency=8)
    jobs = begun(runner.deliver([record(n, partition=n % 2) for n in range(6)], 0.0))
    assert [job.record.offset for job in jobs] == [0, 1]
    assert [j.record.offset for j in begun(runner.ended(jobs[1], None, 0.0))] == [3]
    assert [j.record.offset for j in begun(runner.ended(jobs[0], None, 0.0))] == [2]


def test_a_key_in_order_one_at_a_time() -> None:
    runner = core(ordering="key", concurrency=8)
    keys = [b"a", b"b", b"a", None, None]
    jobs = begun(runner.deliver([record(n, key=key) for n, key in enumerate(keys)], 0.0))
    assert [job.record.offset for job in jobs] == [0, 1, 3, 4]
    assert [j.record.offset for j in begun(runner.ended(jobs[0], None, 0.0))] == [2]


@pytest.mark.parametrize("error", [ValueError(), RejectRecord(), ParkRecord(), RecordTaken()])
def test_what_waits_behind_a_record_that_was_not_handled_is_handed_back(error: Exception) -> None:
    runner = core(ordering="partition", concurrency=8)
    jobs = begun(runner.deliver([record(0), record(1), record(2), record(9, partition=1)], 0.0))
    out = runner.ended(jobs[0], error, 0.0)
    assert [offset for offset, _ in told(out)] == [0, 1, 2]
    assert outcomes(out)[1:] == [(1, "release"), (2, "release")]
    assert begun(out) == []
    assert (runner.busy, runner.waiting) == (1, 0)
    assert [j.record.offset for j in begun(runner.deliver([record(0)], 0.0))] == [0], "the lane is free"


def test_room_is_what_may_still_come() -> None:
    runner = core(ordering="partition", concurrency=2, prefetch=5)
    assert runner.room == 5
    (job,) = begun(runner.deliver([record(n) for n in range(5)], 0.0))
    assert runner.room == 0
    runner.ended(job, None, 0.0)
    assert runner.room == 1


def test_a_record_redriven_for_another_group_is_acknowledged_without_a_call() -> None:
    runner = core()
    other = record(1, headers=((REDRIVE_GROUP, b"ledger"),))
    ours = record(2, headers=(("x", b""), (REDRIVE_GROUP, b"billing")))
    out = runner.deliver([other, ours], 0.0)
    assert outcomes(out) == [(1, "ack")]
    assert [job.record.offset for job in begun(out)] == [2]


def test_in_an_exactly_once_group_it_takes_its_transaction() -> None:
    runner = core(semantics="exactly_once")
    (job,) = begun(runner.deliver([record(1, headers=((REDRIVE_GROUP, b"ledger"),))], 0.0))
    assert job.skip


# -- calls that do not end -------------------------------------------------------------------


def test_a_thread_past_its_time_is_given_up_and_keeps_its_slot() -> None:
    runner = core(threaded=True, timeout=2.0, concurrency=2)
    job, _ = begun(runner.deliver([record(0), record(1), record(2)], 0.0))
    runner.ended(_, None, 1.0)  # 2 begins at 1
    out = runner.tick(2.0)
    assert told(out) == [(0, Verdict(Outcome.RETRY, "timeout: not done within 2 s"))]
    assert any(isinstance(d, Warn) and "1 of 2" in d.text for d in out)
    assert job.given_up
    assert runner.busy == 2
    assert begun(runner.deliver([record(3)], 2.0)) == [], "no slot for it"
    assert [j.record.offset for j in begun(runner.ended(job, None, 60.0))] == [3]
    assert runner.busy == 2


def test_what_a_given_up_thread_says_late_is_dropped() -> None:
    runner = core(threaded=True, timeout=2.0)
    (job,) = begun(runner.deliver([record(0)], 0.0))
    runner.tick(2.0)
    assert told(runner.ended(job, None, 9.0)) == []
    assert runner.busy == 0


def test_when_every_slot_is_given_up_nothing_more_is_asked_for() -> None:
    runner = core(threaded=True, timeout=2.0, concurrency=1, ordering="key")
    (job,) = begun(runner.deliver([record(0), record(1)], 0.0))
    out = runner.tick(2.0)
    assert outcomes(out) == [(0, "retry"), (1, "release")]
    assert [d for d in out if isinstance(d, Pause | Resume)] == [Pause()]
    assert outcomes(runner.deliver([record(2)], 3.0)) == [(2, "release")]
    assert runner.ended(job, None, 9.0) == [Resume(None)]
    assert begun(runner.deliver([record(1)], 9.0))


def test_a_task_that_ignores_its_cancellation_is_given_up_later() -> None:
    runner = core(timeout=2.0, ordering="partition")
    (job,) = begun(runner.deliver([record(0)], 0.0))
    assert runner.tick(2.0) == [Cancel(job)]
    assert told(runner.tick(2.0 + CANCEL_GRACE - 0.01)) == []
    assert outcomes(runner.tick(2.0 + CANCEL_GRACE)) == [(0, "retry")]
    assert runner.busy == 1
    assert begun(runner.deliver([record(0)], 9.0)), "its lane is free, and there is another slot"


# -- leases and hand-overs ---------------------------------------------------------------------


def test_of_a_lost_record_nothing_is_told() -> None:
    runner = core(ordering="partition", concurrency=1)
    (job,) = begun(runner.deliver([record(0), record(1), record(2)], 0.0))
    for offset in (0, 1, 5):
        assert runner.lost("orders", 0, offset) == []
    assert job.lost
    assert runner.waiting == 1
    out = runner.ended(job, ValueError("late"), 1.0)
    assert told(out) == []
    assert [j.record.offset for j in begun(out)] == [2]


def test_a_lost_record_that_comes_again_waits_for_the_call_that_still_runs() -> None:
    runner = core(ordering="none", concurrency=2)
    (job,) = begun(runner.deliver([record(0)], 0.0))
    runner.lost("orders", 0, 0)
    assert begun(runner.deliver([record(0)], 0.0)) == []
    (again,) = begun(runner.ended(job, None, 1.0))
    assert outcomes(runner.ended(again, None, 2.0)) == [(0, "ack")]


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
def test_a_revoked_partition_gives_back_what_waits(ordering: str) -> None:
    runner = core(ordering=ordering, concurrency=1)
    records = [record(0), record(1), record(2, partition=1), record(3)]
    (job,) = begun(runner.deliver(records, 0.0))
    assert sorted(outcomes(runner.revoke("orders", 0))) == [(1, "release"), (3, "release")]
    out = runner.ended(job, None, 1.0)
    assert outcomes(out) == [(0, "ack")]
    assert [j.record.offset for j in begun(out)] == [2]


# -- shutdown -----------------------------------------------------------------------------------


def test_shutdown_releases_what_waits_lets_run_what_runs_and_leaves() -> None:
    runner = core(concurrency=1)
    (job,) = begun(runner.deliver([record(0), record(1)], 0.0))
    out = runner.stop(1.0, 30.0)
    assert out[0] == Pause()
    assert outcomes(out) == [(1, "release")]
    assert not runner.left
    assert outcomes(runner.deliver([record(2)], 1.5)) == [(2, "release")], "it was on its way"
    out = runner.ended(job, ValueError("bad"), 2.0)
    assert outcomes(out) == [(0, "retry")], "it failed by itself"
    assert out[-1] == Leave()
    assert runner.left
    assert outcomes(runner.deliver([record(3)], 3.0)) == [(3, "release")]
    assert [d for d in runner.stop(4.0, 1.0) if isinstance(d, Leave)] == [], "left once"


def test_with_nothing_at_work_it_leaves_at_once() -> None:
    assert core().stop(0.0, 30.0) == [Pause(), Leave()]


def test_a_second_stop_shortens_the_grace() -> None:
    runner = core()
    (job,) = begun(runner.deliver([record(0)], 0.0))
    runner.stop(0.0, 30.0)
    runner.stop(1.0, 60.0)
    assert runner.stop(2.0, 0.0) == [Cancel(job)]


def test_threads_past_the_grace_are_given_back() -> None:
    runner = core(threaded=True)
    (job,) = begun(runner.deliver([record(0)], 0.0))
    runner.stop(0.0, 3.0)
    out = runner.tick(3.0)
    assert outcomes(out) == [(0, "release")]
    assert out[-1] == Leave()
    assert told(runner.ended(job, None, 4.0)) == []


def test_leaving_at_once_waits_for_nobody() -> None:
    runner = core()
    (job,) = begun(runner.deliver([record(0)], 0.0))
    out = runner.abort(1.0)
    assert Cancel(job) in out
    assert outcomes(out) == [(0, "release")]
    assert out[-1] == Leave()
    assert runner.ended(job, asyncio.CancelledError(), 1.1) == []


def test_at_most_once_loses_nothing_that_it_need_not() -> None:
    runner = core(semantics="at_most_once", dead_letter=None, concurrency=1)
    (job,) = begun(runner.deliver([record(0), record(1)], 0.0))
    out = runner.stop(1.0, 30.0)
    assert told(out) == [], "what waits was settled before it came: it is handled"
    out = runner.ended(job, ValueError("bad"), 2.0)
    assert told(out) == [(0, Verdict(Outcome.ACK))]
    assert any(isinstance(d, Warn) and "lost, as at_most_once has it: ValueError: bad" in d.text for d in out)
    (last,) = begun(out)
    assert runner.ended(last, None, 3.0)[-1] == Leave()


def test_at_most_once_past_the_grace_says_what_is_lost() -> None:
    runner = core(semantics="at_most_once", dead_letter=None, concurrency=1)
    begun(runner.deliver([record(0), record(1)], 0.0))
    out = runner.stop(1.0, 0.0)
    assert told(out) == [(1, Verdict(Outcome.ACK))]
    assert any(isinstance(d, Warn) and "@1 is lost" in d.text for d in out)


# -- the breaker -----------------------------------------------------------------------------------


def broken(**given: Any) -> RunnerCore:
    """A runner whose breaker opened at 0 for 15 seconds."""
    runner = core(breaker=Breaker(failures=2, within=30.0, rest=15.0), **given)
    first, second = begun(runner.deliver([record(0), record(1), record(2)], 0.0))
    assert told(runner.ended(first, ValueError(), 0.0))[0][0] == 0
    out = runner.ended(second, ValueError(), 0.0)
    assert [d for d in out if isinstance(d, Pause | Resume)] == [Pause()]
    return runner


def test_an_open_breaker_pauses_and_hands_back() -> None:
    runner = core(breaker=Breaker(failures=2), concurrency=2)
    first, second = begun(runner.deliver([record(n) for n in range(5)], 0.0))
    (third,) = begun(runner.ended(first, ValueError(), 0.0))
    out = runner.ended(second, ValueError(), 0.0)
    kinds = [type(d).__name__ for d in out]
    assert kinds == ["Settle", "Warn", "Pause", "Settle", "Settle"]
    assert outcomes(out) == [(1, "retry"), (3, "release"), (4, "release")]
    assert outcomes(runner.deliver([record(5)], 0.0)) == [(5, "release")]
    assert outcomes(runner.ended(third, None, 1.0)) == [(2, "ack")], "begun before; it changes nothing"
    assert runner.watched
    assert runner.tick(14.9) == []


def test_half_open_tries_one_record() -> None:
    runner = broken()
    (job,) = (j for j in [*runner._running])
    runner.ended(job, None, 1.0)
    assert runner.tick(15.0) == [Resume(1)]
    out = runner.deliver([record(5), record(6)], 16.0)
    assert outcomes(out) == [(6, "release")]
    (trial,) = begun(out)
    assert outcomes(runner.deliver([record(7)], 16.0)) == [(7, "release")]
    out = runner.ended(trial, None, 17.0)
    assert outcomes(out) == [(5, "ack")]
    assert [d for d in out if isinstance(d, Pause | Resume)] == [Resume(None)]
    assert len(begun(runner.deliver([record(6), record(7)], 18.0))) == 2


def test_a_trial_that_fails_doubles_the_rest() -> None:
    runner = broken()
    runner.tick(15.0)
    (trial,) = begun(runner.deliver([record(5)], 16.0))
    out = runner.ended(trial, ValueError(), 16.0)
    assert [d for d in out if isinstance(d, Pause | Resume)] == [Pause()]
    assert runner.tick(45.9) == []
    assert runner.tick(46.0) == [Resume(1)]


@pytest.mark.parametrize("error", [RejectRecord("poison"), ParkRecord()])
def test_a_trial_that_tells_nothing_is_followed_by_another(error: Exception) -> None:
    runner = broken()
    runner.tick(15.0)
    (trial,) = begun(runner.deliver([record(5)], 16.0))
    out = runner.ended(trial, error, 16.0)
    assert [d for d in out if isinstance(d, Pause | Resume)] == [Resume(1)]
    assert begun(runner.deliver([record(6)], 16.0))


def test_a_trial_that_is_lost_is_followed_by_another() -> None:
    runner = broken()
    runner.tick(15.0)
    (trial,) = begun(runner.deliver([record(5)], 16.0))
    runner.lost("orders", 0, 5)
    assert runner.ended(trial, ValueError(), 16.0) == [Resume(1)]


@pytest.mark.parametrize("gone", ["lost", "revoked"])
def test_a_trial_that_goes_before_it_begins_is_followed_by_another(gone: str) -> None:
    runner = core(breaker=Breaker(failures=1, rest=0.5), concurrency=2, timeout=1.0, threaded=True)
    runner.deliver([record(0)], 0.0)
    runner.deliver([record(1)], 0.9)
    assert Pause() in runner.tick(1.0), "the first is given up, and keeps its slot"
    assert runner.tick(1.5) == [Resume(1)]
    assert runner.deliver([record(5)], 1.5) == [], "there is no slot for it"
    out = runner.lost("orders", 0, 5) if gone == "lost" else runner.revoke("orders", 0)
    assert out[-1] == Resume(1)


def test_old_calls_say_nothing_about_the_trial() -> None:
    runner = broken()
    (old,) = (job for job in [*runner._running])
    runner.tick(15.0)
    (trial,) = begun(runner.deliver([record(5)], 16.0))
    assert [d for d in runner.ended(old, ValueError(), 16.0) if isinstance(d, Pause | Resume)] == []
    assert [d for d in runner.ended(trial, None, 16.0) if isinstance(d, Resume)] == [Resume(None)]


def test_rejects_do_not_open_it_and_timeouts_do() -> None:
    runner = core(breaker=Breaker(failures=2), concurrency=1, timeout=1.0)
    for offset in range(5):
        (job,) = begun(runner.deliver([record(offset)], 0.0))
        assert [d for d in runner.ended(job, PayloadError("x"), 0.0) if isinstance(d, Pause)] == []
    pauses = 0
    for offset in range(5, 7):
        (job,) = begun(runner.deliver([record(offset)], 0.0))
        runner.tick(1.0)
        pauses += runner.ended(job, asyncio.CancelledError(), 1.0).count(Pause())
    assert pauses == 1


def test_while_it_stops_a_breaker_resumes_nothing() -> None:
    runner = broken()
    runner.stop(1.0, 30.0)
    assert [d for d in runner.tick(15.0) if isinstance(d, Resume)] == []
