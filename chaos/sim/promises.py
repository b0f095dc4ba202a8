"""What only the simulation can judge, because it sees all nodes, disks and links at once.

What clients can hold against a cluster is in ``chaos.checker.promises``.
"""

from __future__ import annotations

from holdfast.chaos.checker.history import Violation

PROMISES: dict[str, str] = {
    # At every moment.
    "durable-vote": "A leader's votes are on the disks of those who gave them.",
    "snapshot-not-there": "A snapshot counts for a follower when it is on its disk.",
    "sent-again": "Over a connection without trouble, entries are sent once.",
    "term-inflation": "A node that reaches no majority does not raise its term.",
    "healthy-leader-deposed": "Who hears a live leader votes for no other.",
    "stale-leader-lingers": "A deposed leader that reaches a follower of the new one ends at once.",
    "waiter-hangs": "Whoever waits for an entry that a snapshot jumped over is answered.",
    "stale-barrier": "A read barrier comes after all that was acknowledged before it was asked for.",
    "node-halted": "A node halts for a fault of its own disk only.",
    "unhandled-error": "No error of ours ends in a loop's handler.",
    # After the last fault.
    "no-recovery": "The cluster is whole again within its time, and its replicas the same.",
    "clients-hang": "Every call of a client ends.",
    "group-stuck": "A group with a living member comes to the end of what it reads.",
    "worker-stuck": "A defined group with a willing member settles all there is but what is parked for good.",
    "not-repaired": "Damaged rows are mended, or the disk is asked to be replaced.",
    # Of the simulation itself.
    "simulation-diverged": "Time goes on, and replicas apply the same.",
}


def violation(promise: str, detail: str, at: float) -> Violation:
    """One that is named above.

    Raises:
        KeyError: it is not.
    """
    if promise not in PROMISES:
        raise KeyError(promise)
    return Violation(promise, detail, at)
