"""Judges histories: what was promised to clients against what the log holds.

    violations = check(history)      # [] when every promise was kept
    tally(history).lost              # 0

`PROMISES` names what is judged. `consensus.Consensus` judges Raft-level facts as they happen.
"""

from __future__ import annotations

import msgspec

from holdfast.chaos.checker import delivery, groups, keyed, reads, records, replicas
from holdfast.chaos.checker.consensus import Consensus
from holdfast.chaos.checker.history import History, HistoryError, Outcome, Violation
from holdfast.chaos.checker.promises import PROMISES, Findings
from holdfast.chaos.checker.view import View

__all__ = ["PROMISES", "Consensus", "HistoryError", "Tally", "Violation", "check", "judge", "tally"]


class Tally(msgspec.Struct, frozen=True):
    """What became of the publishes of a history, in records.

    Attributes:
        acked, unknown, failed: publishes by outcome.
        lost: acknowledged, and not in the log (nor trimmed).
        duplicated: further copies of records of idempotent producers.
    """

    acked: int
    lost: int
    duplicated: int
    unknown: int
    failed: int


def check(history: History) -> list[Violation]:
    """All broken promises of a history.

    Records are compared with the `Replica` events, so take these of every node
    once the cluster is at rest. A topic that was deleted, or perhaps deleted (a
    `TopicChange` that did not fail), is another topic afterwards: publishes
    begun before the last deletion had certainly ended are not asked for in its
    logs, its groups are judged up to the first deletion and without its logs,
    its replays each by itself. The logs themselves are judged as any other.

    Takes time linear in the events, but for sorting.

    Raises:
        HistoryError: the history contradicts its own rules (one value in two publishes).
    """
    return judge(history)[0]


def tally(history: History) -> Tally:
    """Counts for a result line; see `Tally`.

    Raises:
        HistoryError: as `check`.
    """
    return judge(history)[1]


def judge(history: History) -> tuple[list[Violation], Tally]:
    """`check` and `tally` in one go.

    Raises:
        HistoryError: as `check`.
    """
    view = View(history)
    findings = Findings()
    led: dict[int, str] = {}
    for leader in view.leaders:
        first = led.setdefault(leader.term, leader.node)
        if first != leader.node:
            findings.add(
                "election-safety", f"{first} and {leader.node} both lead in term {leader.term}", leader.at
            )
    replicas.check(view, findings)
    records.check(view, findings)
    keyed.check(view, findings)
    reads.check(view, findings)
    groups.check(view, findings)
    delivery.check(view, findings)
    outcomes = [publish.outcome for publish in view.publishes]
    counted = Tally(
        acked=outcomes.count(Outcome.OK),
        lost=findings.counts["lost-record"],
        duplicated=findings.counts["duplicate-record"],
        unknown=outcomes.count(Outcome.UNKNOWN),
        failed=outcomes.count(Outcome.FAIL),
    )
    return findings.violations(), counted
