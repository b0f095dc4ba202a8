"""What is going to happen in a run, as data: drawn from a seed, shrunk, printed.

Each seed draws the kinds of faults it uses before it draws the faults (swarm
testing: Groce et al. 2012), so that one run is all about partitions and the
next about disks; a run of everything at once finds less.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from holdfast.cluster.raft.settings import EngineSettings

#: Kinds of faults, and how often each is drawn.
KINDS: dict[str, float] = {
    "crash": 3.0,  # kill -9, back after a while
    "crash_all": 0.7,
    "power": 3.0,  # power goes in the middle of the next commit
    "power_all": 1.5,  # of all nodes at once
    "pause": 2.0,  # SIGSTOP
    "isolate": 3.0,  # one node from all others
    "split": 1.0,  # a minority from a majority
    "cut": 1.5,  # one pair: a bridge
    "one_way": 2.0,  # one direction of one pair, or of all of one node
    "reconnect": 1.5,  # a link breaks and is made anew
    "loss": 1.0,
    "slow_net": 1.5,  # latency beyond election timeouts
    "duplicate": 1.0,  # frames arrive twice
    "ghosts": 1.0,  # frames of earlier terms and connections arrive again
    "slow_disk": 2.0,
    "failed_fsync": 1.0,
    "full_disk": 1.0,
    "rot": 1.0,  # a bit of a stored row flips
    "torn": 0.5,  # the end of a stored row is lost
    "wipe": 1.0,  # the node comes back with an empty disk
    "clock_jump": 1.0,
    "drift": 0.7,
    "transfer": 1.0,  # the leader hands over
    "client_cut": 1.5,  # clients do not reach a node
    "foreign": 0.5,  # entries of a kind nobody knows
    "bad_snapshot": 0.5,  # a snapshot that is damaged and has the right checksum
    "echo": 0.5,  # in elections requests get lost, and answers come again, old ones too
    "outrun": 0.5,  # a leader comes back that knows less of its own log than the others
    "lost_handover": 0.5,  # the leader hands over, and does not hear of it
    "lull": 0.3,  # nothing is asked, and a follower does not hear the leader
}

#: Kinds that are made of several steps: no shorter than this, seconds.
_LONG: dict[str, float] = {"echo": 1.0, "outrun": 2.5, "lost_handover": 1.6, "lull": 2.6}


@dataclass(frozen=True, slots=True)
class Theme:
    """Kinds that are dangerous together, and where.

    Attributes:
        settings: indexes into ``SETTINGS``; none: any.
        pace: seconds between two faults, where each needs time; 0: as drawn.
    """

    kinds: tuple[str, ...]
    settings: tuple[int, ...] = ()
    nodes: int = 3
    pace: float = 0.0


#: Some runs are about one of these: chance alone rarely brings the parts together.
THEMES: tuple[Theme, ...] = (
    Theme(("duplicate", "crash", "transfer", "isolate"), nodes=5),  # votes counted twice
    Theme(("wipe", "ghosts", "crash"), (1, 3)),  # answers of a run before this one
    Theme(("ghosts", "isolate", "transfer", "slow_net"), nodes=5),  # answers of an older term
    Theme(("bad_snapshot",), (7, 8), pace=2.0),
    Theme(("wipe", "crash", "isolate", "power"), (7, 8)),
    Theme(("outrun",), (7, 8), pace=2.0),  # a leader that comes back below the log's base
    Theme(("outrun", "transfer"), (2, 3), pace=2.0),  # ...and above it, to short appends
    Theme(("duplicate", "ghosts", "reconnect", "wipe"), (7, 8)),  # snapshots spliced
    Theme(("rot", "torn", "crash")),
    Theme(("cut", "one_way", "transfer")),  # bridges
    Theme(("lost_handover",), pace=2.0),
    Theme(("lull",), pace=2.5),
    Theme(("echo", "transfer", "crash", "isolate")),  # votes of older terms
    Theme(("echo", "transfer", "isolate"), nodes=5),  # votes counted twice
    Theme(("power_all", "slow_disk", "power")),
)
_THEMED = 0.4

#: Clients that some runs have beside the usual ones, and how often.
GUESTS: dict[str, float] = {
    "keyed": 0.3,  # publish with idempotency keys, their own and each other's
    # Members of a defined group, whose handlers fail and die; by invitation, in a plan's line: a record
    # that runs while the ack before it in its key is unconfirmed may come again beside itself.
    "workers": 0.0,
}

#: No run is longer, seconds.
LONGEST = 300.0
#: How often a run has moments in an order of their own, and which share of them.
_ORDERED = 0.2
_SHARES = (0.2, 0.5, 1.0)

#: Kinds that make sense where there is one node only.
_ALONE = (
    "crash",
    "power",
    "pause",
    "slow_disk",
    "failed_fsync",
    "full_disk",
    "clock_jump",
    "drift",
    "client_cut",
)

#: Half as many heartbeats as a broker sends by itself: a simulated second costs less.
_CALM = EngineSettings(
    heartbeat=0.1,
    election_min=0.5,
    election_max=1.0,
    leader_fallback=1.5,
    # What is published here is small: some of it has to go the way that large records do.
    apart_bytes=150,
)

#: Bounds drawn tight, each in its own way, so that their edges are met.
SETTINGS: tuple[EngineSettings, ...] = (
    EngineSettings(),
    _CALM,
    replace(_CALM, window_messages=2, message_entries=1),
    replace(_CALM, entry_ops=1, message_entries=3, window_bytes=600, message_bytes=300),
    replace(_CALM, early_results=False),
    replace(_CALM, apply_entries=1),
    replace(_CALM, cache_bytes=200),
    replace(
        _CALM,
        keep_entries=5,
        keep_entries_for_laggards=8,
        entry_ops=1,
        snapshot_chunk_bytes=400,
        snapshot_window_bytes=2000,
        snapshot_retry=0.1,
    ),
    replace(
        _CALM,
        keep_entries=3,
        keep_entries_for_laggards=20,
        trim_rows_per_turn=2,
        early_results=False,
        snapshot_chunk_bytes=2000,
        snapshot_stall=1.0,
    ),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at: when it begins, seconds from the start of the storm.
        span: how long it lasts, seconds.
        target: a node, or ``leader``, which is looked up when it begins.
        other: a second node, where it takes two.
        amount: between 0 and 1; what it means depends on the kind.
    """

    at: float
    kind: str
    target: str
    other: str
    span: float
    amount: float

    def __str__(self) -> str:
        return (
            f"{self.at:7.3f}s {self.kind} {self.target}/{self.other} for {self.span:.3f}s ({self.amount:.2f})"
        )


