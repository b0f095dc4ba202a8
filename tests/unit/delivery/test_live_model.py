"""Groups on a leader against what must hold of any run.

Members come, go, die and fall silent, answers and leaders are lost. The clients do what an SDK does: they
hold on to what they work on over a lost stream, and say so on the next one.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import HoldfastError, NoLeaderError, OverloadedError, StorageFullError
from holdfast.storage.retries import State
from holdfast.v1 import bus_pb2, log_pb2

from .live_kit import Client, Place, World, definition

PARTITION, KEY, NONE = bus_pb2.ORDERING_PARTITION, bus_pb2.ORDERING_KEY, bus_pb2.ORDERING_NONE
REJOIN, TIMEOUT = 1.5, 5.0
PARTITIONS = 2


class Worker(Client):
    """A client that checks what it is handed against all others."""

    model: Model

    def __init__(self, model: Model, member: str, **start: object) -> None:
        self.model = model
        self.gone_at: float | None = None
        self.spoke_at = model.world.now
        self.mute = False
        self.sent: dict[int, tuple[str, list[Place]]] = {}
        super().__init__(model.world, member, connect=False, **start)

    def begin(self, *, holding: bool) -> None:
        self.connect(self.handed if holding else ())
        self.gone_at, self.spoke_at, self.mute, self.sent = None, self.world.now, False, {}

    def cut(self) -> None:
        if self.session is not None:
            self.gone_at = self.world.now
        super().cut()

    def works_on(self) -> dict[Place, bytes]:
        """What nobody else may be handed: it is with this one for certain."""
        now = self.world.now
        if self.gone_at is not None and now >= self.gone_at + REJOIN:
            return {}
        if self.gone_at is None and now >= self.spoke_at + TIMEOUT:
            return {}
        return {place: it.key for place, it in self.handed.items()}

    def say(self, what: str, places: list[Place], send: object) -> None:
        self.spoke_at = self.world.now
        number = send(*places) if what == "ack" else send  # type: ignore[operator]
        assert isinstance(number, int)
        self.sent[number] = (what, places)

    def _get(self, topic, partition, offset, slot, lease, attempts, value, key) -> None:  # type: ignore[no-untyped-def]
        self.model.check_handed(self, (topic, partition, offset), key, attempts)
        super()._get(topic, partition, offset, slot, lease, attempts, value, key)

    def _hear(self, message: bus_pb2.SubscribeResponse) -> None:
        super()._hear(message)
        if message.WhichOneof("kind") == "welcome":
            self.model.kept += len(message.welcome.kept)
        if message.WhichOneof("kind") == "settled":
            what, places = self.sent.pop(message.settled.number)
            refused = {
                offset
                for r in message.settled.refusals
                for offset in range(r.first_offset, min(r.last_offset, 10_000) + 1)
            }
            for place in places:
                if place[2] not in refused:
                    self.model.confirmed(what, place)


class Model:
    """One run."""

    def __init__(self, seed: int, ordering: int) -> None:
        self.draw = random.Random(seed)
        self.ordering = ordering
        self.world = World({"t": PARTITIONS, "dead": 1})
        self.max_attempts = self.draw.choice([0, 2, 4])
        self.definition = definition(
            ordering=ordering,
            ack_timeout_ms=round(TIMEOUT * 1_000),
            retry=bus_pb2.RetryPolicy(initial_ms=200, max_ms=1_000, max_attempts=self.max_attempts),
            dead_letter_topic="dead" if self.max_attempts else "",
        )
        self.keys: dict[Place, bytes] = {}
        self.acked: set[Place] = set()  # somebody said so, and may have been heard
        self.durable: set[Place] = set()  # confirmed
        self.charges: Counter[Place] = Counter()  # that may have been made
        self.charged: Counter[Place] = Counter()  # confirmed
        self.workers: list[Worker] = []
        self.process = 0
        self.kept = 0
        self._settled: tuple[int, list[set[int]]] = (0, [])

    # -- what must hold -----------------------------------------------------

    def check_handed(self, worker: Worker, place: Place, key: bytes, attempts: int) -> None:
        assert place not in self.durable, "handed out after it was confirmed as settled"
        assert attempts <= self.charges[place], "charged more often than it can have been"
        assert attempts >= self.charged[place], "a confirmed charge is forgotten"
        assert not self.max_attempts or attempts < self.max_attempts
        assert key == self.keys[place]
        topic, partition, offset = place
        for other in self.workers:
            working = other.works_on()
            assert place not in working or other is worker, "two have it at once"
            if self.ordering == KEY and key:
                same = [at for at, its in working.items() if its == key and at[:2] == place[:2]]
                assert not same or (other is worker and same == [place]), "two of a key at once"
        if self.ordering == NONE or (self.ordering == KEY and not key):
            return
        mine = set(worker.handed) if self.ordering == PARTITION else set()
        for before in range(offset):
            at = (topic, partition, before)
            if self.ordering == PARTITION or self.keys[at] == key:
                over = at in self.acked or at in mine or self.is_over(at)
                assert over, f"{place} before {at}"

    def is_over(self, place: Place) -> bool:
        return place[2] in self.settled()[place[1]]

    def settled(self) -> list[set[int]]:
        """What is settled in the log, per partition."""
        if self._settled[0] != self.world.index:
            found = [self.world.settled("t", n) for n in range(PARTITIONS)]
            self._settled = (self.world.index, found)
        return self._settled[1]

    def confirmed(self, what: str, place: Place) -> None:
        if what == "ack":
            self.durable.add(place)
            assert self.is_over(place), "confirmed before it was durable"
        elif what == "nack":
            self.charged[place] += 1

    def check_rows(self) -> None:
        for n in range(PARTITIONS):
            settled = self.settled()[n]
            for offset, row in self.world.retries("t", n).items():
                assert offset not in settled
                assert row.attempts <= self.charges["t", n, offset], (
                    n,
                    offset,
                    row,
                    self.charges["t", n, offset],
                )
            letters = self.letters()
            for offset in settled:
                place = ("t", n, offset)
                assert place in self.acked or place in letters, "settled by nobody"
            assert len(letters) == len(set(letters)), "two letters of one record"

    def letters(self) -> list[Place]:
        found = self.world.letters("dead")
        return [("t", letter.death.partition, letter.death.offset) for letter in found]

    # -- what happens -------------------------------------------------------

    def turn(self) -> None:
        pick = self.draw.random()
        for limit, act in (
            (0.10, self.publish),
            (0.16, self.arrive),
            (0.20, self.vanish),
            (0.45, self.take),
            (0.65, self.say),
            (0.85, self.step),
            (0.97, self.wait),
            (0.98, self.fail_over),
            (1.01, self.hush),
        ):
            if pick < limit:
                act()
                return

    def publish(self) -> None:
        n = self.draw.randrange(PARTITIONS)
        first = self.world.end("t", n)
        keys = [self.draw.choice([b"", b"a", b"b", b"c"]) for _ in range(self.draw.randint(1, 4))]
        for i, key in enumerate(keys):
            self.keys["t", n, first + i] = key
        self.world.publish("t", n, *keys)

    def arrive(self) -> None:
        away = [worker for worker in self.workers if worker.session is None]
        if away and self.draw.random() < 0.7:
            worker = self.draw.choice(away)
            if worker.start.get("static_grace_ms") is not None and self.draw.random() < 0.5:
                self.die(worker)
                worker.begin(holding=False)
            else:
                worker.begin(holding=True)
        elif len(self.workers) < 4:
            self.process += 1
            fixed = {"static_grace_ms": self.draw.choice([1_000, 8_000])} if self.draw.random() < 0.3 else {}
            worker = Worker(
                self,
                f"m{self.process}",
                credits=self.draw.choice([1, 3, 100]),
                concurrency=self.draw.choice([1, 2, 8]),
                definition=self.definition,
                **fixed,
            )
            self.workers.append(worker)
            worker.begin(holding=False)

    def vanish(self) -> None:
        there = [worker for worker in self.workers if worker.session is not None]
        if not there:
            return
        worker = self.draw.choice(there)
        how = self.draw.random()
        if how < 0.3:
            worker.handed.clear()
            worker.disconnect(orderly=True)
            self.forget(worker)
        elif how < 0.6:
            self.die(worker)
            worker.disconnect()
            self.forget(worker)
        else:
            worker.disconnect()

    def die(self, worker: Worker) -> None:
        """Its process is gone; what it worked on may be charged."""
        self.may_charge(worker)
        worker.handed.clear()

    def may_charge(self, worker: Worker) -> None:
        for place in worker.handed:
            self.charges[place] += 1
        # What was sent and has not reached it counts as well.
        for place in self.keys:
            if place not in worker.handed:
                self.charges[place] += 1

    def forget(self, worker: Worker) -> None:
        self.workers.remove(worker)
        del self.world.clients[worker.member]

    def take(self) -> None:
        there = [worker for worker in self.workers if worker.session is not None]
        if there:
            worker = self.draw.choice(there)
            for _ in range(self.draw.randint(1, 3)):
                worker.pump()

    def say(self) -> None:
        ready = [worker for worker in self.workers if worker.session is not None and worker.handed]
        ready = [worker for worker in ready if worker.session and worker.session.welcomed and not worker.mute]
        if not ready:
            return
        worker = self.draw.choice(ready)
        worker.pump()
        some = [
            place
            for place in worker.handed
            if worker.handed[place].slot or place[:2] in worker.slots.values()
        ]
        if worker.session is None or not some:
            return
        if self.ordering == PARTITION:
            some = some[:1]
        place = self.draw.choice(some)
        how = self.draw.random()
        if how < 0.6:
            self.acked.add(place)
            worker.say("ack", [place], worker.ack)
        elif how < 0.8:
            self.charges[place] += 1
            worker.say("nack", [place], worker.nack(place, delay_ms=self.draw.choice([0, 100, 2_000])))
        elif how < 0.9:
            self.charges[place] += 1  # once in a hundred times
            worker.say("release", [place], worker.nack(place, bus_pb2.NACK_KIND_RELEASE))
        else:
            worker.say("park", [place], worker.nack(place, bus_pb2.NACK_KIND_PARK, delay_ms=500))
        if self.ordering == PARTITION and how >= 0.6:
            # What was handed out behind it is void.
            for each in [at for at in worker.handed if at[:2] == place[:2]]:
                del worker.handed[each]
        worker.spoke_at = self.world.now

    def step(self) -> None:
        if not self.world.queue:
            return
        fates: list[str | HoldfastError] = ["applied"] * 12
        fates += ["lost", "dropped", "late", NoLeaderError("x"), OverloadedError("x"), StorageFullError("x")]
        self.world.step(self.draw.choice(fates))
        self.check_rows()

    def wait(self) -> None:
        world = self.world
        world.now += self.draw.choice([0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0])
        for worker in self.workers:
            session = worker.session
            if session is None:
                if worker.gone_at is not None and world.now >= worker.gone_at + REJOIN:
                    self.may_charge(worker)
            elif not worker.mute:
                worker.beat()
                worker.spoke_at = world.now
            elif world.now >= worker.spoke_at + TIMEOUT:
                self.may_charge(worker)
                worker.handed.clear()
        world.leader.tick()

    def hush(self) -> None:
        """A client stops, or is there again."""
        there = [worker for worker in self.workers if worker.session is not None]
        if there:
            worker = self.draw.choice(there)
            worker.mute = not worker.mute

    def fail_over(self) -> None:
        self.world.lead()

    # -- and in the end -----------------------------------------------------

    def finish(self) -> None:
        """All is well again: everything is handled, or was given up."""
        world = self.world
        for worker in list(self.workers):
            self.die(worker)
            worker.disconnect()
            self.forget(worker)
        last = Worker(self, "last", credits=1_000, concurrency=1, definition=self.definition)
        self.workers.append(last)
        last.begin(holding=False)
        for _ in range(60):
            world.advance(0.5)
            last.beat()
            last.spoke_at = world.now
            for place in list(last.handed):
                if place in last.handed:
                    self.acked.add(place)
                    last.say("ack", [place], last.ack)
        self.check_rows()
        for n in range(PARTITIONS):
            assert world.settled("t", n) == set(range(world.end("t", n))), "something is forgotten"
            assert world.retries("t", n) == {}
        # A letter, or an ack; both only of what was acked while its charge was on its way.
        assert world.owners() in ({}, dict.fromkeys(range(PARTITIONS), "last"))
        assert world.members() == ["last"]
        before = len(world.proposed)
        for _ in range(20):
            world.advance(1.0)
            last.beat()
        assert len(world.proposed) == before, "an idle group proposes something"


@pytest.mark.parametrize("ordering", [PARTITION, KEY, NONE])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 40))
def test_any_run(ordering: int, seed: int) -> None:
    model = Model(seed, ordering)
    for _ in range(model.draw.randint(20, 250)):
        model.turn()
    model.finish()


def test_the_model_sees_retries_letters_and_losses() -> None:
    """Runs in which nothing happens prove nothing."""
    seen: Counter[str] = Counter()
    for seed in range(40):
        model = Model(seed, KEY)
        for _ in range(200):
            model.turn()
        for n in range(PARTITIONS):
            seen.update(row.state.name for row in model.world.retries("t", n).values())
        model.finish()
        seen["letters"] += len(model.letters())
        seen["fences"] += sum(
            1 for op in model.world.proposed if op.WhichOneof("op") == "settle" and not op.settle.flows
        )
        seen["kept"] += model.kept
        seen["reshapes"] += len(model.world.reshapes())
        seen["losses"] += sum(
            1
            for op in model.world.proposed
            for flow in op.settle.flows
            for item in flow.retries
            if item.cause == log_pb2.RETRY_CAUSE_LOST
        )
        seen["expired"] += sum(
            1
            for op in model.world.proposed
            for flow in op.settle.flows
            for item in flow.retries
            if item.cause == log_pb2.RETRY_CAUSE_EXPIRED
        )
    for what in (
        "letters",
        "fences",
        "reshapes",
        "losses",
        "expired",
        State.WAITING.name,
        State.SUSPECT.name,
    ):
        assert seen[what], (what, seen)
