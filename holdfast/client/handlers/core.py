"""The handler runner without its loop: records in, decisions out. No I/O, no clock.

A record waits behind the others of its *lane* (its partition, or its key), then
for a free *slot*, of which there are ``concurrency``. When its call has ended,
or has been given up, the broker is told of it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Enum

from holdfast.client.handlers.breaker import Circuit, State
from holdfast.client.handlers.classify import DONE, LET_GO, Outcome, Verdict, classify, explicit
from holdfast.client.handlers.job import (
    Begin,
    Cancel,
    Decision,
    Job,
    Lane,
    Leave,
    Pause,
    Resume,
    Settle,
    Warn,
    Why,
)
from holdfast.client.handlers.lanes import Lanes
from holdfast.client.handlers.subscriber import Options
from holdfast.client.types import Record
from holdfast.headers import REDRIVE_GROUP

#: Seconds a cancelled call has for putting things in order; then it is given up.
CANCEL_GRACE = 5.0

_NO_FLOW = 0


class _Phase(Enum):
    RUNNING = "running"
    STOPPING = "stopping"
    LEFT = "left"


class RunnerCore:
    """What becomes of the records of one handler.

    All methods return what is to be done, in that order. ``now`` is monotonic seconds.

    Args:
        options: the handler's.
        threaded: calls run in threads: they cannot be cancelled, only given up.
    """

    def __init__(self, options: Options, *, threaded: bool) -> None:
        self._options = options
        self._threaded = threaded
        #: Settled before they came: what waits cannot be given back, and is handled.
        self._keeps = options.semantics == "at_most_once"
        self._circuit = None if options.breaker is None else Circuit(options.breaker)
        self._phase = _Phase.RUNNING
        self._stop_at = 0.0
        self._lanes = Lanes()
        #: At work, in the order they were begun: that of their deadlines.
        self._running: dict[Job, None] = {}
        #: At work and told to end.
        self._ending: dict[Job, None] = {}
        #: Given up, with their slots still taken.
        self._abandoned = 0
        #: The one on trial while the breaker is half-open.
        self._trial: Job | None = None
        #: What the broker was last told it may send: nothing, one record, or None: all there is room for.
        self._flow: int | None = None
        self._said: set[tuple[str, int]] = set()

    # -- how it stands ------------------------------------------------------------

    @property
    def room(self) -> int:
        """Records that may come."""
        return self._options.capacity - self._lanes.waiting - len(self._running) - len(self._ending)

    @property
    def busy(self) -> int:
        """Slots taken: calls at work, and those given up that have not ended."""
        return len(self._running) + len(self._ending) + self._abandoned

    @property
    def at_work(self) -> tuple[Job, ...]:
        """Calls that somebody waits for."""
        return (*self._running, *self._ending)

    @property
    def waiting(self) -> int:
        """Records that are here and not begun."""
        return self._lanes.waiting

    @property
    def watched(self) -> bool:
        """Something will be due: ``tick`` is to be called now and then."""
        timed = self._options.timeout is not None and bool(self._running)
        resting = self._circuit is not None and self._circuit.state is State.OPEN
        return timed or resting or bool(self._ending) or self._phase is _Phase.STOPPING

    @property
    def left(self) -> bool:
        """Everything has been told and nothing more will be begun."""
        return self._phase is _Phase.LEFT

    # -- what happens ----------------------------------------------------------------

    def deliver(self, records: Iterable[Record], now: float) -> list[Decision]:
        """Records have come."""
        out: list[Decision] = []
        once = self._options.semantics == "exactly_once"
        for record in records:
            if not self._admits():
                out.append(Settle(record, self._possible(record, LET_GO, out)))
                continue
            job = Job(record, self._lane(record))
            if record.headers and self._foreign(record):
                if not once:  # there, only a transaction settles
                    out.append(Settle(record, DONE))
                    continue
                job.skip = True
            self._lanes.add(job)
        self._fill(now, out)
        return out

    def ended(self, job: Job, error: BaseException | None, now: float) -> list[Decision]:
        """A call has returned, or raised."""
        out: list[Decision] = []
        if job.told:
            self._abandoned -= 1
            self._steer(out)
        else:
            self._running.pop(job, None)
            self._ending.pop(job, None)
            self._tell(job, self._verdict(job, error), now, out)
        self._fill(now, out)
        self._finish(out)
        return out

    def tick(self, now: float) -> list[Decision]:
        """Time has passed."""
        out: list[Decision] = []
        while self._running and (job := next(iter(self._running))).due is not None and job.due <= now:
            self._end(job, Why.TIMEOUT, now, out)
        for job in [job for job in self._ending if job.due is not None and job.due <= now]:
            self._abandon(job, now, out)
        if self._circuit is not None and self._circuit.tick(now):
            self._steer(out)
        if self._phase is _Phase.STOPPING and now >= self._stop_at:
            self._drop_waiting(out)
            for job in list(self._running):
                self._end(job, Why.STOPPED, now, out)
        self._fill(now, out)
        self._finish(out)
        return out

    def lost(self, topic: str, partition: int, offset: int) -> list[Decision]:
        """A record is not this member's any more. Its call goes on; what it says does not count."""

        def meant(job: Job) -> bool:
            record = job.record
            return record.offset == offset and record.partition == partition and record.topic == topic

        for job in (*self._running, *self._ending):
            if meant(job):
                job.lost = True
        out: list[Decision] = []
        if self._lanes.remove(meant, self._whole(topic, partition)):
            self._steer(out, again=True)
        return out

    def revoke(self, topic: str, partition: int) -> list[Decision]:
        """A partition is to go to another member: what waits of it is given back, what runs ends."""

        def meant(job: Job) -> bool:
            return job.record.partition == partition and job.record.topic == topic

        if self._keeps:
            return []
        gone = self._lanes.remove(meant, self._whole(topic, partition))
        out: list[Decision] = [Settle(job.record, LET_GO) for job in gone]
        if gone:
            self._steer(out, again=True)
        return out

    def stop(self, now: float, grace: float) -> list[Decision]:
        """Begin nothing more; what runs has ``grace`` seconds, then it is cancelled.

        May be called again, for less.
        """
        out: list[Decision] = []
        if self._phase is _Phase.RUNNING:
            self._phase = _Phase.STOPPING
            self._stop_at = now + grace
            self._steer(out)
        self._stop_at = min(self._stop_at, now + grace)
        return [*out, *self.tick(now)]

    def abort(self, now: float) -> list[Decision]:
        """Leave at once: what runs is cancelled, and given back without waiting for it."""
        out = self.stop(now, 0.0)
        for job in list(self._ending):
            self._abandon(job, now, out)
        self._finish(out)
        return out

    # -- lanes and slots ---------------------------------------------------------------

    def _foreign(self, record: Record) -> bool:
        """It was redriven for another group: this one has had it."""
        meant = [value for name, value in record.headers if name == REDRIVE_GROUP]
        return bool(meant) and self._options.group.encode() not in meant

    def _lane(self, record: Record) -> Lane:
        ordering = self._options.ordering
        if ordering == "partition":
            return record.topic, record.partition
        if ordering == "key" and record.key is not None:
            return record.topic, record.partition, record.key
        return record.topic, record.partition, record.offset

    def _whole(self, topic: str, partition: int) -> Lane | None:
        """The lane that is a whole partition."""
        return (topic, partition) if self._options.ordering == "partition" else None

    def _fill(self, now: float, out: list[Decision]) -> None:
        """Begin what there are slots for."""
        while self._lanes.ready and self.busy < self._options.concurrency and self._may_begin():
            job = self._lanes.take()
            self._running[job] = None
            if self._options.timeout is not None:
                job.due = now + self._options.timeout
            if self._circuit is not None and self._circuit.state is State.HALF_OPEN:
                self._trial = job
            out.append(Begin(job))

    def _may_begin(self) -> bool:
        if self._phase is not _Phase.RUNNING:
            return self._keeps and self._phase is _Phase.STOPPING
        return self._circuit is None or self._circuit.state is State.CLOSED or self._trial is None

    def _admits(self) -> bool:
        """Whether a record that comes may wait here."""
        if self._keeps:
            return self._phase is not _Phase.LEFT
        if self._flow == _NO_FLOW:
            return False
        return self._flow is None or (self._trial is None and not self._lanes.waiting)

    # -- outcomes ------------------------------------------------------------------------

    def _verdict(self, job: Job, error: BaseException | None) -> Verdict:
        """What is to become of a record whose call has ended.

        A call that was cancelled raises whatever its cancellation makes it raise: that is the record's
        doing only if it says so.
        """
        if error is None:
            return DONE
        said = explicit(error)
        if said is not None:
            return said
        if job.why is Why.STOPPED:
            return LET_GO
        if job.why is Why.TIMEOUT:
            return self._timed_out()
        if isinstance(error, asyncio.CancelledError) and (job.lost or self._phase is not _Phase.RUNNING):
            return LET_GO
        return classify(error, self._options.fatal, self._options.classify)

    def _timed_out(self) -> Verdict:
        return Verdict(Outcome.RETRY, f"timeout: not done within {self._options.timeout:g} s")

    def _tell(self, job: Job, verdict: Verdict, now: float, out: list[Decision]) -> None:
        """A record's one outcome; its lane goes on."""
        job.told = True
        trial = job is self._trial
        if trial:
            self._trial = None
        if not job.lost:
            verdict = self._possible(job.record, verdict, out)
            out.append(Settle(job.record, verdict))
            if verdict.outcome is not Outcome.ACK:
                # The broker begins again at this record, or behind it: what was handed out with it is void.
                out += [Settle(other.record, LET_GO) for other in self._lanes.drop_behind(job.lane)]
        self._lanes.free(job.lane)
        if self._circuit is not None and not job.lost:
            self._judge(self._circuit, verdict.outcome, trial, now, out)
        elif trial:
            self._steer(out, again=True)

    def _possible(self, record: Record, verdict: Verdict, out: list[Decision]) -> Verdict:
        """The verdict, as far as this group has it."""
        place = f"{record.topic}[{record.partition}]@{record.offset}"
        if self._keeps and verdict.outcome is not Outcome.ACK:
            out.append(Warn(f"{place} is lost, as at_most_once has it: {verdict.error or 'not handled'}"))
            return DONE
        if verdict.outcome is Outcome.REJECT and self._options.dead_letter is None:
            lane = (record.topic, record.partition)
            if lane not in self._said:
                self._said.add(lane)
                out.append(
                    Warn(
                        f"{place} is parked: {verdict.error}; without dead_letter= rejected records wait "
                        "until somebody restores them (said once for each partition)"
                    )
                )
            return Verdict(Outcome.PARK, verdict.error)
        return verdict

    def _judge(
        self, circuit: Circuit, outcome: Outcome, trial: bool, now: float, out: list[Decision]
    ) -> None:
        """Let the breaker know; calls begun before it opened say nothing of how things are now."""
        if circuit.state is State.HALF_OPEN and not trial:
            return
        changed = False
        if outcome is Outcome.ACK:
            changed = circuit.succeeded()
        elif outcome is Outcome.RETRY:
            changed = circuit.failed(now)
            if changed:
                out.append(Warn(f"too many failures: no record is tried for {circuit.rest:g} s"))
        if changed or trial:
            self._steer(out, again=True)

    # -- ending calls ------------------------------------------------------------------

    def _end(self, job: Job, why: Why, now: float, out: list[Decision]) -> None:
        """Its time is over: cancel it; a thread can only be left alone."""
        del self._running[job]
        self._ending[job] = None
        job.why = why
        job.due = now + CANCEL_GRACE
        out.append(Cancel(job))
        if self._threaded:
            self._abandon(job, now, out)

    def _abandon(self, job: Job, now: float, out: list[Decision]) -> None:
        """Tell the broker without waiting for the call any longer. Its slot stays taken until it ends."""
        del self._ending[job]
        self._abandoned += 1
        record = job.record
        text = (
            f"the call for {record.topic}[{record.partition}]@{record.offset} does not end: its record is "
            f"handed back, its place stays taken ({self._abandoned} of {self._options.concurrency})"
        )
        out.append(Warn(text))
        self._tell(job, self._timed_out() if job.why is Why.TIMEOUT else LET_GO, now, out)
        self._steer(out)

    def _finish(self, out: list[Decision]) -> None:
        if self._phase is _Phase.STOPPING and not (self._lanes.waiting or self._running or self._ending):
            self._phase = _Phase.LEFT
            out.append(Leave())

    # -- the flow of records -----------------------------------------------------------

    def _steer(self, out: list[Decision], *, again: bool = False) -> None:
        """Let the broker send what can be used: nothing while stopping, resting, or with no slot to hope for.

        Args:
            again: one more record, when that is what may come.
        """
        if self._phase is not _Phase.RUNNING or self._abandoned >= self._options.concurrency:
            flow: int | None = _NO_FLOW
        elif self._circuit is None or self._circuit.state is State.CLOSED:
            flow = None
        else:
            flow = 1 if self._circuit.state is State.HALF_OPEN else _NO_FLOW
        if flow != self._flow or (again and flow == 1):
            out.append(Pause() if flow == _NO_FLOW else Resume(flow))
        self._flow = flow
        if flow == _NO_FLOW and not self._keeps:
            self._drop_waiting(out)

    def _drop_waiting(self, out: list[Decision]) -> None:
        """Hand back what is not begun."""
        for job in self._lanes.drop():
            out.append(Settle(job.record, self._possible(job.record, LET_GO, out)))
