"""Transactions against a naive model: all or nothing, once, consumed once, fenced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.cluster.state.limits import StateLimits
from holdfast.records import decode_batch
from holdfast.storage import acks, bits, cursors, flow_keys, flows, groups, marks, partitions, retries
from holdfast.storage.flows import FlowRow
from holdfast.storage.marks import TRANSACTIONS
from holdfast.storage.port import Table
from holdfast.storage.retries import RetryRow, State

from .replica_kit import Replica, append, commit, create, trim
from .transact_kit import Place, offsets_of, transaction

LIMITS = StateLimits(step_rows=4, scan_rows=4, max_marks_per_topic=8)
KEEP_MS = 1_000
TOPICS = ("a", "b")
PARTITIONS = 2
GROUPS = ("g", "h")
PLACES: list[Place] = [(topic, partition) for topic in (1, 2) for partition in range(PARTITIONS)]


@dataclass
class Flow:
    settled: set[int] = field(default_factory=set)
    fence: int = 0


@dataclass
class Done:
    """A transaction that was committed."""

    expires_us: int
    places: dict[tuple[str, int], int]


class Transactions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.replica = Replica(LIMITS)
        for name in TOPICS:
            self.replica.do(create(name, PARTITIONS))
        for group in GROUPS:
            self.replica.do(commit(group, (1, 0, 0)))
        self.logs: dict[Place, list[bytes]] = {place: [] for place in PLACES}
        self.starts: dict[Place, int] = dict.fromkeys(PLACES, 0)
        self.flows = {(group, *place): Flow() for group in GROUPS for place in PLACES}
        self.done: dict[int, Done] = {}
        self.serial = 0
        for place in PLACES:
            for count in (3, 4):
                self.publish(place, count)

    # -- what others do ---------------------------------------------------------

    @rule(place=st.sampled_from(PLACES), count=st.integers(1, 6))
    def publish(self, place: Place, count: int) -> None:
        value = self.content()
        self.replica.do(append(place[0], [(place[1], count)], fill=value))
        self.logs[place] += [value] * count

    @rule(place=st.sampled_from(PLACES), group=st.sampled_from(GROUPS), data=st.data())
    def acknowledge(self, place: Place, group: str, data: st.DataObject) -> None:
        offset = data.draw(st.integers(0, len(self.logs[place])))
        fence = self.flows[(group, *place)].fence
        self.replica.do(commit(group, (*place, offset), fence=fence))
        self.flows[(group, *place)].settled |= set(range(offset))

    @rule(place=st.sampled_from(PLACES), before=st.integers(0, 20))
    def retain(self, place: Place, before: int) -> None:
        self.replica.do(trim(*place, before))
        state = partitions.read_state(self.replica.w, *place)
        assert state is not None
        self.starts[place] = state.start_offset

    @rule(place=st.sampled_from(PLACES), group=st.sampled_from(GROUPS), fence=st.integers(1, 3))
    def own(self, place: Place, group: str, fence: int) -> None:
        """What a Reshape does to a flow."""
        w = self.replica.w
        row = flows.read(w, group, *place)
        owned = FlowRow(fence, row.settled_above, row.retrying, row.settled_at_us, "m")
        flows.write(w, group, *place, owned)
        self.flows[(group, *place)].fence = fence

    @rule(place=st.sampled_from(PLACES), group=st.sampled_from(GROUPS), data=st.data())
    def fail(self, place: Place, group: str, data: st.DataObject) -> None:
        """What a nack does to a record."""
        unsettled = sorted(set(range(len(self.logs[place]))) - self.flows[(group, *place)].settled)
        if not unsettled:
            return
        w = self.replica.w
        flow = flow_keys.flow_key(group, *place)
        offset = data.draw(st.sampled_from(unsettled))
        if retries.read(w, flow, offset) is None:
            row = flows.read(w, group, *place)
            flows.write(
                w,
                group,
                *place,
                FlowRow(row.fence, row.settled_above, row.retrying + 1, row.settled_at_us, row.owner),
            )
        retries.write(w, flow, offset, RetryRow(1, 0, State.WAITING, 5, 5))

    @rule(ms=st.integers(1, 2 * KEEP_MS))
    def wait(self, ms: int) -> None:
        self.replica.time_us += ms * 1000

    @rule(lose=st.booleans())
    def end_turn(self, lose: bool) -> None:
        """A commit, or a transaction that is dropped with its turn."""
        self.replica.store.commit()
        if lose:
            now = self.replica.time_us
            self.replica.run(transaction(999, [(1, {0: [b"lost"]}), (2, {1: [b"lost"]})]))
            self.replica.store.abort()
            self.replica.machine.reset()
            self.replica.time_us = now

    # -- transactions -----------------------------------------------------------

    @rule(data=st.data(), number=st.integers(0, 7), bad=st.booleans())
    def transact(self, data: st.DataObject, number: int, bad: bool) -> None:
        """Any of a few ids, so that many come again."""
        topics = data.draw(st.lists(st.sampled_from((1, 2)), unique=True))
        appends = []
        for topic in topics:
            chosen = data.draw(
                st.lists(st.integers(0, PARTITIONS - (not bad)), unique=True, min_size=1, max_size=2)
            )
            appends.append(
                (topic, {p: [self.content() for _ in range(data.draw(st.integers(1, 2)))] for p in chosen})
            )
        consume = []
        fences: dict[tuple[str, int, int], int] = {}
        for group in data.draw(
            st.lists(st.sampled_from((*GROUPS, "nobody") if bad else GROUPS), unique=True)
        ):
            places = {}
            for place in data.draw(st.lists(st.sampled_from(PLACES), unique=True, min_size=1, max_size=2)):
                end = len(self.logs[place]) + bad
                if not end:
                    continue
                places[place] = data.draw(st.sets(st.integers(0, end - 1), min_size=1, max_size=4))
                fences[(group, *place)] = data.draw(st.sampled_from((0, 0, 1, 2, 3)))
            if places:
                consume.append((group, places))
        op = transaction(number, appends, consume, fences=fences, keep_ms=KEEP_MS)
        before = self.replica.dump()
        (result,) = self.replica.run(op).results
        now = self.replica.time_us
        known = self.done.get(number)
        if known is not None and known.expires_us > now:
            assert result.transact.repeated_call
            assert offsets_of(result) == known.places
            assert self.replica.dump() == before
            return
        expected = self.refusal(appends, consume, fences, now)
        if expected:
            assert result.error.reason in expected, (result, expected)
            assert self.replica.dump() == before
            return
        assert not result.HasField("error"), result
        assert result.HasField("transact")
        assert not result.transact.repeated_call
        places = offsets_of(result)
        wanted: dict[tuple[str, int], int] = {}
        for topic, batches in appends:
            for partition, values in batches.items():
                wanted[TOPICS[topic - 1], partition] = len(self.logs[topic, partition])
                self.logs[topic, partition] += values
        assert places == wanted
        for group, consumed in consume:
            for place, offsets in consumed.items():
                # What is trimmed is settled by that, once the group settles something there.
                flow = self.flows[(group, *place)]
                flow.settled |= offsets | set(range(self.starts[place]))
        self.done = {other: done for other, done in self.done.items() if done.expires_us > now}
        self.done[number] = Done(now + KEEP_MS * 1000, places)

    def refusal(self, appends: Any, consume: Any, fences: Any, now: int) -> set[str]:
        """The reasons it may be refused for; none: it has to be done."""
        reasons = set()
        if not appends and not consume:
            return {"INVALID_ARGUMENT"}
        if any(partition >= PARTITIONS for _, batches in appends for partition in batches):
            reasons.add("UNKNOWN_PARTITION")
        for group, places in consume:
            if group not in GROUPS:
                reasons.add("UNKNOWN_GROUP")
                continue
            for place, offsets in places.items():
                flow = self.flows[(group, *place)]
                fence = fences[(group, *place)]
                if fence and fence != flow.fence:
                    reasons.add("FENCED")
                if max(offsets) >= len(self.logs[place]):
                    reasons.add("OFFSET_OUT_OF_RANGE")
                if offsets & flow.settled:
                    reasons.add("ALREADY_SETTLED")
        if sum(done.expires_us > now for done in self.done.values()) >= LIMITS.max_marks_per_topic:
            reasons.add("OVERLOADED")
        return reasons

    @rule(place=st.sampled_from(PLACES), group=st.sampled_from(GROUPS), data=st.data())
    def consume(self, place: Place, group: str, data: st.DataObject) -> None:
        """What a well-behaved consumer does: records nobody has settled, under the right fence."""
        flow = self.flows[(group, *place)]
        unsettled = sorted(set(range(len(self.logs[place]))) - flow.settled)
        if not unsettled:
            return
        offsets = data.draw(st.sets(st.sampled_from(unsettled), min_size=1, max_size=4))
        self.serial += 1
        fences = {(group, *place): flow.fence}
        self.replica.time_us += KEEP_MS * 1000  # there is room for one more
        result = self.replica.do(
            transaction(
                1000 + self.serial, consume=[(group, {place: offsets})], fences=fences, keep_ms=KEEP_MS
            )
        )
        assert not result.transact.repeated_call
        flow.settled |= offsets | set(range(self.starts[place]))

    # -- what must hold ---------------------------------------------------------

    @invariant()
    def logs_are_what_the_model_holds(self) -> None:
        w = self.replica.w
        for (topic, partition), values in self.logs.items():
            state = partitions.read_state(w, topic, partition)
            assert state is not None
            assert state.next_offset == len(values)
            stored: list[bytes] = []
            for row in partitions.index_scan(w, topic, partition, 0):
                stored += decode_batch(partitions.read_batch(w, row, verify=True)).values
            assert stored == values[state.start_offset :]

    @invariant()
    def groups_have_settled_what_the_model_has(self) -> None:
        w = self.replica.w
        for (group, topic, partition), flow in self.flows.items():
            floor = groups.committed(w, group, topic, partition) or 0
            key = flow_keys.flow_key(group, topic, partition)
            above = {
                offset
                for chunk, value in acks.scan(w, key)
                for first, end in bits.ranges_of(chunk, value)
                for offset in range(first, end)
                if offset >= floor
            }
            assert set(range(floor)) | above == flow.settled
            assert floor not in flow.settled, "the floor has gone on through what is settled"
            row = flows.read(w, group, topic, partition)
            assert row.settled_above == len(above)
            waiting = [offset for offset, _ in retries.scan(w, key)]
            assert not flow.settled & set(waiting), "a settled record waits for nothing"
            assert row.retrying == len(waiting)

    @invariant()
    def marks_are_counted_and_bounded(self) -> None:
        w = self.replica.w
        assert cursors.marks_of(w, TRANSACTIONS) == marks.count(w) == w.count(Table.MARK_AGES)
        assert marks.count(w) <= LIMITS.max_marks_per_topic

    @invariant()
    def references_are_counted(self) -> None:
        w = self.replica.w
        wanted = sum(int.from_bytes(value, "big") for _, value in w.scan(Table.REFS))
        assert wanted == w.count(Table.INDEX)

    def content(self) -> bytes:
        self.serial += 1
        return b"<%d>" % self.serial


Transactions.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestTransactions = Transactions.TestCase
