"""Idempotency keys against a dictionary: stamped time, windows that change, bounds, expiry, lost turns."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.cluster.commands import encode_entry
from holdfast.cluster.state.limits import StateLimits
from holdfast.storage import cursors, marks
from holdfast.storage.port import Table

from .replica_kit import Replica, acks, digest, expire_marks, keyed, marked, update

LIMITS = StateLimits(max_marks_per_topic=14, max_marks=20, step_rows=3)
TOPICS = {1: "a", 2: "b"}
WINDOWS_MS = (1_000, 3_000, 10_000)
KEYS = st.text("abcdefghijklmnopqr-", min_size=1, max_size=5)

#: Expiry, topic, key.
Age = tuple[int, int, str]


@dataclass
class Model:
    """What is stored of marks, expired ones included, and where the logs end."""

    rows: dict[tuple[int, str], tuple[int, int, int]] = field(default_factory=dict)
    ends: dict[tuple[int, int], int] = field(default_factory=dict)
    windows: dict[int, int] = field(default_factory=dict)

    def copy(self) -> Model:
        return Model(dict(self.rows), dict(self.ends), dict(self.windows))

    def known(self, topic: int, key: str, now: int) -> tuple[int, int] | None:
        row = self.rows.get((topic, key))
        return row[1:] if row is not None and row[0] > now else None

    def expired(self, now: int, limit: int) -> list[Age]:
        ages = [(row[0], topic, key) for (topic, key), row in self.rows.items() if row[0] <= now]
        return sorted(ages, key=lambda age: (age[0], age[1], digest(age[2])))[:limit]

    def forget(self, now: int, limit: int) -> None:
        for _, topic, key in self.expired(now, limit):
            del self.rows[topic, key]

    def count(self, topic: int) -> int:
        return sum(1 for other, _ in self.rows if other == topic)

    def append(
        self, topic: int, batches: list[tuple[int, str]], now: int
    ) -> tuple[str, list[tuple[int, ...]]]:
        """The reason, and what is marked, or the acks."""
        seen: dict[str, int] = {}
        found: list[tuple[int, ...]] = []
        for number, (partition, keys) in enumerate(batches):
            for index, key in enumerate(keys):
                place = self.known(topic, key, now)
                if key != "-" and key in seen:
                    found.append((number, index, seen[key], -1))
                elif key != "-":
                    seen[key] = partition
                    if place is not None:
                        found.append((number, index, *place))
        if found:
            return "DUPLICATE_KEYS", found
        after = self.copy()
        after.forget(now, 2 * len(seen) + 8)
        if (
            after.count(topic) + len(seen) > LIMITS.max_marks_per_topic
            or len(after.rows) + len(seen) > LIMITS.max_marks
        ):
            return "OVERLOADED", []
        self.rows = after.rows
        for partition, keys in batches:
            base = self.ends.get((topic, partition), 0)
            found.append((partition, base, len(keys), False))
            self.ends[topic, partition] = base + len(keys)
            for index, key in enumerate(keys):
                if key != "-":
                    self.rows[topic, key] = (now + self.windows[topic] * 1000, partition, base + index)
        return "", found


class MarksAgainstADictionary(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.replica = Replica(LIMITS)
        self.model = Model()
        for topic_id, name in TOPICS.items():
            assert self.replica.topic(name, 2, idempotency_ttl_ms=WINDOWS_MS[0]) == topic_id
            self.model.windows[topic_id] = WINDOWS_MS[0]

    @property
    def now(self) -> int:
        return self.replica.time_us

    @rule(topic=st.sampled_from(sorted(TOPICS)), first=KEYS, second=st.none() | KEYS)
    def publish(self, topic: int, first: str, second: str | None) -> None:
        batches = [(0, first), *([(1, second)] if second is not None else [])]
        (result,) = self.replica.run(keyed(topic, *batches)).results
        reason, found = self.model.append(topic, batches, self.now)
        assert result.error.reason == reason
        assert (acks(result) or marked(result)) == found

    @rule(topic=st.sampled_from(sorted(TOPICS)), keys=KEYS)
    def publish_what_is_known(self, topic: int, keys: str) -> None:
        """Drawn keys seldom meet: of all that are known, some."""
        known = [key for other, key in self.model.rows if other == topic]
        self.publish(topic, "".join(known[ord(key) % len(known)] for key in keys) if known else keys, None)

    @rule(milliseconds=st.sampled_from([1, 400, 999, 1_000, 4_000]))
    def wait(self, milliseconds: int) -> None:
        self.replica.time_us += milliseconds * 1000

    @rule(limit=st.integers(0, 5))
    def expire(self, limit: int) -> None:
        result = self.replica.do(expire_marks(limit))
        self.model.forget(self.now, min(limit, LIMITS.step_rows))
        assert result.more == bool(self.model.expired(self.now, 1))

    @rule(topic=st.sampled_from(sorted(TOPICS)), window=st.sampled_from(WINDOWS_MS))
    def change_window(self, topic: int, window: int) -> None:
        self.replica.do(update(TOPICS[topic], idempotency_ttl_ms=window))
        self.model.windows[topic] = window

    @rule()
    def lose_a_turn(self) -> None:
        self.replica.store.commit()
        kept = len(self.replica.entries)
        self.replica.run(keyed(1, (0, "xyz")), expire_marks(), keyed(2, (1, "xyz")))
        self.replica.store.abort()
        self.replica.machine.reset()
        del self.replica.entries[kept:]

    @invariant()
    def the_tables_are_the_dictionary(self) -> None:
        w = self.replica.w
        rows = self.model.rows
        for (topic, key), (expires, partition, offset) in rows.items():
            assert marks.read(w, topic, digest(key), 0) == marks.Mark(expires, partition, offset)
        assert marks.count(w) == w.count(Table.MARK_AGES) == len(rows)
        assert list(marks.expired(w, 1 << 62)) == sorted(
            (expires, topic, digest(key)) for (topic, key), (expires, _, _) in rows.items()
        )
        for topic in TOPICS:
            assert cursors.marks_of(w, topic) == self.model.count(topic)

    def teardown(self) -> None:
        """Another replica, with other turns, comes to the same."""
        second = Replica(LIMITS)
        for number, entry in enumerate(self.replica.entries):
            second.entry(entry)
            if number % 3 == 0:
                second.store.commit()
                second.machine.reset()
        assert second.dump() == self.replica.dump()


TestMarksAgainstADictionary = MarksAgainstADictionary.TestCase
TestMarksAgainstADictionary.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_one_entry_of_many_operations() -> None:
    """Operations of one entry see each other's marks, at one stamped time."""
    replica = Replica(LIMITS)
    topic = replica.topic("a", 1, idempotency_ttl_ms=1_000)
    ops = [keyed(topic, (0, keys)) for keys in ("ab", "bc", "c", "c")]
    results = replica.entry(encode_entry(replica.time_us, ops)).results
    assert [result.error.reason for result in results] == ["", "DUPLICATE_KEYS", "", "DUPLICATE_KEYS"]
    assert marked(results[1]) == [(0, 0, 0, 1)]
    assert marked(results[3]) == [(0, 0, 0, 2)]