@dataclass(frozen=True, slots=True)
class Order:
    """Where what is due at one moment runs in an order drawn from the seed; see ``order.py``.

    Attributes:
        share: of the moments, above 0 and up to 1.
        begin, end: from when to when, seconds of the run.
        rounds: times that a few records more are published when all is at rest: nothing
            follows that would hide an acknowledgement that was overlooked.
    """

    share: float
    begin: float = 0.0
    end: float = LONGEST
    rounds: int = 3

    def __str__(self) -> str:
        return f"order drawn from {self.begin:.4f} s to {self.end:.4f} s ({self.share:.2f} of the moments)"


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    Attributes:
        storm: seconds during which faults begin; calm follows.
        settings: index into ``SETTINGS``.
        order: of what is due at one moment; None: as scheduled, then the engines, then the loops.
        guests: clients beside the usual ones, of ``GUESTS``; they draw from streams of their own.
    """

    seed: int
    nodes: int
    settings: int
    storm: float
    faults: tuple[Fault, ...]
    order: Order | None = None
    guests: tuple[str, ...] = ()

    def without(self, drop: set[int]) -> Plan:
        """The same without the faults at these places."""
        return replace(self, faults=tuple(f for i, f in enumerate(self.faults) if i not in drop))

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.nodes} nodes, settings {self.settings}, {self.storm:.1f} s of storm"
        ]
        if self.order is not None:
            lines.append(f"  {self.order}")
        if self.guests:
            lines.append(f"  with {', '.join(self.guests)}")
        return "\n".join(lines + [f"  {fault}" for fault in self.faults])


def make_plan(seed: int, *, kinds: tuple[str, ...] = (), nodes: int = 0, settings: int = -1) -> Plan:
    """Draw a plan.

    Args:
        kinds: draw from these only.
        nodes, settings: instead of drawing them.
    """
    rng = random.Random(f"plan/{seed}")
    count = nodes or rng.choices((1, 3, 5), (0.05, 0.77, 0.18))[0]
    choice = rng.randrange(len(SETTINGS))
    pool = list(kinds or (KINDS if count > 1 else _ALONE))
    swarm = rng.sample(pool, min(len(pool), rng.randrange(2, 9)))
    theme = None
    if not kinds and not nodes and rng.random() < _THEMED:
        theme = rng.choice(THEMES)
        count, swarm = theme.nodes, list(theme.kinds)
        choice = rng.choice(theme.settings or range(len(SETTINGS)))
    ids = [f"n{number}" for number in range(1, count + 1)]
    weights = [KINDS[kind] for kind in swarm]
    storm = 4.0 + 5.0 * rng.random()
    pace = rng.choice((0.15, 0.3, 0.3, 0.6, 1.0))
    if theme is not None and theme.pace:
        pace = theme.pace
    at = 0.2
    faults: list[Fault] = []
    while True:
        at += rng.expovariate(1 / pace)
        if at >= storm:
            break
        kind = rng.choices(swarm, weights)[0]
        target = "leader" if rng.random() < 0.55 else rng.choice(ids)
        span = rng.choice((0.003, 0.05, 0.3, 1.0, 2.5)) * (0.3 + rng.random())
        span = max(span, _LONG.get(kind, 0.0))
        faults.append(
            Fault(round(at, 4), kind, target, rng.choice(ids), round(span, 4), round(rng.random(), 3))
        )
    # Last, so that what seeds drew before there was an order stays what it was.
    order = Order(rng.choice(_SHARES)) if rng.random() < _ORDERED else None
    guests = tuple(name for name, chance in GUESTS.items() if rng.random() < chance)
    return Plan(seed, count, choice if settings < 0 else settings, storm, tuple(faults), order, guests)
