"""A group as it should be, in lists and dicts: one partition, and clients that fail, die and come back.

What is replicated survives a change of leader: settled records, retries, dead
letters, transactions. Leases and acks that were not committed do not. The
history is what clients see of it.
"""

from __future__ import annotations

import random

from holdfast.chaos.checker.delivery_events import (
    Conditions,
    Consumption,
    DeadLetter,
    FlowAtRest,
    GroupDefined,
    Handed,
    Joined,
    LagRead,
    PauseTold,
    Produced,
    Restored,
    RetryAtRest,
    SessionOver,
    Told,
    Transacted,
    Verdict,
)
from holdfast.chaos.checker.history import History, Leader, Outcome, Publish, Replica

CLIENTS = ("a", "b", "c")
NODES = ("n1", "n2", "n3")
WAITING, PARKED_FOR_GOOD = 1, 3
FOREVER = 10_000.0


class Retry:
    """A record that failed: attempts charged, when it is due, and whether it is parked."""

    def __init__(self) -> None:
        self.attempts = 0
        self.due = 0.0
        self.state = WAITING


class Client:
    """A member; between two streams it has no session, and its handlers go on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.number = 0
        self.session = ""
        self.back_at = 0.0
        self.open: dict[int, Handed] = {}


class NaiveGroup:
    """One group that reads topic ``t``, and in ``exactly_once`` publishes to ``out``."""

    def __init__(self, seed: int, ordering: str, semantics: str) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.ordering, self.semantics = ordering, semantics
        self.max_attempts = self.random.choice([0, 2, 3]) if semantics != "at_most_once" else 0
        self.history = History()
        self.history.add(
            GroupDefined(
                "g",
                semantics,  # type: ignore[arg-type]
                ordering,  # type: ignore[arg-type]
                0.0,
                ["t"],
                max_attempts=self.max_attempts,
                dead_letter="dead" if self.max_attempts else "",
                initial_ms=500,
                jitter_permille=0,
            )
        )
        self.log: list[tuple[str, str | None]] = []
        self.out: list[str] = []
        self.letters: list[DeadLetter] = []
        self.settled: set[int] = set()
        self.retries: dict[int, Retry] = {}
        self.read = 0  # at most once: what is settled below
        self.clients = {name: Client(name) for name in CLIENTS}
        self.owner = ""
        self.fence = 0
        self.index = 1
        self.term = 0
        # Offset -> who has it, or had it until when it may be handed out again.
        self.leases: dict[int, tuple[str, float]] = {}
        self.quiet_until = 0.0
        self.pending: list[Told] = []
        self.calm_from: float | None = None
        self.elect()

    # What happens.

    def tick(self, least: float = 0.001, most: float = 0.3) -> float:
        self.now += self.random.uniform(least, most)
        return self.now

    def elect(self) -> None:
        """Another leader: leases and acks on their way are gone; clients come back with what they work on."""
        self.term += 1
        self.history.add(Leader(self.random.choice(NODES), self.term, self.tick()))
        for told in self.pending:
            if told.outcome == "ack":
                self.settled.discard(told.offset)
        self.pending.clear()
        for client in self.clients.values():
            if client.session:
                self.history.add(SessionOver(client.name, "g", client.session, self.now))
                client.session = ""
                client.back_at = self.now + self.random.choice([0.2, 0.9, 5.0])
        self.quiet_until = self.now + 1.5
        self.leases = {
            offset: (who, self.now + 1.5)
            for offset, (who, _) in self.leases.items()
            if offset not in self.settled
        }

    def join(self, client: Client) -> None:
        """What it still works on stays with it, if it is back in time."""
        if client.session or self.now < client.back_at:
            return
        started, at = self.tick(0.001, 0.01), self.tick(0.001, 0.01)
        held = sorted(client.open)
        client.number += 1
        client.session = f"{client.name}{client.number}"
        self.history.add(
            Joined(
                client.name,
                "g",
                client.session,
                client.name,
                started,
                at,
                [("t", 0, offset) for offset in held],
            )
        )
        for offset in held:
            who, until = self.leases.get(offset, ("", 0.0))
            if who == client.name and at < until:
                self.leases[offset] = (client.name, FOREVER)
            else:
                del client.open[offset]  # lost: its outcome is dropped

    def lose(self, client: Client) -> None:
        """The client dies: what its handlers had is charged, when it has not come back."""
        if not client.session:
            return
        self.history.add(SessionOver(client.name, "g", client.session, self.tick()))
        client.session, client.back_at = "", self.now + 2.0
        for offset in client.open:
            if self.leases.get(offset, ("", 0.0))[0] == client.name:
                self.leases[offset] = (f"-{client.name}", self.now + 1.5)
        client.open.clear()
        if self.owner == client.name:
            self.owner = ""

    def leave(self, client: Client) -> None:
        if client.session and not client.open:
            self.history.add(SessionOver(client.name, "g", client.session, self.tick(), orderly=True))
            client.session, client.back_at = "", self.now + 0.5
            if self.owner == client.name:
                self.owner = ""

    def publish(self) -> None:
        number = len(self.log)
        key = self.random.choice([None, "x", "y"])
        self.log.append((f"v{number}", key))
        began = self.tick(0.001, 0.01)
        self.history.add(
            Publish(
                "p", "p", number, "t", f"v{number}", began, key, self.tick(0.001, 0.01), Outcome.OK, 0, number
            )
        )

    def reap(self) -> None:
        """Leases that were not taken up again: the dead client's are charged, the others' released."""
        for offset, (who, until) in list(self.leases.items()):
            if until <= self.now:
                del self.leases[offset]
                if who.startswith("-") and offset not in self.settled:
                    self.charge(offset, 0.0)

    def charge(self, offset: int, delay: float) -> None:
        retry = self.retries.setdefault(offset, Retry())
        retry.attempts += 1
        retry.due, retry.state = self.now + delay, WAITING
        if self.max_attempts and retry.attempts >= self.max_attempts:
            self.bury(offset)

    def bury(self, offset: int) -> None:
        value = self.log[offset][0]
        attempts = self.retries.pop(offset).attempts
        self.letters.append(DeadLetter("dead", 0, len(self.letters), value, "g", "t", 0, offset, attempts))
        self.settled.add(offset)

    # What is handed out.

    def lane(self, offset: int) -> str:
        key = self.log[offset][1]
        if self.ordering == "partition":
            return "all"
        return key if self.ordering == "key" and key is not None else f"#{offset}"

    def free(self) -> list[int]:
        """The records that may go out now."""
        taken = {self.lane(offset) for offset in self.leases}
        found = []
        for offset in range(len(self.log)):
            lane = self.lane(offset)
            if offset in self.settled or lane in taken:
                continue
            taken.add(lane)
            retry = self.retries.get(offset)
            if retry is None or (retry.state == WAITING and retry.due <= self.now):
                found.append(offset)
        return found

    def hand(self, client: Client) -> None:
        self.reap()
        if not client.session or self.now < self.quiet_until:
            return
        if self.semantics == "at_most_once":
            if self.read < len(self.log):
                self.read += 1
                if self.random.random() < 0.9 or self.calm_from is not None:
                    self._begin(client, self.read - 1)
            return
        if self.ordering == "partition" and self.owner != client.name:
            if self.owner or self.leases:
                return
            self.index += 1
            self.owner, self.fence = client.name, self.index
        free = self.free()
        if free:
            due = [offset for offset in free if offset in self.retries]
            first = self.random.choice(due or free)
            self.leases[first] = (client.name, FOREVER)
            client.open[first] = self._begin(client, first)

    def _begin(self, client: Client, offset: int) -> Handed:
        value, key = self.log[offset]
        retry = self.retries.get(offset)
        attempt = retry.attempts + 1 if retry is not None else 1
        handed = Handed(
            client.name, "g", client.session, "t", 0, offset, value, self.tick(0.001, 0.01), key, attempt,
            fence=self.fence,
        )  # fmt: skip
        self.history.add(handed)
        return handed

    def finish(self, client: Client, outcome: Verdict | None = None) -> None:
        """A handler ends, and says how, or uses the record in a transaction."""
        if not client.session or not client.open:
            return
        offset = self.random.choice(sorted(client.open))
        del client.open[offset]
        kinds: list[Verdict] = ["ack", "ack", "ack", "nack", "nack", "park", "reject", "release"]
        outcome = outcome or self.random.choice(kinds)
        if outcome == "ack" and self.semantics == "exactly_once":
            self.transact(client, offset)
            return
        delay = self.random.choice([None, 700]) if outcome in ("nack", "park") else None
        told = Told(
            client.name, "g", client.session, "t", 0, offset, outcome, self.tick(0.001, 0.01), delay_ms=delay,
            fence=self.fence,
        )  # fmt: skip
        self.history.add(told)
        if outcome in ("ack", "release"):
            self.leases.pop(offset, None)  # the lane opens at once; the next leader may know nothing of it
        if outcome == "ack":
            self.settled.add(offset)
        self.pending.append(told)
        if outcome != "ack" or self.random.random() < 0.8:
            self.commit()

    def transact(self, client: Client, offset: int) -> None:
        began = self.tick(0.001, 0.01)
        fate = self.random.choice([Outcome.OK, Outcome.OK, Outcome.FAIL, Outcome.UNKNOWN])
        done = fate is Outcome.OK or (fate is Outcome.UNKNOWN and self.random.random() < 0.5)
        value = f"out-{offset}-{self.index}"
        place = len(self.out) if fate is Outcome.OK else None
        self.index += 1
        if done:
            self.out.append(value)
            self.settled.add(offset)
            self.retries.pop(offset, None)
        self.leases.pop(offset, None)
        self.history.add(
            Transacted(
                client.name,
                f"x{self.index}",
                began,
                [Consumption("g", "t", 0, offset, self.fence)],
                [Produced("out", value, None, None if place is None else 0, place)],
                self.tick(0.001, 0.01),
                fate,
            )
        )

    def commit(self) -> None:
        """What was told is durable; tells so."""
        self.tick(0.001, 0.01)
        for told in self.pending:
            offset = told.offset
            if told.outcome == "ack":
                self.retries.pop(offset, None)
            elif told.outcome == "nack":
                retry = self.retries.get(offset)
                delay = 0.5 * 2 ** (retry.attempts if retry is not None else 0)
                self.charge(offset, min(delay, 60.0) if told.delay_ms is None else told.delay_ms / 1_000)
            elif told.outcome == "reject":
                self.charge(offset, 0.0)
                if self.max_attempts:
                    if offset not in self.settled:
                        self.bury(offset)
                else:
                    self.retries[offset].state = PARKED_FOR_GOOD
            elif told.outcome == "park":
                retry = self.retries.setdefault(offset, Retry())
                retry.state = PARKED_FOR_GOOD if told.delay_ms is None else WAITING
                retry.due = self.now + (told.delay_ms or 0) / 1_000
            told.confirmed = self.tick(0.001, 0.01)
            self.leases.pop(offset, None)
            if self.ordering == "partition" and told.outcome in ("park", "reject"):
                self.history.add(
                    PauseTold(told.client, "g", told.session, "t", 0, True, "parked", self.now, offset)
                )
        if self.pending:
            self.index += 1
        self.pending.clear()

    def restore(self) -> None:
        parked = sorted(offset for offset, retry in self.retries.items() if retry.state == PARKED_FOR_GOOD)
        if parked:
            offset = self.random.choice(parked)
            at = self.tick()
            self.retries[offset].state, self.retries[offset].due = WAITING, self.now
            self.history.add(Restored("op", "g", "t", 0, at, offset, False, self.tick(), Outcome.OK))

    def ask_lag(self) -> None:
        """Acks that are not committed count as open."""
        if self.pending:
            return
        for node in self.random.sample(NODES, 2):
            records = len(self.log) - len(self._done())
            oldest = 1 if records else 0
            self.history.add(LagRead("g", "t", 0, node, self.index, records, oldest, self.now))
        self.index += 1

    def _done(self) -> set[int]:
        return set(range(self.read)) if self.semantics == "at_most_once" else self.settled

    def step(self) -> None:
        self.tick(0.001, 0.2)
        client = self.clients[self.random.choice(CLIENTS)]
        actions = [self.publish] * 3 + [self.restore, self.ask_lag, self.tick]
        actions += [self.commit, self.elect] if self.random.random() < 0.2 else []
        members = [self.join] * 3 + [self.hand] * 6 + [self.finish] * 6 + [self.leave]
        members += [self.lose] if self.random.random() < 0.4 else []
        chosen = self.random.randrange(len(actions) + len(members))
        if chosen < len(actions):
            actions[chosen]()
        else:
            members[chosen - len(actions)](client)

    # The end.

    def run(self, steps: int) -> History:
        for _ in range(steps):
            self.step()
        self.commit()
        self.calm_from = self.now
        for _ in range(3 * len(self.log) + 60):
            for client in self.clients.values():
                self.join(client)
                self.hand(client)
                self.finish(client, "ack")
                self.commit()
            self.tick(0.2, 0.3)
        self.rest()
        return self.history

    def rest(self) -> None:
        done = self._done()
        floor = 0
        while floor in done:
            floor += 1
        above = sorted(offset for offset in done if offset > floor)
        settled: list[tuple[int, int]] = []
        for offset in above:
            if settled and settled[-1][1] == offset:
                settled[-1] = settled[-1][0], offset + 1
            else:
                settled.append((offset, offset + 1))
        retries = [
            RetryAtRest(offset, retry.attempts, int(retry.due * 1e6), retry.state)
            for offset, retry in sorted(self.retries.items())
        ]
        dead = [letter.value for letter in self.letters]
        for node in NODES:
            self.history.add(
                FlowAtRest(node, "g", "t", 0, floor, settled, retries, int(self.now * 1e6), self.index, "d")
            )
            for topic, values in (("t", [v for v, _ in self.log]), ("out", self.out), ("dead", dead)):
                records = list(enumerate(values))
                self.history.add(Replica(node, topic, 0, 0, len(records), "d", records, "c"))
        self.history.events += self.letters
        self.ask_lag()
        self.history.add(Conditions(self.now, self.calm_from, ["g"], patience_s=20.0))
