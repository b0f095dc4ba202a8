"""The names of all promises the checker judges, and what each means."""

from __future__ import annotations

from collections import Counter

from holdfast.chaos.checker.history import Violation

DELIVERY: dict[str, str] = {
    "handed-mismatch": "What a handler is given is what the log holds there.",
    "handed-lost": "At rest every record of a group is settled by somebody, or waits; none is simply gone.",
    "handed-after-settled": "Nothing that was confirmed as settled is handed out again.",
    "once-at-most": "A group that asked for it is handed no record twice.",
    "key-overlap": "Two records of one key are never in two handlers at once, nor is one record.",
    "key-order": "Of a key, the first record that is not settled is handed out, and no other.",
    "partition-order": "Where partitions are handled in order, so are they handed out, and by one member.",
    "retry-early": "A failed record comes again no sooner than asked for, or than the policy says.",
    "retry-forgotten": "A failed record comes again in time, and is remembered until it is settled.",
    "attempts-regress": "The number of an attempt rises by one with each failure, and never falls.",
    "attempts-over": "No record is tried more often than allowed, nor charged for what others did.",
    "dead-and-alive": "A record is in its group or a dead letter, never both, never neither.",
    "fenced-effect": "A transaction is there as a whole or not at all, as it was told.",
    "consumed-twice": "No record of a group is used up by two transactions, or by one and an ack.",
    "effect-twice": "A handler with an inbox commits one effect for a record.",
    "needless-move": "No more partitions change hands than must for everybody to have his share.",
    "stale-generation": "Nothing that is told under a fence that was replaced has an effect.",
    "lag-wrong": "Two nodes that have applied the same index say the same lag; at rest it is exact.",
    "group-replicas": "At rest all nodes hold the same of every group.",
    "pause-silent": "Delivery that stands still at a bound says so.",
}

PROMISES: dict[str, str] = {
    # Consensus, told by the simulator while it runs.
    "election-safety": "A term has at most one leader.",
    "leader-completeness": "A new leader's log holds every entry committed before its term.",
    "log-matching": "A log index that is committed has one term, on every node and for ever.",
    "state-machine-safety": "Every node applies the same entry at the same log index.",
    "apply-order": "A node applies log indexes one by one, in order, none twice within a run.",
    "durable-majority": "What is committed lies on stable storage of a majority.",
    "commit-regress": "A leader's commit index never goes back within its term.",
    # Records.
    "lost-record": "An acknowledged record is in the log until retention removes it.",
    "wrong-offset": "An acknowledged offset holds exactly the record it was acknowledged for.",
    "duplicate-record": "A record of an idempotent producer is in the log at most once.",
    "repeated-key": "Within its window an idempotency key is in the log once; every answer names that place.",
    "failed-record": "A publish that was told to have failed left no record, and nobody was shown one.",
    "unpublished-record": "The log of a topic holds, and readers are shown, only what was published to it.",
    "offset-gap": "Offsets of a partition are ascending and without a gap, on every replica.",
    "producer-order": "Records of one producer lie in a partition in the order they were published in.",
    "real-time-order": "A record published after another was acknowledged lies behind it in the partition.",
    "key-partition": "Records of one key lie in one partition.",
    "unasked-trim": "Nothing is trimmed from a topic without retention.",
    # Replicas.
    "replica-contents": "All replicas of a partition hold the same records at the same offsets.",
    "replica-offsets": "All replicas of a partition have the same start and end offset.",
    "replica-digest": "All replicas of a partition have the same digest and the same stored bytes.",
    "no-final-state": "The history shows the logs at rest, so that it can be judged at all.",
    # Reads.
    "read-gap": "A replay gives offsets in order and leaves out nothing the log holds.",
    "read-mismatch": "An offset gives the same record on every replica and at every time.",
    "stale-read": "A linearizable read shows what was acknowledged, or shown by another, before it began.",
    "stale-offset": "A linearizable read of a group's offset shows no less than was confirmed before.",
    # Groups.
    "delivery-mismatch": "A delivered record is the one the log holds at that offset.",
    "delivery-step-back": "Within one session and assignment offsets only go forward.",
    "delivery-skip": "A member is given every record the log holds and the group has not acknowledged.",
    "delivery-unassigned": "A member is given records of its own partitions only.",
    "assigned-twice": "In one generation of a group a partition belongs to one member.",
    "start-skip": "An assignment starts no later than the first record the group has not acknowledged.",
    "start-step-back": "An assignment starts no earlier than the group's offset confirmed before it.",
    "offset-regress": "The committed offset of a group never goes back.",
    "offset-ahead": "The committed offset of a group never passes a record that was not acknowledged.",
    # Groups with a definition: what `delivery` judges.
    **DELIVERY,
}


class Findings:
    """Collects violations: all are counted, the first few of each promise are kept.

    A diverged replica gives one violation a record; nobody reads a hundred thousand of them.
    """

    def __init__(self, keep: int = 50) -> None:
        self.counts: Counter[str] = Counter()
        self._keep = keep
        self._found: list[Violation] = []

    def add(self, promise: str, detail: str, at: float = -1.0) -> None:
        """Note one violation.

        Raises:
            KeyError: the promise has no entry in `PROMISES`.
        """
        if promise not in PROMISES:
            raise KeyError(promise)
        self.counts[promise] += 1
        if self.counts[promise] <= self._keep:
            self._found.append(Violation(promise, detail, at))

    def violations(self) -> list[Violation]:
        """What was found, in the order found, with a last line per promise for those not kept."""
        more = [
            Violation(promise, f"and {count - self._keep} more like these")
            for promise, count in self.counts.items()
            if count > self._keep
        ]
        return self._found + more
