"""The clients of a run: publishers, groups, replayers, an administrator; what they see is the history."""

from __future__ import annotations

from collections.abc import Collection

from holdfast.chaos.checker.history import History
from holdfast.chaos.sim.actor import Actor
from holdfast.chaos.sim.consumers import Consumer
from holdfast.chaos.sim.keyed_publishers import KeyedPublisher, KeyedTopic
from holdfast.chaos.sim.publishers import Publisher, Straggler
from holdfast.chaos.sim.readers import Admin, Replayer
from holdfast.chaos.sim.services import Front
from holdfast.chaos.sim.workers import TOPIC, Work, Worker

#: Topic -> partitions. "short" keeps its last bytes only.
TOPICS = {"main": 2, "short": 1}
#: Comes and goes.
PASSING = "passing"


class Workloads:
    """The clients of a run, some of those there are: 15 to 60 records a second, in bursts.

    ``guests``: those of ``plan.GUESTS`` that come too.
    """

    def __init__(self, front: Front, history: History, guests: Collection[str] = ()) -> None:
        rng = front.cluster.world.stream("workloads")
        topics = {"main": 0.7, "short": 0.3}
        rate = rng.choice((15.0, 30.0, 60.0))
        # Not all in every run: fewer clients leave more virtual time to faults.
        actors: list[tuple[float, Actor]] = [
            (1.0, Admin(front, history, "admin", TOPICS, "short", PASSING)),
            (1.0, Publisher(front, history, "p1", topics, rate * 0.6)),
            (0.5, Publisher(front, history, "p2", {**topics, PASSING: 0.1}, rate * 0.4)),
            (0.8, Consumer(front, history, "c1", "g1", ["main"])),
            (0.4, Consumer(front, history, "c2", "g1", ["main"])),
            (0.4, Consumer(front, history, "c3", "g2", ["main", "short"])),
            (0.8, Replayer(front, history, "r1", TOPICS, 1.0)),
        ]
        self.actors = [actor for chance, actor in actors if rng.random() < chance]
        if "keyed" in guests:
            keyed = KeyedTopic(front.cluster.world.stream("keyed"))
            self.actors += [KeyedPublisher(front, history, name, keyed) for name in ("k1", "k2")]
        #: What the group of workers does; None: there is none.
        self.work: Work | None = None
        if "workers" in guests:
            drawn = front.cluster.world.stream("workers")
            self.work = work = Work(drawn)
            self.actors.append(Publisher(front, history, "wp", {TOPIC: 1.0}, drawn.choice((5.0, 20.0))))
            self.actors += [Worker(front, history, f"w{at + 1}", work) for at in range(work.members)]
        self._front = front
        self._history = history

    @property
    def names(self) -> list[str]:
        """Of all clients, as links know them."""
        return [actor.name for actor in self.actors]

    def start(self) -> None:
        """All begin; nothing is published before the topics are there."""
        for actor in self.actors:
            actor.begin()

    def settle(self) -> None:
        """Nothing is published any more; those who consume go on, and acknowledge everything."""
        for actor in self.actors:
            if isinstance(actor, Consumer | Worker):
                actor.settle()
            else:
                actor.finish()

    @property
    def settled(self) -> bool:
        """All are done but those who consume."""
        return all(actor.done for actor in self.actors if not isinstance(actor, Consumer | Worker))

    def straggler(self) -> Straggler:
        """One more client, which publishes now and then what everybody has to come to the end of."""
        straggler = Straggler(self._front, self._history, "s1", {"main": 1.0}, 1.0)
        self.actors.append(straggler)
        straggler.begin()
        return straggler

    @property
    def reads(self) -> dict[str, list[str]]:
        """Group -> the topics that its members read."""
        reads: dict[str, list[str]] = {}
        for actor in self.actors:
            if isinstance(actor, Consumer):
                known = reads.setdefault(actor.group, [])
                known += [topic for topic in actor.topics if topic not in known]
        return reads

    def finish(self) -> None:
        """All come to an end in good order."""
        for actor in self.actors:
            actor.finish()

    @property
    def finished(self) -> bool:
        return all(actor.done for actor in self.actors)

    def __repr__(self) -> str:
        return f"Workloads({', '.join(map(repr, self.actors))})"
