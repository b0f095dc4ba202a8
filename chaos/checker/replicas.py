"""All replicas of a partition are the same, once the cluster is at rest."""

from __future__ import annotations

from holdfast.chaos.checker.history import Outcome, Replica
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import View


def check(view: View, findings: Findings) -> None:
    """Every replica by itself, then each against the one with most records."""
    nodes = {replica.node for held in view.replicas.values() for replica in held}
    if not nodes and any(
        publish.outcome is Outcome.OK and view.judged(publish.topic, publish.started)
        for publish in view.publishes
    ):
        findings.add("no-final-state", "records were acknowledged, and no replica is shown at rest")
    for topic, partitions in _created(view).items() if nodes else ():
        missing = [str(number) for number in range(partitions) if (topic, number) not in view.replicas]
        if missing:
            findings.add("no-final-state", f"no node shows {topic}/{', '.join(missing)} at rest")
    for (topic, partition), held in view.replicas.items():
        where = f"{topic}/{partition}"
        without = nodes - {replica.node for replica in held}
        if without:
            findings.add("replica-contents", f"{where} is not on {', '.join(sorted(without))}")
        for replica in held:
            _gap_free(replica, where, findings)
            if replica.start_offset > 0 and topic in view.keeps_all:
                findings.add(
                    "unasked-trim", f"{replica.node} holds {where} from {replica.start_offset} on only"
                )
        best = max(held, key=lambda replica: len(replica.records))
        for replica in held:
            if replica is not best:
                _compare(best, replica, where, findings)


def _created(view: View) -> dict[str, int]:
    """Topics that were certainly created and never deleted: how many partitions they have at least."""
    found: dict[str, int] = {}
    for change in view.changes:
        if change.kind != "delete" and change.outcome is Outcome.OK and change.topic not in view.cut:
            found[change.topic] = max(found.get(change.topic, 0), change.partitions)
    return found


def _gap_free(replica: Replica, where: str, findings: Findings) -> None:
    offsets = [offset for offset, _ in replica.records]
    if offsets == list(range(replica.start_offset, replica.end_offset)):
        return
    expected = replica.start_offset
    for offset in offsets:
        if offset != expected:
            break
        expected += 1
    found = f"offset {offset}" if offsets and offset != expected else "the end"
    findings.add(
        "offset-gap",
        f"{replica.node} has {found} where {where} should have offset {expected}"
        f" (it says {replica.start_offset}..{replica.end_offset - 1})",
    )


def _compare(best: Replica, other: Replica, where: str, findings: Findings) -> None:
    pair = f"{where} on {best.node} and {other.node}"
    if (best.start_offset, best.end_offset) != (other.start_offset, other.end_offset):
        findings.add(
            "replica-offsets",
            f"{pair}: {best.start_offset}..{best.end_offset} and {other.start_offset}..{other.end_offset}",
        )
    if best.records != other.records:
        ours, theirs = dict(best.records), dict(other.records)
        wrong = [
            offset for offset in sorted(ours.keys() | theirs.keys()) if ours.get(offset) != theirs.get(offset)
        ]
        detail = "the same records in another order"
        if wrong:
            first = wrong[0]
            detail = f"{len(wrong)} offsets differ, first {first}: {ours.get(first)!r}, {theirs.get(first)!r}"
        findings.add("replica-contents", f"{pair}: {detail}")
    if best.digest != other.digest:
        findings.add("replica-digest", f"{pair}: digests {best.digest} and {other.digest}")
    if best.content and other.content and best.content != other.content:
        findings.add("replica-digest", f"{pair}: stored bytes {best.content} and {other.content}")
